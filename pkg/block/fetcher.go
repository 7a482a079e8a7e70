package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/gate"
)

// Discovery is a way to find blocks in a bucket.
type Discovery string

const (
	// DiscoverConcurrent lists the root and then looks for each meta.json and mark, many at a time. Where listing all
	// objects takes fewer requests, it does that.
	DiscoverConcurrent Discovery = "concurrent"
	// DiscoverRecursive lists all objects of the bucket once, however many there are.
	DiscoverRecursive Discovery = "recursive"
)

const (
	// How many meta.json are looked for at a time, at first. An answer is a few hundred bytes.
	existsConcurrency = 64
	// How many meta.json are read from the cache on disk at a time.
	diskConcurrency = 8
	// The default of FetcherConfig.Concurrency.
	fetchConcurrency = 32
)

// FetcherConfig configures a Fetcher.
type FetcherConfig struct {
	// Discovery is the way blocks are found; "" is DiscoverConcurrent.
	Discovery Discovery
	// Concurrency is the number of meta.json and marks fetched at a time, at first: see gate.Spread; 0 is 32.
	Concurrency int
	// CacheDir is a directory that keeps fetched metadata, <ULID>/meta.json; "" keeps it in memory only. It
	// belongs to the Fetcher: directories of blocks that are gone are removed from it.
	CacheDir string
	// MetricsPrefix starts the names of all metrics; "" is "thanos_blocks_meta".
	MetricsPrefix string
	// Filters take blocks out of the view, one after the other.
	Filters []Filter
}

// Filter takes blocks out of a view of the bucket.
type Filter interface {
	// Filter deletes entries of metas and calls excluded once for each of them, with the reason. It is never called
	// in parallel. An error fails the whole look at the bucket, so what concerns one block only is no error.
	Filter(ctx context.Context, metas map[ulid.ULID]*Meta, excluded func(ulid.ULID, State)) error
}

// View is what a bucket holds.
type View struct {
	// Metas are the blocks that passed all filters.
	Metas map[ulid.ULID]*Meta
	// Partial are the directories that are no block, with the reason: ErrPartial if there is no meta.json, else what
	// is wrong with it.
	Partial map[ulid.ULID]error
	// Failed are the blocks whose metadata could not be read this time; whether they are still there is unknown. One
	// whose metadata was read before is in Metas as well.
	Failed map[ulid.ULID]error
	// Excluded are the blocks that a filter took out.
	Excluded map[ulid.ULID]State
}

// Fetcher looks at a bucket and says which blocks it holds. Fetch may be called in parallel; calls wait for each other.
//
// One bad block costs only itself: a meta.json that is missing, malformed or unreadable is counted, logged when it is
// first seen, and passed over.
type Fetcher struct {
	bkt     objstore.BucketReader
	cfg     FetcherConfig
	logger  log.Logger
	metrics *fetcherMetrics

	mu     sync.Mutex
	known  map[ulid.ULID]knownMeta
	wide   bool                 // the bucket has too many objects to list them all
	logged map[ulid.ULID]string // what was last logged of a block
}

// knownMeta is metadata that was read before.
type knownMeta struct {
	meta *Meta
	// modified is when the object was written, as the listing says; zero if it does not say.
	modified time.Time
}

// NewFetcher makes a Fetcher. It reads the bucket only.
func NewFetcher(bkt objstore.BucketReader, cfg FetcherConfig, logger log.Logger, reg prometheus.Registerer) (*Fetcher, error) {
	switch cfg.Discovery {
	case "":
		cfg.Discovery = DiscoverConcurrent
	case DiscoverConcurrent, DiscoverRecursive:
	default:
		return nil, fmt.Errorf("unknown block discovery strategy %q: use %q or %q", cfg.Discovery, DiscoverConcurrent, DiscoverRecursive)
	}
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = fetchConcurrency
	}
	if cfg.MetricsPrefix == "" {
		cfg.MetricsPrefix = "thanos_blocks_meta"
	}
	if cfg.CacheDir != "" {
		if err := os.MkdirAll(cfg.CacheDir, 0o777); err != nil {
			return nil, fmt.Errorf("make cache of block metadata: %w", err)
		}
	}
	return &Fetcher{
		bkt: quiet(bkt), cfg: cfg, logger: logger, metrics: newFetcherMetrics(cfg.MetricsPrefix, reg),
		known: map[ulid.ULID]knownMeta{}, logged: map[ulid.ULID]string{},
	}, nil
}

// Fetch looks at the bucket. It fails as a whole only when the bucket can't be listed, a filter can't work, or the
// context ends.
func (f *Fetcher) Fetch(ctx context.Context) (View, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.metrics.syncs.Inc()
	start := time.Now()
	v, err := f.fetch(ctx)
	f.metrics.syncDuration.Observe(time.Since(start).Seconds())
	if err != nil || len(v.Failed) > 0 {
		f.metrics.syncFailures.Inc()
	}
	return v, err
}

