// Package tsdb is a Store over a Prometheus TSDB in this process.
//
// Chunks are handed out whole and as they lie in the blocks and the head, so nothing is decoded. Only
// where blocks overlap, or samples were deleted, does the TSDB itself cut new chunks.
package tsdb

import (
	"context"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/koios-metrics/koios/pkg/store"
)

// DB is what a Store needs of a TSDB; *tsdb.DB of Prometheus is one. All methods may be called in
// parallel.
type DB interface {
	storage.ChunkQueryable
	// StartTime returns the time in ms of the oldest data, math.MaxInt64 if there is none.
	StartTime() (int64, error)
}

// Config says how a Store calls itself and what it may use.
type Config struct {
	// Name is how warnings and logs call the Store; "tsdb" if empty.
	Name string
	// Budget bounds the memory for series that must be sorted because a stored label is named like an
	// external or a replica label; nil is no bound.
	Budget *store.Budget
}

// Store answers from one TSDB.
type Store struct {
	db       DB
	external labels.Labels
	cfg      Config
}

// New makes a Store of a TSDB that merges external labels into every series. It does not own db.
func New(db DB, external labels.Labels, cfg Config) *Store {
	if cfg.Name == "" {
		cfg.Name = "tsdb"
	}
	return &Store{db: db, external: external, cfg: cfg}
}

// Describe implements store.Store. The end is open, as samples are appended all the time.
func (s *Store) Describe() store.Description {
	d := store.Description{MinTime: s.startTime(), MaxTime: math.MaxInt64, Name: s.cfg.Name, Local: true, Replicas: true}
	if !s.external.IsEmpty() {
		d.LabelSets = []labels.Labels{s.external}
		d.TSDBs = []store.TSDB{{Labels: s.external, MinTime: d.MinTime, MaxTime: d.MaxTime}}
	}
	return d
}

// startTime returns the time of the oldest data, out-of-order samples in the head included; the beginning
// of time if the TSDB does not know.
func (s *Store) startTime() int64 {
	t, err := s.db.StartTime()
	if err != nil {
		return math.MinInt64
	}
	if db, ok := s.db.(interface{ Head() *tsdb.Head }); ok {
		t = min(t, db.Head().MinOOOTime())
	}
	return t
}

// Series implements store.Store.
func (s *Store) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	rest, ok := s.stored(req.Matchers)
	if !ok {
		return store.NewSliceCursor(nil), nil
	}
	if len(rest) == 0 {
		return nil, store.ErrNoMatchers
	}
	q, err := s.querier(req.MinTime, req.MaxTime)
	if err != nil {
		return nil, err
	}
	// No limit in the hints: it would count series whose chunks turn out to lie outside the range.
	hints := &storage.SelectHints{Start: req.MinTime, End: req.MaxTime, DisableTrimming: true}
	clash, err := s.mayClash(ctx, q, hints, rest, req.WithoutReplicaLabels)
	if err != nil {
		_ = q.Close() // the error of the query is the one that matters
		return nil, err
	}
	cur := store.Relabel(&cursor{
		ctx:        ctx,
		name:       s.cfg.Name,
		q:          q,
		set:        q.Select(ctx, true, hints, rest...),
		mint:       req.MinTime,
		maxt:       req.MaxTime,
		skipChunks: req.SkipChunks,
	}, store.RelabelOptions{External: s.external, Drop: req.WithoutReplicaLabels, MayClash: clash, Budget: s.cfg.Budget})
	if sh := req.Shard; sh != nil {
		cur = store.Where(cur, func(sr *store.Series) bool { return sh.Selects(sr.Labels) })
	}
	return store.Limit(cur, req.Limit), nil
}

// stored returns the matchers on stored labels, in a slice of their own: the TSDB sorts what it is given, and
// other Stores may be reading the request. ok is false when nothing can match.
func (s *Store) stored(ms []*labels.Matcher) (rest []*labels.Matcher, ok bool) {
	rest, ok = store.MatchExternal(s.external, ms)
	return slices.Clone(rest), ok
}

func (s *Store) querier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := s.db.ChunkQuerier(mint, maxt)
	if err != nil {
		return nil, store.Errorf(store.KindInternal, "open querier of %s: %w", s.cfg.Name, err)
	}
	return q, nil
}

// mayClash tells whether a series of the answer could have a stored label that is named like an external or a
// replica label. The names in the indexes of blocks and head are cheap to get, and mostly settle it. A name that
// is there may still be none of the series that match; that takes a look at one series.
func (s *Store) mayClash(ctx context.Context, q storage.ChunkQuerier, hints *storage.SelectHints, ms []*labels.Matcher, drop []string) (bool, error) {
	if s.external.IsEmpty() && len(drop) == 0 {
		return false, nil
	}
	names, _, err := q.LabelNames(ctx, nil)
	if err != nil {
		return false, s.wrap(ctx, "look up label names", err)
	}
	for _, name := range names {
		if !s.external.Has(name) && !slices.Contains(drop, name) {
			continue
		}
		set := q.Select(ctx, false, hints, append(slices.Clone(ms), labels.MustNewMatcher(labels.MatchNotEqual, name, ""))...)
		if set.Next() {
			return true, nil
		}
		if err := set.Err(); err != nil {
			return false, s.wrap(ctx, "look up label "+name, err)
		}
	}
	return false, nil
}

func (s *Store) wrap(ctx context.Context, what string, err error) error {
	return wrap(ctx, what, s.cfg.Name, err)
}

func wrap(ctx context.Context, what, name string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return store.Errorf(store.KindInternal, "%s in %s: %w", what, name, err)
}
