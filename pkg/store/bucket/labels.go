package bucket

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/block/indexheader"
	"github.com/koios-metrics/koios/pkg/store"
)

// LabelNames implements store.Store.
func (s *Store) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	sr := &store.SeriesRequest{
		MinTime: req.MinTime, MaxTime: req.MaxTime, Matchers: req.Matchers, BlockMatchers: req.BlockMatchers,
		PartialResponse: req.PartialResponse, SkipChunks: true,
	}
	names, ws, err := s.collect(ctx, sr, func(t target, add func(string), each func([]*labels.Matcher, func(labels.Labels) bool)) {
		found := false
		if len(t.matchers) == 0 {
			for _, n := range t.block.header.LabelNames() {
				found = true
				add(n)
			}
		} else {
			var last []string
			each(t.matchers, func(ls labels.Labels) bool {
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
						n := strings.Clone(l.Name)
						last = append(last, n)
						add(n)
					})
				}
				return true
			})
		}
		if found {
			t.block.labels.Range(func(l labels.Label) {
				if !slices.Contains(req.WithoutReplicaLabels, l.Name) {
					add(l.Name)
				}
			})
		}
	})
	return cut(names, req.Limit), ws, err
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
	values, ws, err := s.collect(ctx, sr, func(t target, add func(string), each func([]*labels.Matcher, func(labels.Labels) bool)) {
		external := t.block.labels.Get(req.Label)
		switch {
		case len(t.matchers) == 0 && external != "":
			add(external)
		case len(t.matchers) == 0:
			t.block.header.Values(req.Label, func(v string, _ indexheader.Range) bool {
				add(strings.Clone(v))
				return ctx.Err() == nil
			})
		case external != "":
			each(t.matchers, func(labels.Labels) bool {
				add(external)
				return false
			})
		default:
			last := ""
			each(append(slices.Clone(t.matchers), has), func(ls labels.Labels) bool {
				if v := ls.Get(req.Label); v != last {
					last = strings.Clone(v)
					add(last)
				}
				return true
			})
		}
	})
	return cut(values, req.Limit), ws, err
}

// collect gathers strings from all blocks that may hold something for a request. from is called once for each block,
// in parallel; each walks over the stored labels of the series that match, until it is told false.
func (s *Store) collect(ctx context.Context, req *store.SeriesRequest,
	from func(t target, add func(string), each func([]*labels.Matcher, func(labels.Labels) bool)),
) (map[string]bool, store.Warnings, error) {
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

	var (
		mu  sync.Mutex
		all = map[string]bool{}
		g   errgroup.Group
	)
	names := s.memory.newShare(s.cfg.RequestMemoryBytesMax)
	defer names.leave()
	mem := &hold{budget: &names.finding}
	defer mem.free()
	g.SetLimit(openConcurrency)
	for _, t := range ts {
		own := s.memory.newShare(s.cfg.RequestMemoryBytesMax)
		c := s.newCursor(ctx, req, t.block, acc, tenant, len(ts), own)
		g.Go(func() error {
			defer own.leave()
			defer c.Close()
			var err error
			add := func(v string) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil && !all[v] {
					// The string, and what a map takes for it.
					if err = mem.reserve(int64(len(v)) + 40); err == nil {
						all[v] = true
					}
				}
			}
			if c.openHeader() {
				from(t, add, func(ms []*labels.Matcher, f func(labels.Labels) bool) {
					if _, refused := s.begin(ctx, []*cursor{c}, func(int) []*labels.Matcher { return ms }, func(int) bool { return false }); refused != nil {
						mu.Lock()
						defer mu.Unlock()
						err = refused
						return
					}
					for c.Next() && f(c.At().Labels) {
					}
				})
				if err := t.block.header.Err(); err != nil && !c.ended {
					c.fail(damagedHeader, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			ws = append(ws, c.Warnings()...)
			if err == nil {
				err = c.Err()
			}
			return err
		})
	}
	err = g.Wait()
	s.metrics.observe(acc, tenant)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	return all, ws, nil
}

// cut sorts a set and keeps the first so many; 0 is all.
func cut(set map[string]bool, limit int) []string {
	all := slices.Sorted(maps.Keys(set))
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}
