package compact

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/model/relabel"

	"github.com/koios-metrics/koios/pkg/block"
)

// Config configures a Compactor.
type Config struct {
	// DataDir is the directory for blocks being worked on and the cache of metadata. What is in it may be lost at any
	// time. It belongs to the Compactor.
	DataDir string
	// Settings are what is planned by.
	Settings Settings
	// ReplicaLabels are external labels that tell replicas apart; blocks that differ in nothing else are one group.
	ReplicaLabels []string
	// Penalty merges replicas as queries do, by choosing one at a time. Otherwise every sample of each is kept.
	Penalty bool

	// MinTime and MaxTime bound the blocks that are worked on, in ms; nil is no bound.
	MinTime, MaxTime func() int64
	// Selector chooses blocks by their labels.
	Selector []*relabel.Config
	// ConsistencyDelay is the age that a block must have to be worked on.
	ConsistencyDelay time.Duration
	// DeleteDelay is how long a block stays after it was marked for deletion.
	DeleteDelay time.Duration
	// PartialAge is how long an upload may take that has no meta.json yet; 0 is 48 hours.
	PartialAge time.Duration
	// Discovery and MetaFetchConcurrency are how metadata is found and read.
	Discovery            block.Discovery
	MetaFetchConcurrency int

	// Concurrency is the number of merges that download, merge, and upload, each, at a time.
	Concurrency int
	// DownsampleConcurrency is the same for downsampling.
	DownsampleConcurrency int
	// BlocksFetchConcurrency is the number of blocks of one merge that are downloaded at a time.
	BlocksFetchConcurrency int
	// FilesConcurrency is the number of files of a block that are copied at a time.
	FilesConcurrency int
	// Hash adds checksums to the metadata of outputs.
	Hash block.HashFunc
	// ScratchBytesMax bounds the bytes of DataDir that steps reserve; 0 is no bound. Inputs that do not fit are read
	// from the bucket by ranges.
	ScratchBytesMax int64
	// MemoryBytesMax bounds the buffers of steps, in bytes; 0 is 1 GiB.
	MemoryBytesMax int64

	// SkipDisorder marks a block against compaction whose chunks are out of order. Without it they are put in order.
	SkipDisorder bool
	// Unsorted works on blocks whose label names are not sorted. Without it such a block is set aside.
	Unsorted bool

	// WaitInterval is the time between two looks at the bucket when there is nothing to do.
	WaitInterval time.Duration
	// CleanupInterval is the time between two rounds of deleting.
	CleanupInterval time.Duration
	// ProgressInterval is the time between two counts of what there is to do; 0 is never.
	ProgressInterval time.Duration
	// StallAfter is how long nothing may progress while there is something to do, until Stalled tells; 0 is never.
	StallAfter time.Duration
	// ParkOnError parks a group whose merge fails for reasons that are not the bucket's, and shows it as halted.
	ParkOnError bool
	// StopOnError stops all work when a group is parked, until the process is restarted.
	StopOnError bool

	// LeaseLength is the time after which a lease that was not renewed is free; it is renewed three times in this time. 0 is
	// 3 minutes.
	LeaseLength time.Duration

	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

const (
	defaultPartialAge  = 48 * time.Hour
	defaultMemoryBytes = 1 << 30
)

// validate fills in defaults and explains contradictions.
func (c *Config) validate() error {
	if c.DataDir == "" {
		return errors.New("the compactor needs a data directory")
	}
	if c.Penalty && len(c.ReplicaLabels) == 0 {
		return errors.New("penalty deduplication needs to know what replicas differ in: set --deduplication.replica-label")
	}
	if c.Settings.Level < 0 || c.Settings.Level > MaxLevel {
		return fmt.Errorf("compaction level %d: levels go from 0 to %d", c.Settings.Level, MaxLevel)
	}
	if c.Settings.Downsample {
		if r := c.Settings.Retention[block.ResolutionRaw]; r != 0 && r.Milliseconds() < downsampleAfter5m {
			return fmt.Errorf("raw data is downsampled when it is 40 hours old: a retention of %s deletes it before; set --retention.resolution-raw to 40h or more, 0d for no limit, or --downsampling.disable", r)
		}
		if r := c.Settings.Retention[block.Resolution5m]; r != 0 && r.Milliseconds() < downsampleAfter1h {
			return fmt.Errorf("data at 5m is downsampled when it is 10 days old: a retention of %s deletes it before; set --retention.resolution-5m to 10d or more, 0d for no limit, or --downsampling.disable", r)
		}
	}
	c.Concurrency, c.DownsampleConcurrency = max(c.Concurrency, 1), max(c.DownsampleConcurrency, 1)
	c.BlocksFetchConcurrency, c.FilesConcurrency = max(c.BlocksFetchConcurrency, 1), max(c.FilesConcurrency, 1)
	if c.PartialAge <= 0 {
		c.PartialAge = defaultPartialAge
	}
	if c.MemoryBytesMax <= 0 {
		c.MemoryBytesMax = defaultMemoryBytes
	}
	if c.LeaseLength <= 0 {
		c.LeaseLength = defaultLeaseLength
	}
	if c.WaitInterval <= 0 {
		c.WaitInterval = 5 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MinTime == nil {
		c.MinTime = func() int64 { return -1 << 62 }
	}
	if c.MaxTime == nil {
		c.MaxTime = func() int64 { return 1<<62 - 1 }
	}
	return nil
}

// workDir holds a directory per step under way.
func (c *Config) workDir() string { return filepath.Join(c.DataDir, "compact") }
