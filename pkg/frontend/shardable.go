package frontend

import (
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// shardLabels returns the labels by whose values an expression can be sharded, sorted; none if it can't.
//
// A shard is the series for which a hash of the values of a set of labels S, taken after replica labels are gone, has one
// value. An expression is local in S if
//
//	(1) its answer over all series is the disjoint union of its answers over the shards, errors included, and
//	(2) each series of the answer has the labels S of every series it is made of.
//
// Sharding is right for what is local in a set S that is not empty. What is local is known from the parts:
//
//   - A selector is local in every S without the name of the metric, which functions drop. What is merged as replicas
//     differs in replica labels only.
//   - A function of each series by itself keeps (1), and (2) since it keeps labels. Two series that become equal, which is
//     an error, had the same S, so one shard has both and fails too. Its other arguments must be numbers that are the same
//     in each shard: literals, time() and arithmetic of these, and not scalar(), which reads series.
//   - histogram_quantile and histogram_fraction put together series that differ in le: le must not be in S.
//   - label_replace and label_join change one label, which must not be in S.
//   - An aggregation by G puts together series with the same values of G: if S ⊆ G, they are in one shard, and the
//     group has the labels. One without G does so if S and G share nothing. count_values writes a label, which must not be
//     in S. topk, bottomk, limitk and limit_ratio choose by the order in which series come, the first two where values are
//     equal: what the order is within a shard is not known to be the same.
//   - A binary operator over two vectors, set operators among them, looks at the elements with the same matching labels: all
//     of on() or all but those of ignoring(). With S ⊆ on, or none of S in ignoring, these are in one shard, and what
//     comes out has them. But an operator that is no set operator fails where the side that must have one element for
//     each match has two, and that not where the other side is empty as a whole: as it may be in one shard, while it is
//     not in all. So such a side must be an aggregation whose groups differ in the matching labels.
//   - A binary operator of a vector and a number is a function of each series.
//   - What is the same in each shard is not local: numbers, vector(), the calendar without an argument; absent() is there
//     in every shard without a match; sort says an order that a union has not; info adds labels of other series.
//
// All conditions forbid labels or allow only some, so there is a largest S: what is allowed by all. If nothing limits it,
// as with a selector alone, there is no set that all series have, and nothing is gained.
func shardLabels(expr parser.Expr) []string {
	a := shardAnalysis{}
	if !a.local(expr) || !a.limited {
		return nil
	}
	var out []string
	for _, l := range a.allowed {
		if l != model.MetricNameLabel && !slices.Contains(a.forbidden, l) {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// shardAnalysis gathers what an expression says about S.
type shardAnalysis struct {
	limited            bool
	allowed, forbidden []string
}

func (a *shardAnalysis) allow(ls []string) {
	if !a.limited {
		a.limited, a.allowed = true, slices.Clone(ls)
		return
	}
	a.allowed = slices.DeleteFunc(a.allowed, func(l string) bool { return !slices.Contains(ls, l) })
}

func (a *shardAnalysis) forbid(ls ...string) { a.forbidden = append(a.forbidden, ls...) }

// local tells whether an expression is local in every S that is allowed and not forbidden.
func (a *shardAnalysis) local(expr parser.Expr) bool {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return a.local(e.Expr)
	case *parser.VectorSelector:
		return true
	case *parser.MatrixSelector:
		return a.local(e.VectorSelector)
	case *parser.SubqueryExpr:
		return a.local(e.Expr)
	case *parser.UnaryExpr:
		return a.local(e.Expr)
	case *parser.AggregateExpr:
		return a.localAggregate(e)
	case *parser.BinaryExpr:
		return a.localBinary(e)
	case *parser.Call:
		return a.localCall(e)
	}
	return false
}

func (a *shardAnalysis) localAggregate(e *parser.AggregateExpr) bool {
	switch e.Op {
	case parser.SUM, parser.MIN, parser.MAX, parser.COUNT, parser.AVG, parser.GROUP, parser.STDDEV, parser.STDVAR:
	case parser.QUANTILE:
		if !sameNumber(e.Param) {
			return false
		}
	case parser.COUNT_VALUES:
		name, ok := unwrapped(e.Param).(*parser.StringLiteral)
		if !ok {
			return false
		}
		a.forbid(name.Val)
	default:
		return false
	}
	if e.Without {
		a.forbid(e.Grouping...)
	} else {
		a.allow(e.Grouping)
	}
	return a.local(e.Expr)
}

func (a *shardAnalysis) localBinary(e *parser.BinaryExpr) bool {
	left, right := e.LHS.Type() == parser.ValueTypeVector, e.RHS.Type() == parser.ValueTypeVector
	switch {
	case left && right && e.VectorMatching != nil:
		if e.VectorMatching.On {
			a.allow(e.VectorMatching.MatchingLabels)
		} else {
			a.forbid(e.VectorMatching.MatchingLabels...)
		}
		if !e.Op.IsSetOperator() && !oneEach(e) {
			return false
		}
		return a.local(e.LHS) && a.local(e.RHS)
	case left:
		return a.local(e.LHS) && sameNumber(e.RHS)
	case right:
		return sameNumber(e.LHS) && a.local(e.RHS)
	}
	return false
}

// oneEach tells whether the sides of a binary operator that must have one element for each match can have no more.
func oneEach(e *parser.BinaryExpr) bool {
	m := e.VectorMatching
	left, right := differing(e.LHS, m), differing(e.RHS, m)
	switch m.Card {
	case parser.CardOneToOne:
		return left && right
	case parser.CardManyToOne:
		return right
	case parser.CardOneToMany:
		return left
	}
	return false
}

// differing tells whether all elements of a vector differ in the matching labels.
func differing(expr parser.Expr, m *parser.VectorMatching) bool {
	switch e := unwrapped(expr).(type) {
	case *parser.AggregateExpr:
		if e.Without || e.Op == parser.COUNT_VALUES {
			return false
		}
		for _, l := range e.Grouping {
			if slices.Contains(m.MatchingLabels, l) != m.On {
				return false
			}
		}
		return true
	case *parser.BinaryExpr:
		if e.RHS.Type() == parser.ValueTypeScalar {
			return differing(e.LHS, m)
		}
		return e.LHS.Type() == parser.ValueTypeScalar && differing(e.RHS, m)
	}
	return false
}

// ofEach are the functions that look at each series by itself. Any number of their other arguments are numbers.
var ofEach = func() map[string]bool {
	m := map[string]bool{}
	for _, f := range []string{
		"abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "avg_over_time", "ceil", "changes", "clamp", "clamp_max", "clamp_min",
		"cos", "cosh", "count_over_time", "days_in_month", "day_of_month", "day_of_week", "day_of_year", "deg", "delta", "deriv", "exp",
		"first_over_time", "floor", "histogram_avg", "histogram_count", "histogram_sum", "histogram_stddev", "histogram_stdvar",
		"double_exponential_smoothing", "hour", "idelta", "increase", "irate", "last_over_time", "ln", "log10", "log2", "mad_over_time",
		"max_over_time", "min_over_time", "ts_of_first_over_time", "ts_of_max_over_time", "ts_of_min_over_time", "ts_of_last_over_time",
		"minute", "month", "predict_linear", "present_over_time", "quantile_over_time", "rad", "rate", "resets", "round", "sgn", "sin",
		"sinh", "sqrt", "stddev_over_time", "stdvar_over_time", "sum_over_time", "tan", "tanh", "timestamp", "year", "xrate", "xincrease", "xdelta",
	} {
		m[f] = true
	}
	return m
}()

func (a *shardAnalysis) localCall(c *parser.Call) bool {
	switch name := c.Func.Name; {
	case name == "histogram_quantile", name == "histogram_fraction":
		a.forbid(model.BucketLabel)
	case name == "label_replace", name == "label_join":
		dst, ok := unwrapped(c.Args[1]).(*parser.StringLiteral)
		if !ok {
			return false
		}
		a.forbid(dst.Val)
	case !ofEach[name]:
		return false
	}
	series := 0
	for _, arg := range c.Args {
		switch arg.Type() {
		case parser.ValueTypeVector, parser.ValueTypeMatrix:
			if series++; series > 1 || !a.local(arg) {
				return false
			}
		case parser.ValueTypeScalar:
			if !sameNumber(arg) {
				return false
			}
		}
	}
	return series == 1 // the calendar without an argument is the same in each shard
}

// sameNumber tells whether an expression is a number that is the same whatever series there are.
func sameNumber(expr parser.Expr) bool {
	switch e := expr.(type) {
	case *parser.NumberLiteral:
		return true
	case *parser.ParenExpr:
		return sameNumber(e.Expr)
	case *parser.UnaryExpr:
		return sameNumber(e.Expr)
	case *parser.BinaryExpr:
		return sameNumber(e.LHS) && sameNumber(e.RHS)
	case *parser.Call:
		return e.Func.Name == "time" || e.Func.Name == "pi"
	}
	return false
}

func unwrapped(expr parser.Expr) parser.Expr {
	for {
		p, ok := expr.(*parser.ParenExpr)
		if !ok {
			return expr
		}
		expr = p.Expr
	}
}
