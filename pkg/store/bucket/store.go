// Package bucket is a Store over blocks in object storage.
//
// The store looks at the bucket from time to time and keeps, for each block that it serves, an index header in a local
// file. A request is answered in four steps: choose blocks by external labels, time and resolution; find the matching
// series of each by its posting lists; read their index entries; read their chunks. All of it comes through range
// reads of just the bytes that are wanted, nearby ones together, and each byte that is handed out has had its checksum
// verified.
//
// Memory is bounded by a budget that all requests share. A request reserves what it reads before it reads it, in
// batches of series and windows of chunks, so that it holds a few megabytes a block however long the answer is.
//
// What is asked of object storage: objects of a block never change once its meta.json is there, a read of a range that
// starts inside of an object answers with the bytes there are, and reads may run in parallel.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/indexheader"
	"github.com/koios-metrics/koios/pkg/gate"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/tenancy"
)

// The number of blocks that one request opens at a time.
const openConcurrency = 16

// No more requests wait than this many times those that are worked on.
const queueFactor = 20

// The number of range reads that the store has under way, for all requests together.
const rangeReadsMax = 256

// Store serves the blocks of a bucket. Its methods may be called in parallel.
type Store struct {
	bkt     objstore.BucketReader
	cfg     Config
	logger  log.Logger
	metrics *metrics
	fetcher *block.Fetcher
	headers *indexheader.Pool
	memory  *memory
	cache   *indexCache
	gate    *gate.Gate
	slots   chan struct{} // see object
	lanes   chan struct{} // one for each request that looks into index headers
	waiting atomic.Int64  // requests at the gate

	syncing sync.Mutex
	blocks  atomic.Pointer[blockSet]
}

var _ store.Store = (*Store)(nil)

// New makes a Store that refuses requests before InitialSync. The bucket is only read.
func New(bkt objstore.BucketReader, cfg Config, logger log.Logger, reg prometheus.Registerer) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if err := os.MkdirAll(cfg.DataDir, 0o777); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	var filters []block.Filter
	if cfg.Parquet != nil {
		filters = append(filters, block.NewParquetConverted(cfg.Parquet, cfg.MetaFetchConcurrency, logger))
	}
	fetcher, err := block.NewFetcher(bkt, block.FetcherConfig{
		Discovery: cfg.Discovery, Concurrency: cfg.MetaFetchConcurrency, CacheDir: metaCacheDir(cfg.DataDir),
		Filters: append(filters,
			block.TimePartition(cfg.MinTime, cfg.MaxTime),
			block.LabelShard(cfg.Selector),
			block.ConsistencyDelay(cfg.ConsistencyDelay, nil),
			block.NewDeletionMarks(bkt, cfg.IgnoreDeletionMarksDelay, cfg.MetaFetchConcurrency, logger),
			block.Duplicates(),
		),
	}, logger, reg)
	if err != nil {
		return nil, err
	}
	s := &Store{
		headers: indexheader.NewPool(bkt, indexheader.Config{
			Sampling: cfg.PostingOffsetSampling, IdleTimeout: cfg.IndexHeaderIdleTimeout,
			FetchOnUse: cfg.IndexHeadersOnUse, Forget: cfg.ForgetIndexHeaders,
		}, logger, reg),
		bkt: bkt, cfg: cfg, logger: logger, metrics: newMetrics(cfg, reg), fetcher: fetcher,
		memory: newMemory(cfg.MemoryBytesMax),
		cache:  newIndexCache(cfg, reg),
		slots:  make(chan struct{}, rangeReadsMax),
		lanes:  make(chan struct{}, runtime.GOMAXPROCS(0)),
		gate:   gate.New("thanos_bucket_store_series_gate_queries", cfg.SeriesConcurrency, reg),
	}
	s.blocks.Store(newBlockSet(nil, cfg.Name))
	return s, nil
}

