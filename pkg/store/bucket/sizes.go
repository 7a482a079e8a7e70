package bucket

import "sync/atomic"

// lengths is what is thought of the length of things whose length is known only when they are read: it starts from what
// metadata says and learns from what was read. Its methods may be called in parallel.
type lengths struct {
	atMost   int64 // in bytes; nothing longer is guessed
	estimate atomic.Int64
}

// lengthsLearned is how many of the things that were read together are looked at.
const lengthsLearned = 64

func newLengths(first, atMost int64) *lengths {
	l := &lengths{atMost: max(atMost, entryBytesMin)}
	l.estimate.Store(min(max(first, entryBytesMin), l.atMost))
	return l
}

// guess returns how much to read for something of unknown length.
func (l *lengths) guess() int64 { return l.estimate.Load() }

// learn looks at the lengths of n things that were read. The estimate lies a quarter over their mean, and not over
// the longest: some are read again then, but what is read in vain stays less than a quarter.
func (l *lengths) learn(n int, length func(i int) int64) {
	sum, longest, seen := int64(0), int64(0), int64(0)
	step := max(1, n/lengthsLearned)
	for i := 0; i < n; i += step {
		if b := length(i); b > 0 {
			sum, longest, seen = sum+b, max(longest, b), seen+1
		}
	}
	if seen == 0 {
		return
	}
	mean := sum / seen
	l.estimate.Store(min(max(min(longest, mean+mean/4), entryBytesMin), l.atMost))
}

// Without better knowledge a series entry takes so much for its labels, and so much for each of its chunks.
const (
	seriesEntryBytes = 96
	chunkEntryBytes  = 10
)

// chunkMean is what a chunk takes in its file on average, in bytes; 0 is unknown.
func (b *loaded) chunkMean() int64 {
	total := int64(0)
	for _, s := range b.segments {
		total += s.size
	}
	if n := int64(b.meta.Stats.NumChunks); n > 0 {
		return total / n
	}
	return 0
}

// firstLengths guesses the lengths of series entries and chunks from what meta.json says.
func (b *loaded) firstLengths(cfg Config) {
	series, chunks := int64(0), int64(0)
	if st := b.meta.Stats; st.NumSeries > 0 {
		series = seriesEntryBytes + chunkEntryBytes*int64(st.NumChunks/st.NumSeries)
		mean := b.chunkMean()
		chunks = mean + mean/4
	}
	orAtMost := func(first, atMost int64) *lengths {
		if first <= 0 {
			first = atMost
		}
		return newLengths(first, atMost)
	}
	b.seriesLengths = orAtMost(series, atMost(b.meta.Thanos.IndexStats.SeriesMaxSize, cfg.EstimatedSeriesBytesMax))
	b.chunkLengths = orAtMost(chunks, atMost(b.meta.Thanos.IndexStats.ChunkMaxSize, cfg.EstimatedChunkBytesMax))
}
