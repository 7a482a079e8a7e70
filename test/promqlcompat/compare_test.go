package promqlcompat

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/koios-metrics/koios/pkg/query/difference"
)

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
		if d := difference.Series(&got.series[i], &w); d != "" {
			return d
		}
	}
	if sorted && !slices.EqualFunc(want.order, got.order, difference.Near) {
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
