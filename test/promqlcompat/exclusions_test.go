package promqlcompat

import (
	"slices"
	"strings"

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
		name:   "matching without a partner",
		of:     []string{query.EngineThanos},
		reason: "below an aggregation or an operator it goes unnoticed that promql-engine matched many to many, which Prometheus refuses",
		issue:  "https://github.com/thanos-io/promql-engine/issues/32",
		explains: func(c *comparison) bool {
			return c.want.err != nil && c.got.err == nil && strings.Contains(c.want.err.Error(), "multiple matches for labels")
		},
	},
}

// unordered is why an answer is excluded that Prometheus itself gives another way when its storage hands out series in
// another order (see undetermined): topk() and bottomk() take the first of equal values, and sums are rounded in order.
var unordered = exclusion{
	name:   "the order of series",
	reason: "Prometheus's own answer changes with the order in which storage hands out series",
	issue:  "https://github.com/prometheus/prometheus/issues/15908, https://github.com/prometheus/prometheus/pull/7757",
}

// fixed tells whether part of an expression is evaluated at a time of its own.
func fixed(expr parser.Expr) bool { return strings.Contains(expr.String(), " @ ") }
