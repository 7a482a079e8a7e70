package bucket

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/gate"
)

// InitialSync looks at the bucket until it has succeeded once, or the configured time is over. Then it removes local
// directories of blocks that are not served. Nothing may be asked before.
func (s *Store) InitialSync(ctx context.Context) error {
	deadline := time.Now().Add(s.cfg.InitialSyncTimeout)
	for {
		err := s.Sync(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().Add(s.cfg.InitialSyncRetry).After(deadline) {
			return fmt.Errorf("first look at the bucket: %w; check that the bucket exists and may be listed and read", err)
		}
		level.Warn(s.logger).Log("msg", "first look at the bucket did not succeed, trying again", "in", s.cfg.InitialSyncRetry, "err", err)
		if !sleep(ctx, s.cfg.InitialSyncRetry) {
			return context.Cause(ctx)
		}
	}
	s.cleanDataDir()
	return nil
}

// Warm opens index headers, those of the newest blocks first, as long as their files take no more than bytesMax: whoever
// asks first need not wait for it. It does nothing where headers are to be opened at their use.
func (s *Store) Warm(ctx context.Context, bytesMax int64) {
	if s.cfg.IndexHeadersOnUse || s.cfg.IndexHeaderIdleTimeout > 0 {
		return
	}
	blocks := slices.Collect(maps.Values(s.blocks.Load().byID))
	slices.SortFunc(blocks, func(a, b *loaded) int { return cmp.Compare(b.meta.MaxTime, a.meta.MaxTime) })
	for _, b := range blocks {
		if ctx.Err() != nil || !b.acquire() {
			continue
		}
		bytesMax -= b.header.FileSize()
		if bytesMax >= 0 {
			_ = b.header.Open(ctx) // whoever needs it tries again, and says what is wrong
		}
		b.release()
		if bytesMax < 0 {
			return
		}
	}
}

// Run looks at the bucket from time to time, until the context ends.
func (s *Store) Run(ctx context.Context) error {
	for sleep(ctx, s.cfg.SyncInterval) {
		if err := s.Sync(ctx); err != nil && ctx.Err() == nil {
			level.Warn(s.logger).Log("msg", "look at the bucket failed, serving what is known", "err", err)
		}
	}
	return nil
}

// sleep waits; false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Sync looks at the bucket once: it loads blocks that are new and drops those that are gone. A block that can't be
// loaded is set aside until the next time and costs only itself. An error says that the bucket could not be looked at;
// everything stays as it was then.
func (s *Store) Sync(ctx context.Context) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	view, err := s.fetcher.Fetch(ctx)
	if err != nil {
		return err
	}
	before := s.blocks.Load().byID
	next := make(map[ulid.ULID]*loaded, len(view.Metas))
	var fresh []*block.Meta
	for id, m := range view.Metas {
		if b := before[id]; b != nil {
			next[id] = b
		} else {
			fresh = append(fresh, m)
		}
	}
	// The newest first: they are asked for most.
	slices.SortFunc(fresh, func(a, b *block.Meta) int { return cmp.Compare(b.MaxTime, a.MaxTime) })
	var mu sync.Mutex // guards next and aside
	aside := map[ulid.ULID]error{}
	gate.Spread(ctx, s.cfg.SyncConcurrency, len(fresh), func(i int) bool {
		b, err := s.load(ctx, fresh[i])
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			aside[fresh[i].ULID] = err
		} else {
			next[b.meta.ULID] = b
		}
		return err == nil
	})
	failed := len(next) < len(view.Metas)

	var dropped []*loaded
	for id, b := range before {
		if next[id] != nil {
			continue
		}
		// Whoever replaces this block may be the one that failed. Twice is better than not at all.
		if (failed || ctx.Err() != nil) && view.Excluded[id] == block.StateDuplicate {
			next[id] = b
			continue
		}
		dropped = append(dropped, b)
	}
	set := newBlockSet(next, s.cfg.Name)
	set.known = true
	set.setAside(s.notServed(ctx, view, aside))
	s.blocks.Store(set)
	s.metrics.blocksLoaded.Set(float64(len(next)))
	for _, b := range dropped {
		s.drop(b)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.metrics.lastLoaded.SetToCurrentTime()
	return nil
}

func (s *Store) load(ctx context.Context, m *block.Meta) (*loaded, error) {
	s.metrics.blockLoads.Inc()
	start := time.Now()
	b, err := load(ctx, s.bkt, s.headers, m, s.cfg, s.cache, s.metrics, s.slots)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		s.metrics.blockLoadFailures.Inc()
		level.Warn(s.logger).Log("msg", "block could not be loaded and is set aside until the next look at the bucket", "block", m.ULID, "err", err)
		return nil, err
	}
	b.logger = s.logger
	s.metrics.blockLoadDuration.Observe(time.Since(start).Seconds())
	level.Info(s.logger).Log("msg", "loaded block", "block", m.ULID, "mint", m.MinTime, "maxt", m.MaxTime, "resolution", m.Resolution(), "labels", b.labels.String(), "took", time.Since(start))
	return b, nil
}

// drop stops serving a block that is not in the current set any more.
func (s *Store) drop(b *loaded) {
	s.metrics.blockDrops.Inc()
	b.drop(func(err error) {
		if err == nil {
			err = os.RemoveAll(b.dir)
		}
		if err != nil {
			s.metrics.blockDropFailures.Inc()
			level.Warn(s.logger).Log("msg", "local files of a block could not be removed", "block", b.meta.ULID, "err", err)
			return
		}
		level.Info(s.logger).Log("msg", "dropped block", "block", b.meta.ULID)
	})
}

// cleanDataDir removes directories of blocks that are not served, left by an earlier process.
func (s *Store) cleanDataDir() {
	entries, err := os.ReadDir(s.cfg.DataDir)
	if err != nil {
		level.Warn(s.logger).Log("msg", "data directory could not be listed", "err", err)
		return
	}
	blocks := s.blocks.Load().byID
	for _, e := range entries {
		id, ok := block.ParseID(e.Name())
		if !ok || blocks[id] != nil {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.cfg.DataDir, e.Name())); err != nil {
			level.Warn(s.logger).Log("msg", "local files of an unknown block could not be removed", "block", id, "err", err)
		}
	}
}
