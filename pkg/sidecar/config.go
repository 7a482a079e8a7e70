package sidecar

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/shipper"
	"github.com/koios-metrics/koios/pkg/store/prom"
	"github.com/koios-metrics/koios/pkg/store/server"
)

// The defaults of Config.
const (
	DefaultGetConfigInterval = 30 * time.Second
	DefaultGetConfigTimeout  = 30 * time.Second
	DefaultReadyTimeout      = 10 * time.Minute
	DefaultRetryInterval     = 2 * time.Second
)

// Config says how a Prometheus is watched. Times of 0 stand for their defaults.
type Config struct {
	// GetConfigInterval is the time between two heartbeats (--prometheus.get_config_interval).
	GetConfigInterval time.Duration
	// GetConfigTimeout bounds one heartbeat (--prometheus.get_config_timeout).
	GetConfigTimeout time.Duration
	// ReadyTimeout is how long uploads wait for the first external labels before Run gives up
	// (--prometheus.ready_timeout).
	ReadyTimeout time.Duration
	// RetryInterval is the time between two heartbeats while Prometheus does not answer, if that is less
	// than GetConfigInterval.
	RetryInterval time.Duration

	// MinTime is the time before which no data is served (--min-time). It is asked whenever it is
	// needed, so that a time relative to now moves. nil is no bound.
	MinTime func() time.Time

	// TSDBPath is where this process finds Prometheus's data (--tsdb.path). Used with a bucket only.
	TSDBPath string
	// Shipper says how blocks are uploaded; New fills in its labels and its source.
	Shipper shipper.Config
	// IgnoreUnequalBlockSize uploads although Prometheus compacts blocks itself
	// (--shipper.ignore-unequal-block-size).
	IgnoreUnequalBlockSize bool

	// Store tunes reading from Prometheus; New fills in its version.
	Store prom.Config
	// Server holds the limits of a request over gRPC.
	Server server.Config
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		to    *time.Duration
		value time.Duration
	}{
		{&c.GetConfigInterval, DefaultGetConfigInterval},
		{&c.GetConfigTimeout, DefaultGetConfigTimeout},
		{&c.ReadyTimeout, DefaultReadyTimeout},
		{&c.RetryInterval, DefaultRetryInterval},
	} {
		if *d.to == 0 {
			*d.to = d.value
		}
	}
	if c.Shipper.MetaFileName == "" {
		c.Shipper.MetaFileName = shipper.DefaultMetaFileName
	}
}

// Validate explains contradictions.
func (c *Config) Validate() error {
	for flag, d := range map[string]time.Duration{
		"--prometheus.get_config_interval": c.GetConfigInterval,
		"--prometheus.get_config_timeout":  c.GetConfigTimeout,
		"--prometheus.ready_timeout":       c.ReadyTimeout,
	} {
		if d < 0 {
			return fmt.Errorf("%s is %s, must not be negative", flag, d)
		}
	}
	return nil
}

// Deps are what a sidecar works with. All stay the caller's own.
type Deps struct {
	// Prometheus is the one that is watched.
	Prometheus *promapi.Client
	// Bucket takes finished blocks; nil uploads nothing.
	Bucket objstore.Bucket
	// Reloader runs as long as the sidecar does; nil is none. See pkg/reloader.
	Reloader interface{ Run(context.Context) error }
	// Probe is told whether the sidecar is ready. See serve.Probe.
	Probe Probe
}

// Probe is told of readiness; it must bear being told the same again.
type Probe interface {
	Ready()
	NotReady(reason error)
}

func (d *Deps) validate() error {
	if d.Prometheus == nil || d.Probe == nil {
		return errors.New("BUG: sidecar without a Prometheus or a probe")
	}
	return nil
}