func (f *Fetcher) fetch(ctx context.Context) (View, error) {
	v, seen, err := f.look(ctx)
	if err != nil {
		return View{}, err
	}
	counts := map[State]int{StateFailed: len(v.Failed)}
	for _, err := range v.Partial {
		if errors.Is(err, ErrPartial) {
			counts[StateNoMeta]++
		} else {
			counts[StateCorruptedMeta]++
		}
	}
	for _, filter := range f.cfg.Filters {
		if u, ok := filter.(usesListing); ok {
			u.setListing(seen)
		}
		err := filter.Filter(ctx, v.Metas, func(id ulid.ULID, s State) {
			counts[s]++
			v.Excluded[id] = s
		})
		if err != nil {
			return View{}, fmt.Errorf("filter blocks: %w", err)
		}
		if c, ok := filter.(countsMarked); ok {
			state, n := c.marked()
			counts[state] = n
		}
	}
	counts[StateLoaded] = len(v.Metas)
	f.metrics.publish(counts)
	return v, nil
}

// look reads the metadata of all blocks, unfiltered.
func (f *Fetcher) look(ctx context.Context) (View, listing, error) {
	f.metrics.baseSyncs.Inc()
	v := View{Metas: map[ulid.ULID]*Meta{}, Partial: map[ulid.ULID]error{}, Failed: map[ulid.ULID]error{}, Excluded: map[ulid.ULID]State{}}
	found, err := f.list(ctx)
	if err != nil {
		return View{}, listing{}, err
	}

	// Blocks whose metadata is known only have to be there still; the rest is fetched.
	var check, fetch []ulid.ULID
	next := f.recall(ctx, found)
	for id, b := range found.blocks {
		k, known := next[id]
		switch {
		case found.deep && !b.meta.there:
			v.Partial[id] = ErrPartial
		case known && found.deep:
			v.Metas[id] = k.meta
		case known:
			check = append(check, id)
		default:
			fetch = append(fetch, id)
		}
	}
	var mu sync.Mutex // guards next and v
	gate.Spread(ctx, existsConcurrency, len(check), func(i int) bool {
		there, err := Exists(ctx, f.bkt, check[i])
		mu.Lock()
		defer mu.Unlock()
		if id := check[i]; err == nil && !there {
			v.Partial[id] = ErrPartial
			delete(next, id)
		} else {
			v.Metas[id] = next[id].meta
			if err != nil {
				v.Failed[id] = err
			}
		}
		return err == nil
	})
	gate.Spread(ctx, f.cfg.Concurrency, len(fetch), func(i int) bool {
		id := fetch[i]
		m, err := f.get(ctx, id, found.blocks[id].meta.modified)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			next[id] = knownMeta{meta: m, modified: found.blocks[id].meta.modified}
			v.Metas[id] = m
		case errors.Is(err, ErrPartial) || errors.As(err, new(*corruptMetaError)):
			v.Partial[id] = err
		default:
			v.Failed[id] = err
			return false
		}
		return true
	})
	if ctx.Err() != nil {
		return View{}, listing{}, context.Cause(ctx)
	}
	f.known = next
	f.log(v)
	f.cleanCache(found.blocks)
	return v, found, nil
}

