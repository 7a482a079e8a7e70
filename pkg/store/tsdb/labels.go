package tsdb

import (
	"context"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

// LabelNames implements store.Store.
func (s *Store) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	rest, ok := s.stored(req.Matchers)
	if !ok {
		return nil, nil, nil
	}
	q, err := s.querier(req.MinTime, req.MaxTime)
	if err != nil {
		return nil, nil, err
	}
	defer q.Close()
	names, ws, err := q.LabelNames(ctx, nil, rest...)
	if err != nil {
		return nil, nil, s.wrap(ctx, "look up label names", err)
	}
	if len(names) > 0 {
		s.external.Range(func(l labels.Label) {
			if l.Value != "" && !slices.Contains(req.WithoutReplicaLabels, l.Name) {
				names = append(names, l.Name)
			}
		})
	}
	return sortAndCut(names, req.Limit), warnings(ws), nil
}

// LabelValues implements store.Store.
func (s *Store) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	if req.Label == "" {
		return nil, nil, store.Errorf(store.KindBadRequest, "label name is empty")
	}
	rest, ok := s.stored(req.Matchers)
	if !ok || slices.Contains(req.WithoutReplicaLabels, req.Label) {
		return nil, nil, nil
	}
	if v := s.external.Get(req.Label); v != "" {
		return s.externalValue(ctx, req, rest, v)
	}
	q, err := s.querier(req.MinTime, req.MaxTime)
	if err != nil {
		return nil, nil, err
	}
	defer q.Close()
	values, ws, err := q.LabelValues(ctx, req.Label, nil, rest...)
	if err != nil {
		return nil, nil, s.wrap(ctx, "look up label values", err)
	}
	return sortAndCut(values, req.Limit), warnings(ws), nil
}

// externalValue answers with the value of an external label if a series matches.
func (s *Store) externalValue(ctx context.Context, req *store.LabelValuesRequest, rest []*labels.Matcher, v string) ([]string, store.Warnings, error) {
	if len(rest) == 0 {
		return []string{v}, nil, nil
	}
	cur, err := s.Series(ctx, &store.SeriesRequest{MinTime: req.MinTime, MaxTime: req.MaxTime, Matchers: rest, SkipChunks: true, Limit: 1})
	if err != nil {
		return nil, nil, err
	}
	defer cur.Close()
	if !cur.Next() {
		return nil, cur.Warnings(), cur.Err()
	}
	return []string{v}, cur.Warnings(), nil
}

// sortAndCut sorts a list and cuts it, and copies what stays: the strings may lie in the mapped index of
// a block that is about to be closed.
func sortAndCut(all []string, limit int) []string {
	all = slices.Clone(all)
	slices.Sort(all)
	all = slices.Compact(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	for i, s := range all {
		all[i] = strings.Clone(s)
	}
	return all
}
