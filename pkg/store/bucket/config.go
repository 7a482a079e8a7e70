package bucket

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/model/relabel"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/indexheader"
	kept "github.com/koios-metrics/koios/pkg/cache"
)

// Config configures a Store over a bucket. DataDir must be set; the zero value of every other field stands for its
// default.
type Config struct {
	// Name is how warnings and logs call the Store; "" is "bucket".
	Name string
	// DataDir is a local directory for index headers and cached metadata. It belongs to the Store. All of it can be
	// fetched again.
	DataDir string

	// SyncInterval is the time between two looks at the bucket; 0 is 15 minutes.
	SyncInterval time.Duration
	// SyncConcurrency is the number of blocks that are loaded at a time; 0 is 20.
	SyncConcurrency int
	// InitialSyncTimeout is how long InitialSync goes on trying, InitialSyncRetry the time between two tries; 0 is 30
	// seconds and 10 seconds.
	InitialSyncTimeout, InitialSyncRetry time.Duration

	// Discovery is the way blocks are found; see also MetaFetchConcurrency.
	Discovery block.Discovery
	// MetaFetchConcurrency is the number of meta.json and marks fetched at a time; 0 is 32.
	MetaFetchConcurrency int
	// MinTime and MaxTime bound what is served, in ms; nil is no bound. They are called at each use, because the
	// bounds may move with the clock.
	MinTime, MaxTime func() int64
	// Selector chooses blocks by their external labels and __block_id (see block.ParseSelector).
	Selector []*relabel.Config
	// ConsistencyDelay hides blocks that were uploaded less than this ago.
	ConsistencyDelay time.Duration
	// IgnoreDeletionMarksDelay is how long after it was marked for deletion a block is still served. 0 is at once.
	IgnoreDeletionMarksDelay time.Duration

	// Parquet is a bucket of Parquet files. Blocks that are in it are somebody else's to serve (see
	// block.NewParquetConverted); nil is none.
	Parquet objstore.BucketReader

	// MemoryBytesMax bounds what all requests together hold of postings, series and chunks; 0 is no bound. A request
	// past it is refused.
	MemoryBytesMax int64
	// RequestMemoryBytesMax bounds what a single request may hold of it; 0 is no further bound.
	RequestMemoryBytesMax int64
	// IndexCacheBytesMax bounds the memory for parts of indexes that are kept from one request to the next, on top of
	// MemoryBytesMax; 0 keeps none.
	IndexCacheBytesMax int64
	// IndexCacheItemBytesMax is the size past which a part of an index is not kept in memory; 0 is an eighth of
	// IndexCacheBytesMax.
	IndexCacheItemBytesMax int64
	// IndexCacheItems are those of the list of the same name that are kept; empty is all.
	IndexCacheItems []string
	// IndexCache keeps them outside of this process, and nothing is kept in memory; nil is none. It is the caller's to
	// close, after the Store.
	IndexCache kept.Cache
	// SeriesConcurrency is the number of Series requests answered at a time, the rest waits; 0 is no bound.
	SeriesConcurrency int
	// SeriesLimit, ChunksLimit and BytesLimit refuse a request that touches more series, more chunks, or downloads
	// more bytes; 0 is no limit.
	SeriesLimit, ChunksLimit, BytesLimit uint64

	// GapBytesMax is up to which size what lies between two wanted pieces of an object is always read along, for buckets
	// where a request costs more than so many bytes do; otherwise it is where all of it is little beside what is wanted.
	GapBytesMax int64

	// AsFineAsAsked leaves a hole where all blocks are coarser than a request asks for. Without it they answer, with a
	// store.Info.
	AsFineAsAsked bool
	// LazyPostings leaves posting lists unread where reading the series that the others select takes fewer bytes;
	// their matchers are tried on the labels. KeySeriesRatioMax also leaves those of a matcher unread that selects more
	// than this many times as many values as series are expected; 0 is no such bound.
	LazyPostings      bool
	KeySeriesRatioMax float64

	// IndexHeaderIdleTimeout is how long an index header stays in memory without use; 0 is as long as there is room.
	IndexHeaderIdleTimeout time.Duration
	// IndexHeadersOnUse fetches index headers when they are first used, and not when their block is found.
	IndexHeadersOnUse bool
	// ForgetIndexHeaders keeps no index headers from one start to the next.
	ForgetIndexHeaders bool
	// PostingOffsetSampling is the number of label values of which one is kept in memory; 0 is 32.
	PostingOffsetSampling int
	// SeriesBatchSize is the largest number of series read from a block at a time; 0 is 10,000.
	SeriesBatchSize int
	// EstimatedSeriesBytesMax and EstimatedChunkBytesMax size the reads of what is as long as the index does not say;
	// 0 is 64 KiB and 16,000 bytes. What turns out to be longer is read again.
	EstimatedSeriesBytesMax, EstimatedChunkBytesMax int64
}

// SamplesPerChunk is what a chunk counts as where a limit is given in samples.
const SamplesPerChunk = 120

const (
	defaultSyncInterval        = 15 * time.Minute
	defaultSyncConcurrency     = 20
	defaultInitialSyncTimeout  = 30 * time.Second
	defaultInitialSyncRetry    = 10 * time.Second
	defaultMetaConcurrency     = 32
	defaultSeriesBatchSize     = 10_000
	defaultEstimatedSeriesSize = 64 << 10
	defaultEstimatedChunkSize  = 16_000
)

// Validate tells what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.DataDir == "":
		return errors.New("bucket store: DataDir is not set")
	case c.SyncInterval < 0:
		return fmt.Errorf("bucket store: SyncInterval %s is negative", c.SyncInterval)
	case c.ConsistencyDelay < 0 || c.IgnoreDeletionMarksDelay < 0:
		return errors.New("bucket store: a delay is negative")
	}
	return nil
}

func (c Config) withDefaults() Config {
	set(&c.Name, "bucket")
	set(&c.SyncInterval, defaultSyncInterval)
	set(&c.SyncConcurrency, defaultSyncConcurrency)
	set(&c.InitialSyncTimeout, defaultInitialSyncTimeout)
	set(&c.InitialSyncRetry, defaultInitialSyncRetry)
	set(&c.MetaFetchConcurrency, defaultMetaConcurrency)
	set(&c.PostingOffsetSampling, indexheader.DefaultSampling)
	set(&c.SeriesBatchSize, defaultSeriesBatchSize)
	set(&c.EstimatedSeriesBytesMax, defaultEstimatedSeriesSize)
	set(&c.EstimatedChunkBytesMax, defaultEstimatedChunkSize)
	if c.MinTime == nil {
		c.MinTime = func() int64 { return math.MinInt64 }
	}
	if c.MaxTime == nil {
		c.MaxTime = func() int64 { return math.MaxInt64 }
	}
	return c
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// metaCacheDir is where fetched metadata is kept below the data directory.
func metaCacheDir(dataDir string) string { return filepath.Join(dataDir, "meta-syncer") }
