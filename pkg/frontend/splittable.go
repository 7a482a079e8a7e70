package frontend

import (
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// splittable tells whether the answer over a range is made up of those over its parts, errors included.
//
// A step's values depend on that step alone. What depends on the range is an error: where labels are taken off or
// changed, PromQL refuses series that become equal, also when they never have samples at the same step.
// `rate({__name__=~"a|b"}[5m])` fails over a day in which a ends before b begins, and over each half of the day
// does not. So an expression is split only where no such pair can be: where each selector below a function that drops
// the name names one metric, and labels are only written where they were not.
func splittable(expr parser.Expr) bool {
	ok := true
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.Call:
			ok = ok && callSplits(n)
		case *parser.UnaryExpr:
			ok = ok && oneMetric(n.Expr)
		case *parser.AggregateExpr:
			ok = ok && paramSplits(n)
		case *parser.StepInvariantExpr:
			ok = false // nobody sends it, and what is in it is not looked at
		}
		return nil
	})
	return ok
}

// paramSplits tells whether an aggregation is evaluated at each step. PromQL evaluates one over what is the same at each
// step, as with @, only at the first, whatever its parameter does: `quantile(scalar(a), b @ 0)` depends on where the
// range begins.
func paramSplits(e *parser.AggregateExpr) bool {
	param := e.Param
	for {
		p, ok := param.(*parser.ParenExpr)
		if !ok {
			break
		}
		param = p.Expr
	}
	switch param.(type) {
	case nil, *parser.NumberLiteral, *parser.StringLiteral:
		return true
	}
	selectors, fixed := 0, false
	parser.Inspect(e.Expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			selectors++
			fixed = fixed || n.Timestamp != nil || n.StartOrEnd != 0
		case *parser.SubqueryExpr:
			fixed = fixed || n.Timestamp != nil || n.StartOrEnd != 0
		}
		return nil
	})
	return selectors > 0 && !fixed
}

// keepName are the functions of ranges and of single samples that keep the name of the metric.
var keepName = map[string]bool{"last_over_time": true, "first_over_time": true, "sort": true, "sort_desc": true, "sort_by_label": true, "sort_by_label_desc": true, "timestamp": false}

func callSplits(c *parser.Call) bool {
	switch c.Func.Name {
	case "label_replace", "label_join":
		dst, ok := c.Args[1].(*parser.StringLiteral)
		return ok && without(c.Args[0], dst.Val)
	case "info":
		return false // it adds labels of other series, which come and go
	}
	if keepName[c.Func.Name] {
		return true
	}
	for _, a := range c.Args {
		if t := a.Type(); (t == parser.ValueTypeMatrix || t == parser.ValueTypeVector) && !oneMetric(a) {
			return false
		}
	}
	return true
}

// without tells whether no series of an expression can have a label.
func without(expr parser.Expr, label string) bool {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return without(e.Expr, label)
	case *parser.AggregateExpr:
		if e.Op == parser.TOPK || e.Op == parser.BOTTOMK || e.Op == parser.LIMITK || e.Op == parser.LIMIT_RATIO || e.Op == parser.COUNT_VALUES {
			return false
		}
		for _, l := range e.Grouping {
			if l == label {
				return e.Without
			}
		}
		return !e.Without
	}
	return false
}

// oneMetric tells whether all series of an expression that still have a name have the same.
func oneMetric(expr parser.Expr) bool {
	switch e := expr.(type) {
	case *parser.ParenExpr:
		return oneMetric(e.Expr)
	case *parser.MatrixSelector:
		return oneMetric(e.VectorSelector)
	case *parser.SubqueryExpr:
		return oneMetric(e.Expr)
	case *parser.VectorSelector:
		for _, m := range e.LabelMatchers {
			if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != "" {
				return true
			}
		}
		return false
	case *parser.AggregateExpr:
		if e.Op == parser.TOPK || e.Op == parser.BOTTOMK || e.Op == parser.LIMITK || e.Op == parser.LIMIT_RATIO {
			return oneMetric(e.Expr)
		}
		for _, l := range e.Grouping {
			if l == model.MetricNameLabel && !e.Without {
				return oneMetric(e.Expr)
			}
		}
		return true // the name is gone
	case *parser.Call:
		switch e.Func.Name {
		case "label_replace", "label_join":
			return false // they may write names
		}
		if !keepName[e.Func.Name] {
			return true
		}
		for _, a := range e.Args {
			if t := a.Type(); (t == parser.ValueTypeMatrix || t == parser.ValueTypeVector) && !oneMetric(a) {
				return false
			}
		}
		return true
	case *parser.UnaryExpr:
		return true
	case *parser.BinaryExpr:
		// Set operators and comparisons hand names on.
		return oneMetric(e.LHS) && oneMetric(e.RHS) && !twoNames(e)
	}
	return true // scalars, strings
}

// twoNames tells whether a set operator may bring together metrics of two names.
func twoNames(e *parser.BinaryExpr) bool { return e.Op == parser.LOR }
