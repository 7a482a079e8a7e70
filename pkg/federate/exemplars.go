package federate

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/proto/exemplarspb"
)

// Exemplars returns the exemplars of all peers, merged. The strategy of the request is overwritten.
func (f *Federation) Exemplars(ctx context.Context, req *exemplarspb.ExemplarsRequest) (*Answer[[]*exemplarspb.ExemplarData], error) {
	req = proto.CloneOf(req)
	req.PartialResponseStrategy = strategy(f.cfg.Exemplars)
	all, err := f.askExemplars(ctx, req)
	if err != nil {
		return nil, err
	}
	series := make([]*exemplarspb.ExemplarData, len(all.frames))
	for i, m := range all.frames {
		series[i] = m.GetData()
	}
	return &Answer[[]*exemplarspb.ExemplarData]{Data: mergeExemplars(series, f.cfg.ReplicaLabels), Warnings: all.warnings, release: all.release}, nil
}

func (f *Federation) askExemplars(ctx context.Context, req *exemplarspb.ExemplarsRequest) (*said[*exemplarspb.ExemplarsResponse], error) {
	wanted, err := f.selectors(req.GetQuery())
	if err != nil {
		return nil, err
	}
	if len(wanted) == 0 {
		return &said[*exemplarspb.ExemplarsResponse]{release: func() {}}, nil // of nothing below this querier
	}
	return ask(ctx, f, question[exemplarspb.ExemplarsResponse, *exemplarspb.ExemplarsResponse]{
		what: "exemplars", capability: endpoint.HasExemplars, strategy: req.GetPartialResponseStrategy(),
		open: func(ctx context.Context, p endpoint.Peer) (grpc.ServerStreamingClient[exemplarspb.ExemplarsResponse], error) {
			query := queryFor(p, wanted)
			if query == "" {
				return nil, nil
			}
			r := proto.CloneOf(req)
			r.Query = query
			return exemplarspb.NewExemplarsClient(p.Conn).Exemplars(ctx, r)
		},
		holds: func(m *exemplarspb.ExemplarsResponse) bool { return m.GetData() != nil },
		keep: func(p endpoint.Peer, m *exemplarspb.ExemplarsResponse) bool {
			return selected(p, wanted, labelsOf(m.GetData().GetSeriesLabels()))
		},
	})
}

// selector is what a series must match.
type selector []*labels.Matcher

// selectors returns those of a query that this querier's own labels do not rule out, without matchers on
// these labels.
func (f *Federation) selectors(query string) ([]selector, error) {
	expr, err := parser.ParseExpr(query)
	if err != nil {
		return nil, store.Errorf(store.KindBadRequest, "parse query: %w", err)
	}
	all := parser.ExtractSelectors(expr)
	if len(all) == 0 {
		return nil, store.Errorf(store.KindBadRequest, "query %q selects no series: exemplars are those of series", query)
	}
	var wanted []selector
	for _, ms := range all {
		if rest, ok := store.MatchExternal(f.cfg.SelectorLabels, ms); ok {
			wanted = append(wanted, rest)
		}
	}
	return wanted, nil
}

// labelSets returns the external labels of a peer: one empty set if it has told none.
func labelSets(p endpoint.Peer) []labels.Labels {
	if len(p.Description.LabelSets) == 0 {
		return []labels.Labels{labels.EmptyLabels()}
	}
	return p.Description.LabelSets
}

// stacked tells whether the peer is a querier, which looks at external labels itself.
func stacked(p endpoint.Peer) bool {
	return p.Component == endpoint.Query || p.Info.GetQuery() != nil
}

// queryFor writes the query for a peer: the selectors that its external labels do not rule out, joined by a
// sign that asks for both sides. A leaf knows nothing of its external labels, so matchers on these are not
// sent to it. Empty is nothing to ask.
func queryFor(p endpoint.Peer, wanted []selector) string {
	var parts []string
	for _, ms := range wanted {
		for _, ls := range labelSets(p) {
			rest, ok := store.MatchExternal(ls, ms)
			if !ok {
				continue
			}
			if stacked(p) {
				rest = ms
			}
			if part := write(rest); !slices.Contains(parts, part) {
				parts = append(parts, part)
			}
		}
	}
	return strings.Join(parts, " + ")
}

// write writes a selector so that PromQL takes it: with a matcher that the empty string does not match.
func write(ms selector) string {
	if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		ms = append(slices.Clip(ms), labels.MustNewMatcher(labels.MatchNotEqual, model.MetricNameLabel, ""))
	}
	return promapi.Selector(ms)
}

// selected tells whether a peer's series is one that was asked for. A peer with several external label sets
// has been asked for more than that.
func selected(p endpoint.Peer, wanted []selector, series labels.Labels) bool {
	for _, ls := range labelSets(p) {
		for _, ms := range wanted {
			if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
				v := series.Get(m.Name)
				if v == "" {
					v = ls.Get(m.Name) // the label by which a querier is chosen is on none of its series
				}
				return !m.Matches(v)
			}) {
				return true
			}
		}
	}
	return false
}

// mergeExemplars joins the exemplars of series that are the same without replica labels. Exemplars are in
// the order of their times, each of them once; series are in the order of their labels. It owns the series.
func mergeExemplars(series []*exemplarspb.ExemplarData, replicaLabels []string) []*exemplarspb.ExemplarData {
	type keyed struct {
		labels labels.Labels
		data   *exemplarspb.ExemplarData
	}
	all := make([]keyed, 0, len(series))
	for _, s := range series {
		if len(s.GetExemplars()) > 0 {
			all = append(all, keyed{without(s.GetSeriesLabels(), replicaLabels), s})
		}
	}
	slices.SortStableFunc(all, func(a, b keyed) int { return labels.Compare(a.labels, b.labels) })
	merged := []*exemplarspb.ExemplarData{}
	for i, k := range all {
		if i > 0 && labels.Equal(all[i-1].labels, k.labels) {
			last := merged[len(merged)-1]
			last.Exemplars = append(last.Exemplars, k.data.Exemplars...)
			continue
		}
		k.data.SeriesLabels = encodeLabels(k.labels)
		merged = append(merged, k.data)
	}
	for _, s := range merged {
		s.Exemplars = sortExemplars(s.Exemplars)
	}
	return merged
}

func sortExemplars(xs []*exemplarspb.Exemplar) []*exemplarspb.Exemplar {
	type keyed struct {
		labels labels.Labels
		x      *exemplarspb.Exemplar
	}
	all := make([]keyed, len(xs))
	for i, x := range xs {
		all[i] = keyed{labelsOf(x.GetLabels()), x}
		x.Labels = encodeLabels(all[i].labels)
	}
	compare := func(a, b keyed) int {
		return cmp.Or(cmp.Compare(a.x.GetTs(), b.x.GetTs()), labels.Compare(a.labels, b.labels), cmp.Compare(a.x.GetValue(), b.x.GetValue()),
			cmp.Compare(math.Float64bits(a.x.GetValue()), math.Float64bits(b.x.GetValue())))
	}
	slices.SortFunc(all, compare)
	all = slices.CompactFunc(all, func(a, b keyed) bool { return compare(a, b) == 0 })
	out := make([]*exemplarspb.Exemplar, len(all))
	for i := range all {
		out[i] = all[i].x
	}
	return out
}
