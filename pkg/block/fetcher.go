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
)

// Discovery is a way to find blocks in a bucket.
type Discovery string

const (
	// DiscoverConcurrent lists the root and then looks for each meta.json, many at a time.
	DiscoverConcurrent Discovery = "concurrent"
	// DiscoverRecursive lists all objects of the bucket once. It takes fewer requests where blocks have few objects.
	DiscoverRecursive Discovery = "recursive"
)

const (
	// How many meta.json are looked for at a time. An answer is a few hundred bytes.
	existsConcurrency = 64
	// The default of FetcherConfig.Concurrency.
	fetchConcurrency = 32
)

// FetcherConfig configures a Fetcher.
type FetcherConfig struct {
	// Discovery is the way blocks are found; "" is DiscoverConcurrent.
	Discovery Discovery
	// Concurrency is the number of meta.json and marks fetched at a time; 0 is 32.
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
	v, err := f.look(ctx)
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
		err := filter.Filter(ctx, v.Metas, func(id ulid.ULID, s State) {
			counts[s]++
			v.Excluded[id] = s
		})
		if err != nil {
			return View{}, fmt.Errorf("filter blocks: %w", err)
		}
	}
	counts[StateLoaded] = len(v.Metas)
	f.metrics.publish(counts)
	return v, nil
}

// look reads the metadata of all blocks, unfiltered.
func (f *Fetcher) look(ctx context.Context) (View, error) {
	f.metrics.baseSyncs.Inc()
	v := View{Metas: map[ulid.ULID]*Meta{}, Partial: map[ulid.ULID]error{}, Failed: map[ulid.ULID]error{}, Excluded: map[ulid.ULID]State{}}
	found, err := f.list(ctx)
	if err != nil {
		return View{}, err
	}

	var mu sync.Mutex
	next := make(map[ulid.ULID]knownMeta, len(found))
	ok := func(id ulid.ULID, k knownMeta) {
		mu.Lock()
		defer mu.Unlock()
		next[id], v.Metas[id] = k, k.meta
	}
	bad := func(to map[ulid.ULID]error, id ulid.ULID, err error) {
		mu.Lock()
		defer mu.Unlock()
		to[id] = err
	}

	// Blocks whose metadata is known only have to be there still; the rest is fetched.
	check, fetch := &errgroup.Group{}, &errgroup.Group{}
	check.SetLimit(existsConcurrency)
	fetch.SetLimit(f.cfg.Concurrency)
	for id, obj := range found {
		if obj.listed && !obj.meta {
			bad(v.Partial, id, ErrPartial)
			continue
		}
		k, isKnown := f.recall(id, obj)
		switch {
		case isKnown && obj.listed:
			ok(id, k)
		case isKnown:
			check.Go(func() error {
				there, err := Exists(ctx, f.bkt, id)
				switch {
				case err != nil:
					bad(v.Failed, id, err)
					ok(id, k)
				case !there:
					bad(v.Partial, id, ErrPartial)
				default:
					ok(id, k)
				}
				return nil
			})
		default:
			fetch.Go(func() error {
				m, err := f.get(ctx, id)
				switch {
				case err == nil:
					ok(id, knownMeta{meta: m, modified: obj.modified})
				case errors.Is(err, ErrPartial) || errors.As(err, new(*corruptMetaError)):
					bad(v.Partial, id, err)
				default:
					bad(v.Failed, id, err)
				}
				return nil
			})
		}
	}
	_, _ = check.Wait(), fetch.Wait()
	if ctx.Err() != nil {
		return View{}, context.Cause(ctx)
	}
	f.known = next
	f.log(v)
	f.cleanCache(found)
	return v, nil
}

// listed is what a listing tells of a block.
type listedBlock struct {
	// listed is true when the listing went into the block's directory; meta, whether it saw a meta.json.
	listed, meta bool
	modified     time.Time
}

// list finds the directories of blocks.
func (f *Fetcher) list(ctx context.Context) (map[ulid.ULID]listedBlock, error) {
	found := map[ulid.ULID]listedBlock{}
	if f.cfg.Discovery == DiscoverConcurrent {
		err := f.bkt.Iter(ctx, "", func(name string) error {
			if id, ok := ParseID(name); ok {
				found[id] = listedBlock{}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list blocks: %w", err)
		}
		return found, nil
	}

	opts := []objstore.IterOption{objstore.WithRecursiveIter()}
	for _, o := range f.bkt.SupportedIterOptions() {
		if o == objstore.UpdatedAt {
			opts = append(opts, objstore.WithUpdatedAt())
		}
	}
	err := f.bkt.IterWithAttributes(ctx, "", func(attrs objstore.IterObjectAttributes) error {
		dir, rest := splitName(attrs.Name)
		id, ok := ParseID(dir)
		if !ok {
			return nil
		}
		b := found[id]
		b.listed = true
		if rest == MetaFilename {
			b.meta = true
			b.modified, _ = attrs.LastModified()
		}
		found[id] = b
		return nil
	}, opts...)
	if err != nil {
		return nil, fmt.Errorf("list all objects: %w", err)
	}
	return found, nil
}

func splitName(name string) (dir, rest string) {
	for i := range len(name) {
		if name[i] == '/' {
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}

// recall returns metadata that was read before, from memory or from disk, unless the object is newer.
func (f *Fetcher) recall(id ulid.ULID, obj listedBlock) (knownMeta, bool) {
	if k, ok := f.known[id]; ok {
		if obj.modified.IsZero() || !obj.modified.After(k.modified) {
			return k, true
		}
		f.metrics.baseCacheBusts.Inc()
		return knownMeta{}, false
	}
	if f.cfg.CacheDir == "" {
		return knownMeta{}, false
	}
	dir := filepath.Join(f.cfg.CacheDir, id.String())
	st, err := os.Stat(filepath.Join(dir, MetaFilename))
	if err != nil {
		return knownMeta{}, false
	}
	m, err := ReadMetaDir(dir)
	if err != nil || m.ULID != id || obj.modified.After(st.ModTime()) {
		f.metrics.baseCacheBusts.Inc()
		return knownMeta{}, false
	}
	return knownMeta{meta: m, modified: obj.modified}, true
}

// corruptMetaError says that the bytes of a meta.json are no metadata of its block.
type corruptMetaError struct{ err error }

func (e *corruptMetaError) Error() string { return "corrupted meta.json: " + e.err.Error() }
func (e *corruptMetaError) Unwrap() error { return e.err }

// get fetches metadata and keeps it on disk.
func (f *Fetcher) get(ctx context.Context, id ulid.ULID) (*Meta, error) {
	m, err := GetMeta(ctx, f.bkt, id)
	if err != nil || f.cfg.CacheDir == "" {
		return m, err
	}
	dir := filepath.Join(f.cfg.CacheDir, id.String())
	if err := os.MkdirAll(dir, 0o777); err == nil {
		err = WriteMetaDir(dir, m)
		if err != nil {
			// The cache saves requests after a restart; without it everything works.
			level.Warn(f.logger).Log("msg", "block metadata could not be cached on disk", "block", id, "err", err)
		}
	}
	return m, nil
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
