package merge

import (
	"errors"
	"math"
	"runtime"

	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// Dedup says what becomes of replicas.
type Dedup int

const (
	// OneToOne keeps every timestamp of every input once; of equal ones the first input's. Thanos calls it "".
	OneToOne Dedup = iota
	// Penalty merges replicas by pkg/dedup, so that counters never jump.
	Penalty
)

// Input is a block to be merged. Inputs are read in parallel with one another, never changed.
type Input struct {
	// Files are the block's files: stream.Dir for a local copy, stream.Bucket for range reads.
	Files stream.Files
	// Meta is the block's metadata.
	Meta *block.Meta
	// Replica names the stream that the block is a part of: blocks of one replica never disagree on purpose. The
	// external labels as the bucket has them, before replica labels are removed, are what to put here.
	Replica string
	// Tombstones are the block's own; nil is none.
	Tombstones tombstones.Reader
}

// Config describes one merge.
type Config struct {
	// Inputs are the blocks, at least one.
	Inputs []Input
	// Neighbours are blocks beside the inputs in time, of the same group. Their samples are never written; with Penalty
	// those within Margin of the output's times are looked at, so that what is decided there does not depend on where
	// blocks were cut. They may be left out: then samples near the ends are decided with what the inputs have.
	Neighbours []Input
	Dedup      Dedup
	// Workers decode and encode in parallel; default GOMAXPROCS. Reading and writing have a goroutine each beside them.
	Workers int
	// WindowBytes is how much is read from each input at once, of the index and of chunks each; see
	// stream.Config.
	WindowBytes int
	// BatchBytes bounds the chunk bytes that the workers hold, all together; one series may be longer. Default 4 MiB.
	BatchBytes int
	// MinTime and MaxTime, if not both zero, bound the samples of the output in ms, MaxTime excluded. By default
	// everything that the inputs hold is written; with neighbours, what lies within the inputs' times.
	MinTime, MaxTime int64
	// Skip, if set, is asked about each chunk or series of an input that is corrupt; true leaves it out. It may be
	// called from several goroutines.
	Skip func(input int, c *stream.CorruptError) bool
	// RefuseDisorder ends the merge at an input whose chunks are out of order, with an *InputError that wraps
	// ErrDisorder. Without it they are put in order.
	RefuseDisorder bool
	// Unsorted reads blocks whose label names are not sorted; see stream.Config.
	Unsorted bool
	// Writer bounds the writer.
	Writer stream.WriterConfig
}

// ErrDisorder says that an input has chunks out of order. See Config.RefuseDisorder.
var ErrDisorder = errors.New("its chunks are out of order")

const batchBytesDefault = 4 << 20

func (c *Config) defaults() {
	if c.Workers <= 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.BatchBytes <= 0 {
		c.BatchBytes = batchBytesDefault
	}
	if c.MinTime == 0 && c.MaxTime == 0 {
		c.MinTime, c.MaxTime = math.MinInt64, math.MaxInt64
		if len(c.Neighbours) > 0 {
			c.MinTime, c.MaxTime = math.MaxInt64, math.MinInt64
			for _, in := range c.Inputs {
				c.MinTime, c.MaxTime = min(c.MinTime, in.Meta.MinTime), max(c.MaxTime, in.Meta.MaxTime)
			}
		}
	}
}

// Result says what a merge wrote and met.
type Result struct {
	stream.Stats
	// ChunksPassed were taken as they were, ChunksMade are new.
	ChunksPassed, ChunksMade uint64
	// Duplicates are samples that were left out since their timestamp was there, or another replica's were taken.
	Duplicates uint64
	// Disorder counts chunks that an input had out of order; they are in order now.
	Disorder uint64
}
