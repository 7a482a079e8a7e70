package prom

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
)

// truncated is the warning of Prometheus that a limit has cut its answer, which whoever set it knows.
const truncated = "results truncated due to limit"

// LabelNames implements store.Store.
func (s *Store) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	q, ok := s.query(req.MinTime, req.MaxTime, req.Matchers)
	if !ok {
		return nil, nil, nil
	}
	var (
		names, texts []string
		ws           store.Warnings
		err          error
	)
	if len(q.matchers) == 0 || selective(q.matchers) && s.labelsMatch() {
		names, texts, err = s.client.LabelNames(ctx, promapi.Select{Start: q.mint, End: q.maxt, Matchers: q.matchers})
	} else {
		names, ws, err = s.collect(ctx, q, func(ls labels.Labels, add func(string)) {
			ls.Range(func(l labels.Label) { add(l.Name) })
		})
	}
	if err != nil {
		return nil, nil, err
	}
	if len(names) > 0 {
		q.external.Range(func(l labels.Label) {
			if l.Value != "" && !slices.Contains(req.WithoutReplicaLabels, l.Name) {
				names = append(names, l.Name)
			}
		})
	}
	return sortAndCut(names, req.Limit), append(ws, warnings(texts)...), nil
}

// LabelValues implements store.Store.
func (s *Store) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	if req.Label == "" {
		return nil, nil, store.Errorf(store.KindBadRequest, "label name is empty")
	}
	q, ok := s.query(req.MinTime, req.MaxTime, req.Matchers)
	if !ok || slices.Contains(req.WithoutReplicaLabels, req.Label) {
		return nil, nil, nil
	}
	if v := q.external.Get(req.Label); v != "" {
		return s.externalValue(ctx, q, v)
	}
	if len(q.matchers) > 0 && !selective(q.matchers) {
		// This one changes nothing, and Prometheus wants one that refuses the empty string.
		q.matchers = append(slices.Clone(q.matchers), labels.MustNewMatcher(labels.MatchNotEqual, req.Label, ""))
	}
	var (
		values, texts []string
		ws            store.Warnings
		err           error
	)
	if len(q.matchers) == 0 || s.labelsMatch() {
		values, texts, err = s.client.LabelValues(ctx, req.Label, promapi.Select{Start: q.mint, End: q.maxt, Matchers: q.matchers, Limit: req.Limit})
	} else {
		values, ws, err = s.collect(ctx, q, func(ls labels.Labels, add func(string)) {
			if v := ls.Get(req.Label); v != "" {
				add(v)
			}
		})
	}
	if err != nil {
		return nil, nil, err
	}
	return sortAndCut(values, req.Limit), append(ws, warnings(texts)...), nil
}

// externalValue answers with the value of an external label if a series matches.
func (s *Store) externalValue(ctx context.Context, q query, v string) ([]string, store.Warnings, error) {
	if len(q.matchers) == 0 {
		return []string{v}, nil, nil
	}
	if found, err := s.exists(ctx, q); !found || err != nil {
		return nil, nil, err
	}
	return []string{v}, nil, nil
}

// collect gathers distinct strings from the labels of all series that match.
func (s *Store) collect(ctx context.Context, q query, from func(ls labels.Labels, add func(string))) ([]string, store.Warnings, error) {
	set := map[string]struct{}{}
	add := func(v string) { set[v] = struct{}{} }
	ws, err := s.walk(ctx, q, func(ls labels.Labels) error { from(ls, add); return nil })
	if err != nil {
		return nil, nil, err
	}
	return slices.Collect(maps.Keys(set)), ws, nil
}

func sortAndCut(all []string, limit int) []string {
	slices.Sort(all)
	all = slices.Compact(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}

func warnings(texts []string) store.Warnings {
	var ws store.Warnings
	for _, t := range texts {
		if t != truncated {
			ws = append(ws, errors.New(t))
		}
	}
	return ws
}
