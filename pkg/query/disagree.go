package query

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// agreement is how far two values may lie apart to be equal, as a part of the larger: engines add in different
// orders.
const agreement = 1e-9

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
		if d := disagreeSeries(&gs[i], &ws[i]); d != "" {
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

func disagreeSeries(got, want *promql.Series) string {
	if !labels.Equal(got.Metric, want.Metric) {
		return fmt.Sprintf("series %s, want %s", got.Metric, want.Metric)
	}
	if len(got.Floats) != len(want.Floats) || len(got.Histograms) != len(want.Histograms) {
		return fmt.Sprintf("%s has %d floats and %d histograms, want %d and %d", want.Metric, len(got.Floats), len(got.Histograms), len(want.Floats), len(want.Histograms))
	}
	for i, w := range want.Floats {
		if g := got.Floats[i]; g.T != w.T || !near(g.F, w.F) {
			return fmt.Sprintf("%s is %v at %d, want %v at %d", want.Metric, g.F, g.T, w.F, w.T)
		}
	}
	for i, w := range want.Histograms {
		if g := got.Histograms[i]; g.T != w.T || !nearHistogram(g.H, w.H) {
			return fmt.Sprintf("%s is %v at %d, want %v at %d", want.Metric, g.H, g.T, w.H, w.T)
		}
	}
	return ""
}

func near(a, b float64) bool {
	switch {
	case math.IsNaN(a) || math.IsNaN(b):
		return math.IsNaN(a) && math.IsNaN(b)
	case math.IsInf(a, 0) || math.IsInf(b, 0):
		return a == b
	}
	return math.Abs(a-b) <= agreement*max(math.Abs(a), math.Abs(b))
}

// nearHistogram compares what stands for a histogram in most queries.
func nearHistogram(a, b *histogram.FloatHistogram) bool {
	return a.Schema == b.Schema && near(a.Count, b.Count) && near(a.Sum, b.Sum) && near(a.ZeroCount, b.ZeroCount)
}
