package reloader

import (
	"errors"
	"fmt"
	"time"
)

// Config says what is watched and how often.
type Config struct {
	// ConfigFile is the watched configuration, plain or compressed with gzip. Empty watches none.
	ConfigFile string
	// ConfigEnvsubstFile is where ConfigFile is written to, uncompressed and with $(VAR) replaced by the
	// environment. Empty writes nothing.
	ConfigEnvsubstFile string
	// RuleDirs are watched with all their subdirectories; symbolic links are followed.
	RuleDirs []string
	// WatchInterval is the time between two looks without any event. 0 looks only at events.
	WatchInterval time.Duration
	// RetryInterval is the time until the next look after one that failed.
	RetryInterval time.Duration
	// Settle is how long after an event files are looked at, so that one change of many files is one
	// reload. 0 is DefaultSettle.
	Settle time.Duration
	// TolerateUndefined leaves $(VAR) as it is when VAR is not set, instead of refusing the file. It is
	// counted either way.
	TolerateUndefined bool
}

// The defaults of Config.
const (
	DefaultWatchInterval = 3 * time.Minute
	DefaultRetryInterval = 5 * time.Second
	DefaultSettle        = time.Second
)

// reloadTimeoutMin bounds a reload when looks are more frequent, as large configurations take their time.
const reloadTimeoutMin = time.Minute

// configBytesMax bounds a configuration in memory, unpacked. Prometheus's own reads it whole, too.
const configBytesMax = 64 << 20

// Enabled tells whether there is anything to watch.
func (c *Config) Enabled() bool { return c.ConfigFile != "" || len(c.RuleDirs) > 0 }

// Validate explains contradictions.
func (c *Config) Validate() error {
	if c.ConfigEnvsubstFile != "" && c.ConfigFile == "" {
		return errors.New("--reloader.config-envsubst-file needs --reloader.config-file to read from")
	}
	if c.ConfigFile != "" && c.ConfigFile == c.ConfigEnvsubstFile {
		return fmt.Errorf("--reloader.config-file and --reloader.config-envsubst-file are both %s: the output would overwrite its source", c.ConfigFile)
	}
	if c.WatchInterval < 0 {
		return fmt.Errorf("--reloader.watch-interval is %s, must not be negative", c.WatchInterval)
	}
	if c.RetryInterval < 0 {
		return fmt.Errorf("--reloader.retry-interval is %s, must not be negative", c.RetryInterval)
	}
	return nil
}
