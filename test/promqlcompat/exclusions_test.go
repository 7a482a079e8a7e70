package promqlcompat

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/koios-metrics/koios/pkg/query"
)

// exclusion is a kind of query whose answers are known to differ from Prometheus's.
type exclusion struct {
	name string
	// of are the engines, or the roads ("road prom"), that differ.
	of []string
	// reason says why, and issue where upstream talks about it.
	reason, issue string
	// files is true of those that Prometheus's own files need.
	files bool
	// sometimes is true of those that depend on timing.
	sometimes bool
	// explains tells whether this is why answers differ.
	explains func(c *comparison) bool
}

// String names the exclusion with its reason.
func (e *exclusion) String() string {
	s := e.name + ": " + e.reason
	if e.issue != "" {
		s += " (" + e.issue + ")"
	}
	return s
}

// comparison is a query with two answers that differ.
type comparison struct {
	of        string
	expr      parser.Expr
	want, got answer
}

// explanation returns why answers differ, nil if that is not known.
func explanation(c *comparison) *exclusion {
	for i := range exclusions {
		if e := &exclusions[i]; slices.Contains(e.of, c.of) && e.explains(c) {
			return e
		}
	}
	return nil
}

var exclusions = []exclusion{
	{
		name:   "anchored and smoothed",
		of:     []string{query.EngineThanos},
		reason: "promql-engine does not know these modifiers; they are experimental, and Koios's parser refuses them",
		issue:  "https://github.com/thanos-io/promql-engine/issues/630",
		files:  true,
		explains: func(c *comparison) bool {
			return has(c.expr, func(n parser.Node) bool {
				sel, ok := n.(*parser.VectorSelector)
				return ok && (sel.Anchored || sel.Smoothed)
			})
		},
	},
	{
		name:   "equal labels at different times",
		of:     []string{query.EngineThanos},
		reason: "where a function makes the labels of two series equal, promql-engine refuses them even if they never have samples at the same time",
		issue:  "https://github.com/prometheus/prometheus/issues/15114, https://github.com/thanos-io/promql-engine/pull/600",
		files:  true,
		explains: func(c *comparison) bool {
			return c.want.err == nil && c.got.err != nil && strings.Contains(c.got.err.Error(), "vector cannot contain metrics with the same labelset")
		},
	},
	{
		name:   "short texts of annotations",
		of:     []string{query.EngineThanos},
		reason: "values are equal, and there are as many annotations; those of promql-engine leave out the operator, the aggregation or the name of the metric",
		files:  true,
		explains: func(c *comparison) bool {
			return diff(c.want, c.got, false) == "" && slices.EqualFunc(c.want.annotations, c.got.annotations, strings.HasPrefix)
		},
	},
	{
		name:      "annotations of a fixed time",
		of:        []string{query.EngineThanos},
		reason:    "values are equal; promql-engine evaluates what has a fixed time beside the rest, and sometimes is done before an annotation of it arrives",
		files:     true,
		sometimes: true,
		explains: func(c *comparison) bool {
			return diff(c.want, c.got, false) == "" && fixed(c.expr) && len(c.got.annotations) == 0
		},
	},
	{
		name:     "sort keeps histograms",
		files:    true,
		of:       []string{query.EngineThanos},
		reason:   "sort() and sort_desc() of promql-engine hand on histograms, which Prometheus drops",
		issue:    "https://github.com/thanos-io/promql-engine/pull/600",
		explains: func(c *comparison) bool { return calls(c.expr, "sort", "sort_desc") },
	},
	{
		name:     "timestamp of more than a selector",
		of:       []string{query.EngineThanos},
		reason:   "timestamp() of promql-engine looks through functions, operators and aggregations around a selector to the times of its samples, where Prometheus gives the time of evaluation, and may hand on histograms",
		issue:    "https://github.com/thanos-io/promql-engine/issues/206",
		explains: func(c *comparison) bool { return calls(c.expr, "timestamp") },
	},
	{
		name:     "prediction at a fixed time",
		of:       []string{query.EngineThanos},
		reason:   "predict_linear() of promql-engine over a range at a fixed time answers some steps only",
		issue:    "https://github.com/thanos-io/promql-engine/pull/600",
		explains: func(c *comparison) bool { return calls(c.expr, "predict_linear") && fixed(c.expr) },
	},
	{
		name:   "series of floats and histograms",
		of:     []string{query.EngineThanos},
		reason: "promql-engine loses points, or takes histograms for zeros, where one series has both floats and histograms",
		files:  true,
		explains: func(c *comparison) bool {
			return selects(c.expr, changing) || selects(c.expr, labels.FromStrings("__name__", "http_requests_mix", "path", "/foo"))
		},
	},
	{
		name:     "label values of several lines",
		of:       []string{query.EngineThanos},
		reason:   "in label_replace() of promql-engine a dot does not match the end of a line",
		explains: func(c *comparison) bool { return calls(c.expr, "label_replace") && linesIn(c.want) },
	},
	{
		name:   "quantiles of classic histograms without +Inf",
		of:     []string{query.EngineThanos},
		reason: "for a quantile above 1 promql-engine answers NaN where the highest bucket is missing, Prometheus +Inf",
		explains: func(c *comparison) bool {
			return calls(c.expr, "histogram_quantile") && strings.Contains(c.expr.String(), "le=")
		},
	},
	{
		name:   "rounding that count_values shows",
		of:     []string{query.EngineThanos},
		reason: "the last digit of a mean or sum is another, as promql-engine adds in an order of its own; count_values() makes labels of all digits",
		explains: func(c *comparison) bool {
			return has(c.expr, func(n parser.Node) bool {
				a, ok := n.(*parser.AggregateExpr)
				return ok && a.Op == parser.COUNT_VALUES
			})
		},
	},
	{
		name:   "matching without a partner",
		of:     []string{query.EngineThanos},
		reason: "promql-engine finds out that labels match many to many only where both sides have samples; its answer is that without them",
		explains: func(c *comparison) bool {
			return c.want.err != nil && c.got.err == nil && strings.Contains(c.want.err.Error(), "multiple matches for labels")
		},
	},
}

// linesIn tells whether an answer has a label value of several lines.
func linesIn(a answer) bool {
	return slices.ContainsFunc(a.series, func(s promql.Series) bool { return strings.Contains(s.Metric.String(), `\n`) })
}

// has tells whether a node of an expression is wanted.
func has(expr parser.Expr, want func(parser.Node) bool) (found bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		found = found || n != nil && want(n)
		return nil
	})
	return found
}

// calls tells whether an expression calls one of the functions.
func calls(expr parser.Expr, names ...string) bool {
	return has(expr, func(n parser.Node) bool {
		call, ok := n.(*parser.Call)
		return ok && slices.Contains(names, call.Func.Name)
	})
}

// fixed tells whether part of an expression is evaluated at a time of its own.
func fixed(expr parser.Expr) bool { return strings.Contains(expr.String(), " @ ") }

// selects tells whether an expression has a selector that a series matches.
func selects(expr parser.Expr, ls labels.Labels) bool {
	return has(expr, func(n parser.Node) bool {
		sel, ok := n.(*parser.VectorSelector)
		return ok && matches(sel, ls)
	})
}
