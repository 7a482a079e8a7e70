package components

import (
	"fmt"

	"github.com/koios-metrics/koios/pkg/standalone"
)

// bucket is the object storage configuration: of the flags, or of the file with the scrape configurations.
func (c *standaloneFlags) bucket() ([]byte, error) {
	given, err := c.objstore.read()
	if err != nil || c.configFile == "" {
		return given, err
	}
	text, err := standalone.BucketOf(c.configFile)
	if err != nil || text == nil {
		return given, err
	}
	if given != nil {
		return nil, fmt.Errorf("object storage is configured by --%s and by object_storage in --config.file=%s: give one of them", c.objstore.name, c.configFile)
	}
	if text, err = expandEnv(text); err != nil {
		return nil, fmt.Errorf("object_storage in --config.file=%s: %w", c.configFile, err)
	}
	return text, nil
}
