package query

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/koios-metrics/koios/pkg/query/difference"
)

// disagree tells where two answers differ, "" if they don't. The order of series does not count.
func disagree(got, want parser.Value) string {
	if got.Type() != want.Type() {
		return fmt.Sprintf("a %s, want a %s", got.Type(), want.Type())
	}
	if w, ok := want.(promql.String); ok {
		if g := got.(promql.String); g.V != w.V {
			return fmt.Sprintf("%q, want %q", g.V, w.V)
		}
		return ""
	}
	gs, ws := seriesOf(got), seriesOf(want)
	for i := range min(len(gs), len(ws)) {
		if d := difference.Series(&gs[i], &ws[i]); d != "" {
			return d
		}
	}
	if len(gs) != len(ws) {
		return fmt.Sprintf("%d series, want %d", len(gs), len(ws))
	}
	return ""
}

// seriesOf is an answer as series, sorted by labels. It shares the points.
func seriesOf(v parser.Value) (all []promql.Series) {
	switch v := v.(type) {
	case promql.Scalar:
		return []promql.Series{{Floats: []promql.FPoint{{T: v.T, F: v.V}}}}
	case promql.Vector:
		for _, s := range v {
			if s.H != nil {
				all = append(all, promql.Series{Metric: s.Metric, Histograms: []promql.HPoint{{T: s.T, H: s.H}}})
			} else {
				all = append(all, promql.Series{Metric: s.Metric, Floats: []promql.FPoint{{T: s.T, F: s.F}}})
			}
		}
	case promql.Matrix:
		all = slices.Clone(v)
	}
	slices.SortStableFunc(all, func(a, b promql.Series) int { return labels.Compare(a.Metric, b.Metric) })
	return all
}
