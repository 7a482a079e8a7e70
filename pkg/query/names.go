package query

import (
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// severalNames tells whether series of an expression may differ in nothing but their metric names.
func severalNames(e parser.Expr) bool {
	switch e := withoutParens(e).(type) {
	case *parser.VectorSelector:
		return !slices.ContainsFunc(e.LabelMatchers, func(m *labels.Matcher) bool {
			return m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual
		})
	case *parser.MatrixSelector:
		return severalNames(e.VectorSelector)
	case *parser.SubqueryExpr:
		return severalNames(e.Expr)
	case *parser.StepInvariantExpr:
		return severalNames(e.Expr)
	case *parser.BinaryExpr:
		if e.Op == parser.LOR {
			return named(e.LHS) || named(e.RHS)
		}
		return named(e) && (severalNames(e.LHS) || severalNames(e.RHS))
	case *parser.AggregateExpr:
		if named(e) && !keepsSeries(e.Op) {
			return true // by (__name__)
		}
		return named(e) && severalNames(e.Expr)
	case *parser.Call:
		return named(e) && (setsName(e) || slices.ContainsFunc(e.Args, severalNames))
	}
	return false
}

// named tells whether the series of an expression may have metric names.
func named(e parser.Expr) bool {
	switch e := withoutParens(e).(type) {
	case *parser.VectorSelector, *parser.MatrixSelector:
		return true
	case *parser.SubqueryExpr:
		return named(e.Expr)
	case *parser.StepInvariantExpr:
		return named(e.Expr)
	case *parser.BinaryExpr:
		return (e.Op.IsSetOperator() || e.Op.IsComparisonOperator() && !e.ReturnBool) && (named(e.LHS) || named(e.RHS))
	case *parser.AggregateExpr:
		return keepsSeries(e.Op) && named(e.Expr) || !e.Without && slices.Contains(e.Grouping, model.MetricNameLabel)
	case *parser.Call:
		switch e.Func.Name {
		case "label_replace", "label_join", "sort", "sort_desc", "sort_by_label", "sort_by_label_desc", "last_over_time", "first_over_time", "info":
			return setsName(e) || slices.ContainsFunc(e.Args, named)
		}
	}
	return false
}

// keepsSeries tells whether an aggregation chooses among series instead of adding them up.
func keepsSeries(op parser.ItemType) bool {
	return op == parser.TOPK || op == parser.BOTTOMK || op == parser.LIMITK || op == parser.LIMIT_RATIO
}

// setsName tells whether a call makes metric names of labels.
func setsName(c *parser.Call) bool {
	if c.Func.Name != "label_replace" && c.Func.Name != "label_join" {
		return false
	}
	to, ok := c.Args[1].(*parser.StringLiteral)
	return !ok || to.Val == model.MetricNameLabel
}
