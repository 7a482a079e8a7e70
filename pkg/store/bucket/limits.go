package bucket

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/store"
)

// dataType is a part of a block that a request reads. The texts are values of the label "data_type" and words of
// errors.
type dataType int

const (
	postingsData dataType = iota
	seriesData
	chunksData
	dataTypes
)

func (d dataType) String() string { return [...]string{"postings", "series", "chunks"}[d] }

// account counts what one request takes, over all of its blocks, and refuses what is past the limits. Its methods may
// be called in parallel.
type account struct {
	limits  Config
	tenant  string
	dropped func(reason string)

	series, chunks, bytes atomic.Uint64
	refused               atomic.Bool

	// What was read: items and bytes that were wanted, and items and bytes that came from the bucket.
	touched, touchedBytes, fetched, fetchedBytes [dataTypes]atomic.Uint64
	// How long reads from the bucket took: all together in ns, and each.
	fetchTime     [dataTypes]atomic.Int64
	fetchDuration [dataTypes]prometheus.Observer
	sentChunkSize prometheus.Observer
}

// chunkSize notes the size in bytes of a chunk that was read.
func (a *account) chunkSize(n int) {
	if a.sentChunkSize != nil {
		a.sentChunkSize.Observe(float64(n))
	}
}

// took notes the time of a read that began at start.
func (a *account) took(what dataType, start time.Time) {
	d := time.Since(start)
	a.fetchTime[what].Add(int64(d))
	if o := a.fetchDuration[what]; o != nil {
		o.Observe(d.Seconds())
	}
}

func (a *account) refuse(reason, format string, args ...any) error {
	if a.refused.CompareAndSwap(false, true) {
		a.dropped(reason)
	}
	return store.Errorf(store.KindLimit, format, args...)
}

// addSeries counts series that the index says match.
func (a *account) addSeries(n int) error {
	if got := a.series.Add(uint64(n)); a.limits.SeriesLimit > 0 && got > a.limits.SeriesLimit {
		return a.refuse("series", "exceeded series limit: limit %d violated (got %d)", a.limits.SeriesLimit, got)
	}
	return nil
}

// addChunks counts chunks that a request is about to read.
func (a *account) addChunks(n int) error {
	if got := a.chunks.Add(uint64(n)); a.limits.ChunksLimit > 0 && got > a.limits.ChunksLimit {
		return a.refuse("chunks", "exceeded chunks limit: limit %d violated (got %d)", a.limits.ChunksLimit, got)
	}
	return nil
}

// addBytes counts bytes that a request is about to download.
func (a *account) addBytes(what dataType, n int64) error {
	if got := a.bytes.Add(uint64(n)); a.limits.BytesLimit > 0 && got > a.limits.BytesLimit {
		return a.refuse("bytes", "exceeded bytes limit while fetching %s: limit %d violated (got %d)", what, a.limits.BytesLimit, got)
	}
	a.fetchedBytes[what].Add(uint64(n))
	return nil
}

// touch counts things that were looked at, how many of them had to be fetched, and how many bytes they take.
func (a *account) touch(what dataType, items, fetched int, bytes int64) {
	a.touched[what].Add(uint64(items))
	a.touchedBytes[what].Add(uint64(bytes))
	a.fetched[what].Add(uint64(fetched))
}
