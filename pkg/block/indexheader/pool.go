package indexheader

import (
	"container/list"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

const (
	// DefaultSampling is the number of label values of which one is kept in memory.
	DefaultSampling = 32
	// DefaultMemoryBytesMax is the default of Config.MemoryBytesMax: a thousand blocks of a million symbols and values.
	DefaultMemoryBytesMax = 256 << 20
)

// Config configures a Pool.
type Config struct {
	// Sampling is the number of label values of which one is kept in memory; 0 is DefaultSampling.
	Sampling int
	// MemoryBytesMax bounds what headers that nobody uses keep in memory: about four bytes for 32 symbols and for 32
	// label values. Past it the one that was used longest ago is closed. 0 is DefaultMemoryBytesMax.
	MemoryBytesMax int64
	// IdleTimeout is how long a header stays open without use; 0 is as long as MemoryBytesMax allows.
	IdleTimeout time.Duration
	// FetchOnUse fetches a header from the bucket when it is first used, and not when its block is found.
	FetchOnUse bool
	// Forget removes a header's file when its Reader is closed, and takes no notice of files left by others.
	Forget bool
}

// Pool is the index headers of all blocks that are served. Its methods may be called in parallel.
type Pool struct {
	bkt     objstore.BucketReader
	cfg     Config
	logger  log.Logger
	metrics *metrics

	mu    sync.Mutex
	open  *list.List // of *Reader, the one used last in front
	place map[*Reader]*list.Element
	size  map[*Reader]int64
	bytes int64

	files atomic.Int64 // that are open
}

// So many files stay open while nobody uses them: opening one costs as much as a look into it.
const filesKept = 256

type metrics struct {
	download, load, lazyLoad                   prometheus.Histogram
	loads, loadsFailed, unloads, unloadsFailed prometheus.Counter
}

// NewPool makes an empty Pool. It reads the bucket only.
func NewPool(bkt objstore.BucketReader, cfg Config, logger log.Logger, reg prometheus.Registerer) *Pool {
	if cfg.Sampling <= 0 {
		cfg.Sampling = DefaultSampling
	}
	if cfg.MemoryBytesMax <= 0 {
		cfg.MemoryBytesMax = DefaultMemoryBytesMax
	}
	f := promauto.With(reg)
	histogram := func(name, help string) prometheus.Histogram {
		return f.NewHistogram(prometheus.HistogramOpts{
			Name: "thanos_bucket_store_indexheader_" + name, Help: help,
			Buckets: []float64{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300},
		})
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "thanos_bucket_store_indexheader_" + name, Help: help})
	}
	return &Pool{
		bkt: bkt, cfg: cfg, logger: logger, open: list.New(), place: map[*Reader]*list.Element{}, size: map[*Reader]int64{},
		metrics: &metrics{
			download:      histogram("download_duration_seconds", "Time taken to fetch an index header, in seconds."),
			load:          histogram("load_duration_seconds", "Time taken to look at or open an index header when its block is found, in seconds."),
			lazyLoad:      histogram("lazy_load_duration_seconds", "Time taken to open an index header at its use, in seconds."),
			loads:         counter("lazy_load_total", "Index headers opened at their use."),
			loadsFailed:   counter("lazy_load_failed_total", "Index headers that could not be opened at their use."),
			unloads:       counter("lazy_unload_total", "Index headers closed because nobody used them."),
			unloadsFailed: counter("lazy_unload_failed_total", "Index headers that could not be closed."),
		},
	}
}

// Reader returns the index header of a block, kept in the file at path. Unless it is to be fetched at its use it is on
// disk when Reader returns. One that was fetched has been verified; one that was on disk has only been looked at, and
// is verified, and fetched again if need be, at its first use.
func (p *Pool) Reader(ctx context.Context, m *block.Meta, path string) (*Reader, error) {
	r := &Reader{pool: p, path: path}
	size := m.FileSize(block.IndexFilename)
	r.build = func(ctx context.Context) error { return build(ctx, p.bkt, m.ULID, size, path) }
	if p.cfg.Forget {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	start := time.Now()
	_, err := checkFile(path)
	switch {
	case err == nil:
	case p.cfg.FetchOnUse && errors.Is(err, os.ErrNotExist):
		return r, nil
	default:
		if !errors.Is(err, os.ErrNotExist) {
			p.damaged(path, err)
		}
		if err := r.fetch(ctx); err != nil {
			return nil, err
		}
		start = time.Now()
		c, f, err := r.read()
		if err != nil {
			if errors.Is(err, ErrCorrupt) {
				_ = os.Remove(path)
			}
			return nil, err
		}
		_ = f.Close() // it was only read
		r.c, r.lastUsed = c, time.Now()
		p.opened(r, c.bytes)
	}
	p.metrics.load.Observe(time.Since(start).Seconds())
	return r, nil
}

// Run closes headers that were not used for the idle timeout, until the context ends.
func (p *Pool) Run(ctx context.Context) error {
	if p.cfg.IdleTimeout <= 0 {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(max(p.cfg.IdleTimeout/10, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			p.closeIdle(time.Now().Add(-p.cfg.IdleTimeout))
		}
	}
}

// closeIdle closes what was last used before a time.
func (p *Pool) closeIdle(before time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.open.Back(); e != nil; {
		r, prev := e.Value.(*Reader), e.Prev()
		r.mu.Lock()
		idle := r.lastUsed.Before(before)
		r.mu.Unlock()
		if idle {
			p.unloadLocked(r)
		}
		e = prev
	}
}

// unloadLocked closes a header that nobody uses.
func (p *Pool) unloadLocked(r *Reader) {
	if r.unload() {
		p.forgetLocked(r)
		p.metrics.unloads.Inc()
	}
}

// opened notes that a header takes memory now.
func (p *Pool) opened(r *Reader, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked(r)
	p.place[r] = p.open.PushFront(r)
	p.size[r] = bytes
	p.bytes += bytes
	p.shrinkLocked()
}

// released notes that the last user of a header has gone.
func (p *Pool) released(r *Reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.place[r]; e != nil {
		p.open.MoveToFront(e)
	}
	p.shrinkLocked()
}

func (p *Pool) shrinkLocked() {
	for e := p.open.Back(); e != nil && p.bytes > p.cfg.MemoryBytesMax; {
		prev := e.Prev()
		p.unloadLocked(e.Value.(*Reader))
		e = prev
	}
}

func (p *Pool) forget(r *Reader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forgetLocked(r)
}

func (p *Pool) forgetLocked(r *Reader) {
	if e := p.place[r]; e != nil {
		p.open.Remove(e)
		p.bytes -= p.size[r]
		delete(p.place, r)
		delete(p.size, r)
	}
}

// loaded counts an opening at use.
func (p *Pool) loaded(start time.Time, err error) {
	p.metrics.loads.Inc()
	if err != nil {
		p.metrics.loadsFailed.Inc()
		return
	}
	p.metrics.lazyLoad.Observe(time.Since(start).Seconds())
}

func (p *Pool) damaged(path string, err error) {
	level.Warn(p.logger).Log("msg", "index header on disk is unusable, fetching it again", "block", filepath.Base(filepath.Dir(path)), "err", err)
}
