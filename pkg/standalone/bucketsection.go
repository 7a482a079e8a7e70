package standalone

import (
	"fmt"
	"os"

	"github.com/go-kit/log"
	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/objstore"
)

// bucketSection is the part of the scrape file that says where blocks go: an object storage configuration.
const bucketSection = "object_storage"

// BucketOf returns the object storage configuration in a scrape file, as YAML; nil if it has none.
func BucketOf(file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read %s of the scrape configuration: %w", bucketSection, err)
	}
	var sections struct {
		Bucket yaml.MapSlice `yaml:"object_storage"`
	}
	if err := yaml.Unmarshal(content, &sections); err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", bucketSection, file, err)
	}
	if len(sections.Bucket) == 0 {
		return nil, nil
	}
	return yaml.Marshal(sections.Bucket)
}

// CheckFile tells what is wrong with a scrape file.
func CheckFile(file string) error {
	if _, err := loadScrapeFile(file, log.NewNopLogger()); err != nil {
		return err
	}
	bucket, err := BucketOf(file)
	if err != nil || bucket == nil {
		return err
	}
	if _, err := objstore.Parse(bucket); err != nil {
		return fmt.Errorf("%s: %w", bucketSection, err)
	}
	return nil
}
