package shipper

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/block"
)

// The defaults of Config.
const (
	DefaultMetaFileName = "thanos.shipper.json"
	DefaultInterval     = 30 * time.Second
)

// Config says what is uploaded, and how.
type Config struct {
	// Labels returns the external labels that uploaded blocks get, over those that their local meta.json
	// may have. It is called once a round; a round without labels fails.
	Labels func() labels.Labels
	// Source says in meta.json who uploaded a block.
	Source block.Source
	// MetaFileName is the name of the shipper file in the TSDB's directory. Empty is DefaultMetaFileName.
	MetaFileName string
	// Interval is the time between two rounds of Run. 0 is DefaultInterval.
	Interval time.Duration

	// UploadCompacted also uploads blocks that the TSDB has compacted, unless they overlap with blocks
	// in the bucket that have the same labels.
	UploadCompacted bool
	// AllowOutOfOrder goes on with newer blocks when one can't be uploaded, and drops the check for
	// overlaps. A compactor that runs at the same time may then halt on the block that comes late.
	AllowOutOfOrder bool
	// SkipCorrupted goes on without blocks that can't be read.
	SkipCorrupted bool

	// Concurrency is the number of files of a block that are uploaded at a time; less than 1 is 1.
	Concurrency int
	// Hash adds checksums to the list of files in meta.json.
	Hash block.HashFunc
}

// Validate explains contradictions.
func (c *Config) Validate() error {
	if c.Labels == nil {
		return errors.New("BUG: shipper without labels")
	}
	if c.Hash != block.HashNone && c.Hash != block.HashSHA256 {
		return fmt.Errorf("unknown hash function %q: --hash-func is %s or empty", c.Hash, block.HashSHA256)
	}
	if c.Concurrency < 0 {
		return fmt.Errorf("--shipper.upload-concurrency is %d, must not be negative", c.Concurrency)
	}
	if c.MetaFileName != "" && c.MetaFileName != filepath.Base(c.MetaFileName) {
		return fmt.Errorf("--shipper.meta-file-name is %q, must be a name without a directory", c.MetaFileName)
	}
	return nil
}
