package bucket

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/block/indexheader"
	"github.com/koios-metrics/koios/pkg/store"
)

// LabelNames implements store.Store.
func (s *Store) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	sr := &store.SeriesRequest{
		MinTime: req.MinTime, MaxTime: req.MaxTime, Matchers: req.Matchers, BlockMatchers: req.BlockMatchers,
		PartialResponse: req.PartialResponse, SkipChunks: true,
	}
	names, ws, err := s.collect(ctx, sr, from{
		all: func(b *loaded, to *gathered) {
			if names := b.header.LabelNames(); len(names) > 0 {
				to.addAll(names)
				externalNames(b, req.WithoutReplicaLabels, to)
			}
		},
		some: func(b *loaded, walk walk, to *gathered) {
			var last []string
			found := false
			walk(nil, func(ls labels.Labels) bool {
				found = true
				// Neighbours have the same names most of the time.
				i, same := 0, len(last) == ls.Len()
				ls.Range(func(l labels.Label) {
					same = same && last[i] == l.Name
					i++
				})
				if !same {
					last = last[:0]
					ls.Range(func(l labels.Label) {
						last = append(last, l.Name)
						to.add(l.Name)
					})
				}
				return true
			})
			if found {
				externalNames(b, req.WithoutReplicaLabels, to)
			}
		},
	})
	return names.first(req.Limit), ws, err
}

func externalNames(b *loaded, without []string, to *gathered) {
	b.labels.Range(func(l labels.Label) {
		if !slices.Contains(without, l.Name) {
			to.add(l.Name)
		}
	})
}

// LabelValues implements store.Store.
func (s *Store) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	if req.Label == "" {
		return nil, nil, store.Errorf(store.KindBadRequest, "label name is empty")
	}
	if slices.Contains(req.WithoutReplicaLabels, req.Label) {
		return nil, nil, nil
	}
	sr := &store.SeriesRequest{
		MinTime: req.MinTime, MaxTime: req.MaxTime, Matchers: req.Matchers, BlockMatchers: req.BlockMatchers,
		PartialResponse: req.PartialResponse, SkipChunks: true,
	}
	has := labels.MustNewMatcher(labels.MatchNotEqual, req.Label, "")
	values, ws, err := s.collect(ctx, sr, from{
		all: func(b *loaded, to *gathered) {
			if external := b.labels.Get(req.Label); external != "" {
				to.add(external)
				return
			}
			b.header.Values(req.Label, func(v string, _ indexheader.Range) bool { return to.add(v) && ctx.Err() == nil })
		},
		some: func(b *loaded, walk walk, to *gathered) {
			if external := b.labels.Get(req.Label); external != "" {
				walk(nil, func(labels.Labels) bool {
					to.add(external)
					return false
				})
				return
			}
			last := ""
			walk(has, func(ls labels.Labels) bool {
				if v := ls.Get(req.Label); v != last {
					last = v
					return to.add(v)
				}
				return true
			})
		},
	})
	return values.first(req.Limit), ws, err
}

// from is how strings are taken from a block. Errors of what it adds to are for collect to see.
type from struct {
	// all takes them from the index header: no matcher is left for the block. It is called for one block at a time.
	all func(*loaded, *gathered)
	// some takes them from the stored labels of the series that match. It is called in parallel.
	some func(*loaded, walk, *gathered)
}

// walk goes over the stored labels of the series that match, and one more matcher if it is not nil, until it is told
// false. The labels are lent.
type walk func(more *labels.Matcher, f func(labels.Labels) bool)

// collect gathers strings from all blocks that may hold something for a request.
func (s *Store) collect(ctx context.Context, req *store.SeriesRequest, from from) (*gathered, store.Warnings, error) {
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	if !s.blocks.Load().known {
		return nil, nil, errNotReady
	}
	req = s.clamp(req)
	ts, set := s.targets(req.Matchers, req.BlockMatchers, func(g *blockGroup) []*loaded { return g.overlapping(req.MinTime, req.MaxTime) })
	ws, err := set.gaps(req, true)
	if err != nil {
		release(ts)
		return nil, nil, err
	}
	tenant := tenantOf(ctx)
	acc := s.newAccount(tenant)
	share := s.memory.newShare(s.cfg.RequestMemoryBytesMax)
	defer share.leave()
	to := &gathered{all: map[string]struct{}{}, mem: hold{budget: &share.finding}}
	defer to.mem.free()

	cs := make([]*cursor, len(ts))
	loaded := true
	for i, t := range ts {
		if len(t.matchers) > 0 {
			// Each block has a share of its own, or those that wait for one another would hold what the others need.
			cs[i] = s.newCursor(ctx, req, t.block, acc, tenant, len(ts), s.memory.newShare(s.cfg.RequestMemoryBytesMax))
		} else {
			cs[i] = s.newHeaderCursor(ctx, req, t.block, tenant)
		}
		loaded = loaded && len(t.matchers) == 0 && t.block.header.Loaded()
	}
	width := openConcurrency
	if loaded {
		width = 1
	}
	each(cs, width, func(i int, c *cursor) {
		if c.openHeader() && len(ts[i].matchers) > 0 {
			from.some(c.block, s.walk(c, ts[i].matchers, to), to)
		}
	})
	for i, c := range cs {
		if !c.ended && len(ts[i].matchers) == 0 && err == nil && ctx.Err() == nil {
			from.all(c.block, to)
		}
		if bad := c.block.header.Err(); bad != nil && !c.ended {
			c.fail(damagedHeader, bad)
		}
		ws = append(ws, c.Warnings()...)
		if err == nil {
			err = c.Err()
		}
		_ = c.Close() // nothing was written
		if len(ts[i].matchers) > 0 {
			c.share.leave()
		}
	}
	s.metrics.observe(acc, tenant)
	if err == nil {
		err = to.err
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	return to, ws, nil
}

func (s *Store) walk(c *cursor, ms []*labels.Matcher, to *gathered) walk {
	return func(more *labels.Matcher, f func(labels.Labels) bool) {
		if more != nil {
			ms = append(slices.Clone(ms), more)
		}
		if _, refused := s.begin(c.ctx, []*cursor{c}, func(int) []*labels.Matcher { return ms }, func(int) bool { return false }); refused != nil {
			to.fail(refused)
			return
		}
		for c.Next() && f(c.At().Labels) {
		}
	}
}

// gathered is a set of strings. Its methods may be called in parallel, but first.
type gathered struct {
	mu   sync.Mutex
	all  map[string]struct{}
	last []string // what addAll was called with
	mem  hold
	err  error // why there are no more
}

// add adds a copy of a string; false if nothing more can be added.
func (g *gathered) add(v string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.all[v]; ok || g.err != nil {
		return g.err == nil
	}
	// The string, and what a map takes for it.
	if g.err = g.mem.reserve(int64(len(v)) + 40); g.err == nil {
		g.all[strings.Clone(v)] = struct{}{}
	}
	return g.err == nil
}

// addAll adds copies of strings. Those of one block are mostly those of the one before.
func (g *gathered) addAll(vs []string) {
	if slices.Equal(vs, g.last) {
		return
	}
	g.last = vs
	for _, v := range vs {
		g.add(v)
	}
}

func (g *gathered) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
}

// first sorts the strings and returns the first so many; 0 is all.
func (g *gathered) first(limit int) []string {
	if g == nil {
		return nil
	}
	all := slices.Sorted(maps.Keys(g.all))
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}
