package dedup

import (
	"fmt"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Mode says how replicas are merged.
type Mode int

const (
	// Stay keeps to one replica while it delivers. Thanos calls its kin "penalty".
	Stay Mode = iota
	// Chain takes every sample of every replica, in order of time, and of equal times the first: for
	// replicas that are parts of one stream.
	Chain
)

// ParseMode reads the name of a mode as flags spell it: "penalty" (or nothing) and "chain".
func ParseMode(s string) (Mode, error) {
	switch s {
	case "", "penalty":
		return Stay, nil
	case "chain":
		return Chain, nil
	}
	return Stay, fmt.Errorf("unknown deduplication function %q: use penalty or chain", s)
}

// IsCounterFunc tells whether a PromQL function reads its series as a counter, so that a fall means a restart.
func IsCounterFunc(name string) bool {
	switch name {
	case "rate", "increase", "irate", "resets", "xrate", "xincrease":
		return true
	}
	return false
}

// Options say how to merge.
type Options struct {
	Mode Mode
	// Totals says that each replica's floats are running totals that never fall and count from a start of
	// their own (see downsampled counters), so that only their growth means something. Where the replica
	// changes, the total goes on from the last one handed out.
	Totals bool
	// Reach is how far in ms samples matter to one another; 0 means Reach(0), for scraped samples.
	Reach int64
}

// Merge returns an iterator over the merged samples of the replicas, which come in order of their names. It owns
// their iterators from now on; the slice itself is not kept. An iterator that Merge returned before may be given
// for reuse; nil is fine.
func Merge(reuse chunkenc.Iterator, replicas []chunkenc.Iterator, opts Options) chunkenc.Iterator {
	switch {
	case len(replicas) == 0:
		return chunkenc.NewNopIterator()
	case len(replicas) == 1:
		return replicas[0]
	case opts.Mode == Chain:
		return storage.ChainSampleIteratorFromIterators(reuse, replicas)
	}
	s, ok := reuse.(*stay)
	if !ok {
		s = &stay{merger: NewMerger(held{sample: staleSample}, held.isStale)}
	}
	s.reset(replicas, opts)
	return s
}
