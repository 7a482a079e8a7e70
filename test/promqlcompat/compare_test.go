package promqlcompat

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
)

// tolerance is how far two values may lie apart, as a part of the larger one.
const tolerance = 1e-9

// answer is the result of a query in a form that can be compared: series by labels.
type answer struct {
	err    error
	series []promql.Series // sorted by labels
	order  []float64       // of an instant vector: its floats as they came
	names  []string        // …and its labels
	text   string

	annotations []string // sorted
}

// answerOf copies a result, whose memory the engine may use again.
func answerOf(r *promql.Result) answer {
	if r.Err != nil {
		return answer{err: r.Err}
	}
	a := answer{annotations: texts(r.Warnings)}
	switch v := r.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			one := promql.Series{Metric: s.Metric}
			a.names = append(a.names, s.Metric.String())
			if s.H != nil {
				one.Histograms = []promql.HPoint{{T: s.T, H: s.H.Copy()}}
			} else {
				one.Floats = []promql.FPoint{{T: s.T, F: s.F}}
				a.order = append(a.order, s.F)
			}
			a.series = append(a.series, one)
		}
	case promql.Matrix:
		for _, s := range v {
			one := promql.Series{Metric: s.Metric, Floats: slices.Clone(s.Floats)}
			for _, h := range s.Histograms {
				one.Histograms = append(one.Histograms, promql.HPoint{T: h.T, H: h.H.Copy()})
			}
			a.series = append(a.series, one)
		}
	case promql.Scalar:
		a.series = []promql.Series{{Floats: []promql.FPoint{{T: v.T, F: v.V}}}}
	case promql.String:
		a.text = v.V
	default:
		a.err = fmt.Errorf("unknown type of answer %T", v)
	}
	slices.SortStableFunc(a.series, func(x, y promql.Series) int { return labels.Compare(x.Metric, y.Metric) })
	return a
}

func texts(as annotations.Annotations) []string {
	var all []string
	for _, err := range as.AsErrors() {
		all = append(all, err.Error())
	}
	slices.Sort(all)
	return all
}

func (a *answer) empty() bool { return len(a.series) == 0 && a.text == "" }

// diff tells where two answers differ, "" if they don't. Errors are equal whatever their texts are. The order counts
// of instant vectors that were asked to be sorted.
func diff(want, got answer, sorted bool) string {
	switch {
	case want.err != nil && got.err != nil:
		return ""
	case want.err != nil:
		return fmt.Sprintf("answered with %d series, want error: %v", len(got.series), want.err)
	case got.err != nil:
		return fmt.Sprintf("error: %v, want %d series", got.err, len(want.series))
	case want.text != got.text:
		return fmt.Sprintf("%q, want %q", got.text, want.text)
	case len(want.series) != len(got.series):
		return fmt.Sprintf("%d series, want %d: %s", len(got.series), len(want.series), odd(want.series, got.series))
	}
	for i, w := range want.series {
		if d := diffSeries(w, got.series[i]); d != "" {
			return d
		}
	}
	if sorted && !slices.EqualFunc(want.order, got.order, near) {
		return fmt.Sprintf("in the order %v, want %v", got.order, want.order)
	}
	return ""
}

// odd names the first series that only one has.
func odd(want, got []promql.Series) string {
	has := func(all []promql.Series, ls labels.Labels) bool {
		return slices.ContainsFunc(all, func(s promql.Series) bool { return labels.Equal(s.Metric, ls) })
	}
	for _, s := range want {
		if !has(got, s.Metric) {
			return "missing " + s.Metric.String()
		}
	}
	for _, s := range got {
		if !has(want, s.Metric) {
			return "not asked for " + s.Metric.String()
		}
	}
	return "equal labels"
}

func diffSeries(want, got promql.Series) string {
	if !labels.Equal(want.Metric, got.Metric) {
		return fmt.Sprintf("series %s, want %s", got.Metric, want.Metric)
	}
	if len(want.Floats) != len(got.Floats) || len(want.Histograms) != len(got.Histograms) {
		return fmt.Sprintf("%s has %d floats and %d histograms, want %d and %d", want.Metric, len(got.Floats), len(got.Histograms), len(want.Floats), len(want.Histograms))
	}
	for i, w := range want.Floats {
		if g := got.Floats[i]; w.T != g.T || !near(w.F, g.F) {
			return fmt.Sprintf("%s is %v at %d, want %v at %d", want.Metric, g.F, g.T, w.F, w.T)
		}
	}
	for i, w := range want.Histograms {
		if g := got.Histograms[i]; w.T != g.T || !nearHistogram(w.H, g.H) {
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
	return math.Abs(a-b) <= tolerance*max(math.Abs(a), math.Abs(b))
}

// nearHistogram compares what a histogram counts, however its spans are laid out.
func nearHistogram(a, b *histogram.FloatHistogram) bool {
	if a.Schema != b.Schema || a.ZeroThreshold != b.ZeroThreshold || !near(a.Sum, b.Sum) || !near(a.Count, b.Count) || !near(a.ZeroCount, b.ZeroCount) {
		return false
	}
	if !slices.Equal(a.CustomValues, b.CustomValues) {
		return false
	}
	return slices.EqualFunc(buckets(a), buckets(b), func(x, y histogram.Bucket[float64]) bool {
		return x.Lower == y.Lower && x.Upper == y.Upper && near(x.Count, y.Count)
	})
}

func buckets(h *histogram.FloatHistogram) []histogram.Bucket[float64] {
	var all []histogram.Bucket[float64]
	for it := h.AllBucketIterator(); it.Next(); {
		if b := it.At(); b.Count != 0 {
			all = append(all, b)
		}
	}
	return all
}

// sorts tells whether the order of an answer means something.
func sorts(expr parser.Expr) bool {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return sorts(e.Expr)
	case *parser.Call:
		return e.Func.Name == "sort" || e.Func.Name == "sort_desc"
	}
	return false
}