// Close stops serving. Requests under way are finished; local files stay for the next start.
func (s *Store) Close() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	var errs []error
	var mu sync.Mutex
	for _, b := range s.blocks.Swap(newBlockSet(nil, s.cfg.Name)).byID {
		b.drop(func(err error) {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	mu.Lock()
	defer mu.Unlock()
	return errors.Join(errs...)
}

// Describe implements store.Store.
func (s *Store) Describe() store.Description {
	d := s.blocks.Load().desc
	d.MinTime, d.MaxTime = max(d.MinTime, s.cfg.MinTime()), min(d.MaxTime, s.cfg.MaxTime())
	return d
}

// Blocks returns the metadata of the blocks that are served, sorted by id. It must not be changed.
func (s *Store) Blocks() []*block.Meta {
	var ms []*block.Meta
	for _, b := range s.blocks.Load().byID {
		ms = append(ms, b.meta)
	}
	slices.SortFunc(ms, func(x, y *block.Meta) int { return x.ULID.Compare(y.ULID) })
	return ms
}

// target is a block that a request reads, and the matchers that are left for its stored series.
type target struct {
	block    *loaded
	matchers []*labels.Matcher
}

// targets chooses blocks by external labels, __block_id, and pick, and keeps them open until release.
// The set that they are from tells what is not served.
func (s *Store) targets(ms, blockMatchers []*labels.Matcher, pick func(*blockGroup) []*loaded) ([]target, *blockSet) {
	for {
		set := s.blocks.Load()
		ts, ok := acquire(set, ms, blockMatchers, pick)
		if ok {
			return ts, set
		}
		// A block was dropped meanwhile; the current set does not have it.
	}
}

func acquire(set *blockSet, ms, blockMatchers []*labels.Matcher, pick func(*blockGroup) []*loaded) (ts []target, ok bool) {
	for _, g := range set.groups {
		rest, match := store.MatchExternal(g.labels, ms)
		if !match {
			continue
		}
		for _, b := range pick(g) {
			if !matchesBlock(blockMatchers, b.meta.ULID) {
				continue
			}
			if !b.acquire() {
				release(ts)
				return nil, false
			}
			ts = append(ts, target{b, rest})
		}
	}
	return ts, true
}

func release(ts []target) {
	for _, t := range ts {
		t.block.release()
	}
}

// errNotReady answers requests that come too early or too late: an empty answer would be taken for the whole.
var errNotReady = store.Errorf(store.KindUnavailable, "the bucket has not been looked at yet, or the store is closed")

// Series implements store.Store.
func (s *Store) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(req.Matchers) == 0 {
		return nil, store.ErrNoMatchers
	}
	if !s.blocks.Load().known {
		return nil, errNotReady
	}
	req = s.clamp(req)
	coarser := !s.cfg.AsFineAsAsked && takesCoarser(req)
	ts, set := s.targets(req.Matchers, req.BlockMatchers, func(g *blockGroup) []*loaded {
		return g.choose(req.MinTime, req.MaxTime, req.MaxResolution, coarser)
	})
	for _, t := range ts {
		if len(t.matchers) == 0 {
			release(ts)
			return nil, store.ErrNoMatchers
		}
	}
	gaps, err := set.gaps(req, coarser)
	if err == nil {
		err = s.enter(ctx)
	}
	if err != nil {
		release(ts)
		return nil, err
	}
	tenant := tenantOf(ctx)
	s.metrics.blocksQueried.WithLabelValues(tenant).Observe(float64(len(ts)))
	a := &answer{store: s, account: s.newAccount(tenant), share: s.memory.newShare(s.cfg.RequestMemoryBytesMax), tenant: tenant}
	cs, err := s.open(ctx, req, ts, a.account, a.share, tenant)
	if err != nil {
		a.share.leave()
		s.gate.Done()
		return nil, err
	}
	a.remarks = append(coarserThan(ts, req.MaxResolution), gaps...)
	a.Cursor = store.Limit(store.Merge(cs), req.Limit)
	a.opened = time.Now()
	return a, nil
}

// enter waits for a place among the requests that are worked on. Where too many wait already it refuses.
func (s *Store) enter(ctx context.Context) error {
	waiting := s.waiting.Add(1)
	defer s.waiting.Add(-1)
	if n := int64(s.cfg.SeriesConcurrency); n > 0 && waiting > n*queueFactor {
		s.metrics.queriesDropped.WithLabelValues("queue", tenantOf(ctx)).Inc()
		return store.Errorf(store.KindLimit, "%d requests are waiting, no more than %d may, beside the %d that are worked on; ask again later", waiting-1, n*queueFactor, n)
	}
	if err := s.gate.Start(ctx); err != nil {
		return store.Errorf(store.KindUnavailable, "%w", err)
	}
	return nil
}

// clamp cuts the time range of a request to what is served.
func (s *Store) clamp(req *store.SeriesRequest) *store.SeriesRequest {
	r := *req
	r.MinTime, r.MaxTime = max(r.MinTime, s.cfg.MinTime()), min(r.MaxTime, s.cfg.MaxTime())
	return &r
}

func (s *Store) newAccount(tenant string) *account {
	a := &account{limits: s.cfg, tenant: tenant, dropped: func(reason string) { s.metrics.queriesDropped.WithLabelValues(reason, tenant).Inc() }}
	a.sentChunkSize = s.metrics.sentChunkSize.WithLabelValues(tenant)
	for d := range dataTypes {
		a.fetchDuration[d] = s.metrics.fetchDuration[d].WithLabelValues(tenant)
	}
	return a
}

func tenantOf(ctx context.Context) string {
	if t, ok := tenancy.FromContext(ctx); ok {
		return t
	}
	if t, ok := tenancy.FromIncoming(ctx); ok {
		return t
	}
	return tenancy.DefaultTenant
}

// mayClash tells whether stored labels are named like external or removed ones: the index header names them all.
func (b *loaded) mayClash(removed []string) bool {
	if slices.ContainsFunc(removed, b.header.HasLabel) {
		return true
	}
	clash := false
	b.labels.Range(func(l labels.Label) { clash = clash || b.header.HasLabel(l.Name) })
	return clash
}

// shardOf returns what decides by stored labels whether a series is in the requested shard; nil if all are.
func shardOf(req *store.SeriesRequest, opt store.RelabelOptions) func(labels.Labels) bool {
	if req.Shard == nil || req.Shard.Total < 1 {
		return nil
	}
	var b labels.Builder
	return func(stored labels.Labels) bool {
		b.Reset(stored)
		opt.External.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		b.Del(opt.Drop...)
		return req.Shard.Selects(b.Labels())
	}
}

// answer is the cursor of a request. It holds a place at the gate until it is closed.
type answer struct {
	store.Cursor
	store   *Store
	account *account
	share   *share
	tenant  string
	opened  time.Time
	series  int
	remarks store.Warnings // about blocks that are coarser than was asked for, and those that are set aside
	closed  bool
}

// Next implements store.Cursor.
func (a *answer) Next() bool {
	if !a.Cursor.Next() {
		return false
	}
	a.series++
	return true
}

// Warnings implements store.Cursor.
func (a *answer) Warnings() store.Warnings { return slices.Concat(a.remarks, a.Cursor.Warnings()) }

// Close implements store.Cursor.
func (a *answer) Close() error {
	if a.closed {
		return nil
	}
	a.closed = true
	err := a.Cursor.Close()
	a.share.leave()
	m := a.store.metrics
	m.merge.WithLabelValues(a.tenant).Observe(time.Since(a.opened).Seconds())
	m.resultSeries.WithLabelValues(a.tenant).Observe(float64(a.series))
	m.observe(a.account, a.tenant)
	a.store.gate.Done()
	return err
}

// Loaded tells whether a block is served.
func (s *Store) Loaded(id ulid.ULID) bool { return s.blocks.Load().byID[id] != nil }