// recall returns what was read before of the blocks found, from memory or from disk, unless the object is newer.
func (f *Fetcher) recall(ctx context.Context, found listing) map[ulid.ULID]knownMeta {
	known := make(map[ulid.ULID]knownMeta, len(found.blocks))
	var onDisk []ulid.ULID
	for id, b := range found.blocks {
		k, ok := f.known[id]
		switch {
		case found.deep && !b.meta.there:
		case ok && !b.meta.modified.After(k.modified):
			known[id] = k
		case ok:
			f.metrics.baseCacheBusts.Inc()
		case f.cfg.CacheDir != "":
			onDisk = append(onDisk, id)
		}
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(diskConcurrency)
	for _, id := range onDisk {
		g.Go(func() error {
			if k, ok := f.recallDisk(id, found.blocks[id].meta.modified); ok && ctx.Err() == nil {
				mu.Lock()
				known[id] = k
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait()
	return known
}

// recallDisk returns metadata that was cached on disk as of modified, or later.
func (f *Fetcher) recallDisk(id ulid.ULID, modified time.Time) (knownMeta, bool) {
	dir := filepath.Join(f.cfg.CacheDir, id.String())
	st, err := os.Stat(filepath.Join(dir, MetaFilename))
	if err != nil {
		return knownMeta{}, false
	}
	m, err := ReadMetaDir(dir)
	if err != nil || m.ULID != id || modified.After(st.ModTime()) {
		f.metrics.baseCacheBusts.Inc()
		return knownMeta{}, false
	}
	return knownMeta{meta: m, modified: modified}, true
}

// Forget makes the next Fetch read the metadata of a block anew, which may have been replaced.
func (f *Fetcher) Forget(id ulid.ULID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.known, id)
	if f.cfg.CacheDir != "" {
		_ = os.RemoveAll(filepath.Join(f.cfg.CacheDir, id.String()))
	}
}

// corruptMetaError says that the bytes of a meta.json are no metadata of its block.
type corruptMetaError struct{ err error }

func (e *corruptMetaError) Error() string { return "corrupted meta.json: " + e.err.Error() }
func (e *corruptMetaError) Unwrap() error { return e.err }

// get fetches metadata and keeps it on disk; modified is when the listing says that it was written.
func (f *Fetcher) get(ctx context.Context, id ulid.ULID, modified time.Time) (*Meta, error) {
	m, err := GetMeta(ctx, f.bkt, id)
	if err != nil || f.cfg.CacheDir == "" {
		return m, err
	}
	dir := filepath.Join(f.cfg.CacheDir, id.String())
	if err := os.MkdirAll(dir, 0o777); err == nil {
		err = f.cache(dir, m, modified)
		if err != nil {
			// The cache saves requests after a restart; without it everything works.
			level.Warn(f.logger).Log("msg", "block metadata could not be cached on disk", "block", id, "err", err)
		}
	}
	return m, nil
}

// cache keeps metadata on disk. It is not synced: what a crash leaves is checked when it is read. The file gets the time
// of the object, so that neither clocks that differ nor the kernel's coarse one make it look older than that.
func (f *Fetcher) cache(dir string, m *Meta, modified time.Time) error {
	b, err := m.Bytes()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, MetaFilename)
	if err := os.WriteFile(path+".tmp", b, 0o666); err != nil {
		return err
	}
	if !modified.IsZero() {
		if err := os.Chtimes(path+".tmp", modified, modified); err != nil {
			return err
		}
	}
	return os.Rename(path+".tmp", path)
}

// GetMeta fetches and checks the metadata of a block. The error is ErrPartial when there is none.
func GetMeta(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (*Meta, error) {
	name := Object(id, MetaFilename)
	r, err := bkt.Get(ctx, name)
	if err != nil {
		if bkt.IsObjNotFoundErr(err) {
			return nil, ErrPartial
		}
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, metaBytesMax+1))
	if err != nil {
		if bkt.IsObjNotFoundErr(err) {
			return nil, ErrPartial
		}
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	m, err := ParseMeta(b)
	if err != nil {
		return nil, &corruptMetaError{err}
	}
	if m.ULID != id {
		return nil, &corruptMetaError{fmt.Errorf("it is that of block %s", m.ULID)}
	}
	return m, nil
}

// log reports bad blocks, each cause once.
func (f *Fetcher) log(v View) {
	logged := make(map[ulid.ULID]string, len(v.Partial)+len(v.Failed))
	report := func(id ulid.ULID, err error, do func(keyvals ...any) error) {
		logged[id] = err.Error()
		if f.logged[id] != err.Error() {
			_ = do("block", id, "err", err)
		}
	}
	for id, err := range v.Partial {
		if errors.Is(err, ErrPartial) {
			report(id, err, log.With(level.Info(f.logger), "msg", "passing over a partial block: it is being uploaded or deleted, or its upload was interrupted").Log)
		} else {
			report(id, err, log.With(level.Warn(f.logger), "msg", "passing over a block with malformed metadata: upload it again, or mark it for deletion").Log)
		}
	}
	for id, err := range v.Failed {
		report(id, err, log.With(level.Warn(f.logger), "msg", "block metadata could not be read, trying again at the next look").Log)
	}
	f.logged = logged
}

// cleanCache removes the cached metadata of blocks that are gone.
func (f *Fetcher) cleanCache(found map[ulid.ULID]listedBlock) {
	if f.cfg.CacheDir == "" {
		return
	}
	entries, err := os.ReadDir(f.cfg.CacheDir)
	if err != nil {
		level.Warn(f.logger).Log("msg", "cache of block metadata could not be listed", "err", err)
		return
	}
	for _, e := range entries {
		id, ok := ParseID(e.Name())
		if _, there := found[id]; !ok || there {
			continue
		}
		if err := os.RemoveAll(filepath.Join(f.cfg.CacheDir, e.Name())); err != nil {
			level.Warn(f.logger).Log("msg", "cached block metadata could not be removed", "block", id, "err", err)
		}
	}
}

// IDs returns the ids of the blocks in a view, in no order.
func (v View) IDs() []ulid.ULID {
	ids := make([]ulid.ULID, 0, len(v.Metas))
	for id := range maps.Keys(v.Metas) {
		ids = append(ids, id)
	}
	return ids
}
