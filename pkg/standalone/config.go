package standalone

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/query/api"
	"github.com/koios-metrics/koios/pkg/serve"
)

// The defaults of Config.
const (
	DefaultDataDir       = "./data"
	DefaultBlockDuration = 2 * time.Hour
	DefaultRetention     = 6 * time.Hour
	DefaultSelfInterval  = 5 * time.Second
	DefaultShipInterval  = 30 * time.Second
	DefaultSyncInterval  = time.Minute

	// DefaultMemoryBytesMax is 1 GiB: a small machine can give it, and it holds the chunks of some hundred
	// thousand series for a day.
	DefaultMemoryBytesMax = 1 << 30

	defaultFirstLook = 10 * time.Second
)

// Config says what a Standalone scrapes, where it keeps it and where it answers. Zero durations and an
// empty DataDir stand for the defaults.
type Config struct {
	// DataDir is the folder that everything is kept in. It is made when it is not there.
	DataDir string
	// ScrapeFile is a prometheus.yml; its scrape configurations and external labels are used. Empty is
	// none: Koios scrapes itself, each SelfInterval.
	ScrapeFile   string
	SelfInterval time.Duration
	// Bucket is the configuration of the bucket in YAML; nil is a folder in DataDir.
	Bucket []byte
	// BlockDuration is the time that a block covers. A block is cut when half as much again has passed.
	BlockDuration time.Duration
	// Retention is how long a block stays in the TSDB once it is in the bucket. The bucket keeps blocks for
	// good.
	Retention time.Duration
	// ShipInterval and SyncInterval are the times between two looks at what can be shipped, and at what is in
	// the bucket.
	ShipInterval, SyncInterval time.Duration

	// MemoryBytesMax bounds the memory in bytes that all queries together hold for series and chunks, and
	// that all reads from the bucket hold. A query past it is refused.
	MemoryBytesMax int64

	// Query and API say how queries are evaluated and answered. Their bound of memory is MemoryBytesMax.
	Query query.Config
	API   api.Config

	// AnswerBytesMax bounds the memory in bytes of the answers to range queries that are kept; 0 keeps none.
	AnswerBytesMax int64

	// HTTP and GRPC are where queries and StoreAPI are served.
	HTTP serve.HTTPConfig
	GRPC serve.GRPCConfig

	// Greeting is where the first words to a person at a terminal go: what to open and what to try. Nil
	// is nowhere.
	Greeting io.Writer

	// firstLook bounds how long readiness waits for the first look into the bucket. A bucket that takes
	// longer is waited for in the background, and answers say that its data is missing.
	firstLook time.Duration
}

// Validate fills in the defaults and explains contradictions.
func (c *Config) Validate() error {
	if c.DataDir == "" {
		c.DataDir = DefaultDataDir
	}
	for _, d := range []struct {
		name string
		d    *time.Duration
		def  time.Duration
	}{
		{"block duration", &c.BlockDuration, DefaultBlockDuration},
		{"retention", &c.Retention, DefaultRetention},
		{"interval of scraping itself", &c.SelfInterval, DefaultSelfInterval},
		{"interval of shipping", &c.ShipInterval, DefaultShipInterval},
		{"interval of looking into the bucket", &c.SyncInterval, DefaultSyncInterval},
		{"wait for the bucket", &c.firstLook, defaultFirstLook},
	} {
		if *d.d == 0 {
			*d.d = d.def
		}
		if *d.d < time.Millisecond {
			return fmt.Errorf("the %s is %v, must be positive", d.name, *d.d)
		}
	}
	if c.MemoryBytesMax == 0 {
		c.MemoryBytesMax = DefaultMemoryBytesMax
	}
	if c.MemoryBytesMax < 0 {
		return fmt.Errorf("the memory of queries is %d bytes, must be positive", c.MemoryBytesMax)
	}
	if c.AnswerBytesMax < 0 {
		return fmt.Errorf("the memory of kept answers is %d bytes, must not be negative", c.AnswerBytesMax)
	}
	if c.ScrapeFile == "" && c.HTTP.WebConfigFile != "" {
		return errors.New("with a web configuration (--http.config), scraping oneself would need its certificates and users: say how in a scrape configuration (--config.file)")
	}
	if c.Greeting == nil {
		c.Greeting = io.Discard
	}
	return nil
}

// The folders in DataDir.
func (c *Config) tsdbDir() string   { return filepath.Join(c.DataDir, "tsdb") }
func (c *Config) bucketDir() string { return filepath.Join(c.DataDir, "bucket") }
func (c *Config) storeDir() string  { return filepath.Join(c.DataDir, "store") }
func (c *Config) asideDir() string  { return filepath.Join(c.DataDir, "set-aside") }
