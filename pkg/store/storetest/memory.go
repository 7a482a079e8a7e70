package storetest

import (
	"context"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

// Memory is a Store over a list of series. It does everything the plain way: it filters final labels and
// sorts, so that it can serve as the reference for others.
type Memory struct {
	data Data
	desc store.Description
}

// New makes a Store of data.
func New(data Data) *Memory {
	d := store.Description{MinTime: math.MaxInt64, MaxTime: math.MinInt64, Name: "memory", Local: true, Replicas: true}
	for _, s := range data.Series {
		for _, smp := range s.Samples {
			d.MinTime, d.MaxTime = min(d.MinTime, smp.T), max(d.MaxTime, smp.T)
		}
	}
	if !data.External.IsEmpty() {
		d.LabelSets = []labels.Labels{data.External}
		d.TSDBs = []store.TSDB{{Labels: data.External, MinTime: d.MinTime, MaxTime: d.MaxTime}}
	}
	return &Memory{data: data, desc: d}
}

// Describe implements store.Store.
func (m *Memory) Describe() store.Description { return m.desc }

// Series implements store.Store.
func (m *Memory) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	rest, ok := store.MatchExternal(m.data.External, req.Matchers)
	if !ok {
		return store.NewSliceCursor(nil), nil
	}
	if len(rest) == 0 {
		return nil, store.ErrNoMatchers
	}
	var found []*store.Series
	for _, s := range m.matching(rest, req.MinTime, req.MaxTime) {
		whole := m.final(s.Labels)
		final := store.Without(whole, req.WithoutReplicaLabels)
		if !req.Shard.Selects(final) {
			continue
		}
		out := &store.Series{Labels: final}
		if !req.SkipChunks {
			for _, c := range encode(s.Samples) {
				if store.Overlaps(c.MinTime, c.MaxTime, req.MinTime, req.MaxTime) {
					c.Replica = store.ReplicaOf(whole, req.WithoutReplicaLabels)
					out.Chunks = append(out.Chunks, c)
				}
			}
		}
		found = append(found, out)
	}
	slices.SortStableFunc(found, func(a, b *store.Series) int { return labels.Compare(a.Labels, b.Labels) })
	return store.Limit(&bounded{ctx: ctx, SliceCursor: store.NewSliceCursor(found)}, req.Limit), nil
}

// bounded ends a cursor when its context does.
type bounded struct {
	*store.SliceCursor
	ctx context.Context
}

func (b *bounded) Next() bool { return b.ctx.Err() == nil && b.SliceCursor.Next() }
func (b *bounded) Err() error { return b.ctx.Err() }

func (m *Memory) final(stored labels.Labels) labels.Labels {
	b := labels.NewBuilder(stored)
	m.data.External.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return b.Labels()
}

// matching returns the series that have a chunk in the range and match. Matchers on external labels are
// gone by now, and stored labels that an external one overrides can't be asked for.
func (m *Memory) matching(ms []*labels.Matcher, mint, maxt int64) []Input {
	var found []Input
	for _, s := range m.data.Series {
		if slices.ContainsFunc(ms, func(x *labels.Matcher) bool { return !x.Matches(s.Labels.Get(x.Name)) }) {
			continue
		}
		if slices.ContainsFunc(s.Samples, func(x Sample) bool { return x.T >= mint && x.T <= maxt }) {
			found = append(found, s)
		}
	}
	return found
}

// LabelNames implements store.Store.
func (m *Memory) LabelNames(_ context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	rest, ok := store.MatchExternal(m.data.External, req.Matchers)
	if !ok {
		return nil, nil, nil
	}
	set := map[string]bool{}
	for _, s := range m.matching(rest, req.MinTime, req.MaxTime) {
		s.Labels.Range(func(l labels.Label) { set[l.Name] = true })
	}
	if len(set) > 0 {
		m.data.External.Range(func(l labels.Label) { set[l.Name] = !slices.Contains(req.WithoutReplicaLabels, l.Name) || set[l.Name] })
	}
	return cut(set, req.Limit), nil, nil
}

// LabelValues implements store.Store.
func (m *Memory) LabelValues(_ context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	if req.Label == "" {
		return nil, nil, store.Errorf(store.KindBadRequest, "label name is empty")
	}
	rest, ok := store.MatchExternal(m.data.External, req.Matchers)
	if !ok || slices.Contains(req.WithoutReplicaLabels, req.Label) {
		return nil, nil, nil
	}
	set := map[string]bool{}
	for _, s := range m.matching(rest, req.MinTime, req.MaxTime) {
		if v := m.final(s.Labels).Get(req.Label); v != "" {
			set[v] = true
		}
	}
	return cut(set, req.Limit), nil, nil
}

func cut(set map[string]bool, limit int) []string {
	var all []string
	for k, in := range set {
		if in {
			all = append(all, k)
		}
	}
	slices.Sort(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}
