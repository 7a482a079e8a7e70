package query

import (
	"math"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/thanos-io/promql-engine/logicalplan"

	"github.com/koios-metrics/koios/pkg/column"
)

// pointwise is an operation on each value of a series by itself: an operator with a number on one side.
type pointwise struct {
	apply func(v float64) (float64, bool)
	// dropsName is true of all that are more than a choice of values.
	dropsName bool
}

// withoutPointwise takes such operations off a node. They come in the order in which they are applied.
func withoutPointwise(n logicalplan.Node) (inner logicalplan.Node, ops []pointwise) {
	e, ok := bare(n).(*logicalplan.Binary)
	if !ok {
		return bare(n), nil
	}
	if number, ok := bare(e.RHS).(*logicalplan.NumberLiteral); ok {
		if op, ok := newPointwise(e.Op, e.ReturnBool, func(v float64) (l, r float64) { return v, number.Val }); ok {
			inner, ops = withoutPointwise(e.LHS)
			return inner, append(ops, op)
		}
	} else if number, ok := bare(e.LHS).(*logicalplan.NumberLiteral); ok {
		if op, ok := newPointwise(e.Op, e.ReturnBool, func(v float64) (l, r float64) { return number.Val, v }); ok {
			inner, ops = withoutPointwise(e.RHS)
			return inner, append(ops, op)
		}
	}
	return bare(n), nil
}

// newPointwise makes an operation of an operator; sides puts a value beside the number.
func newPointwise(op parser.ItemType, asBool bool, sides func(v float64) (l, r float64)) (pointwise, bool) {
	if calculate := arithmetic(op); calculate != nil {
		return pointwise{dropsName: true, apply: func(v float64) (float64, bool) {
			l, r := sides(v)
			return calculate(l, r), true
		}}, true
	}
	holds := comparison(op)
	switch {
	case holds == nil:
		return pointwise{}, false
	case asBool:
		return pointwise{dropsName: true, apply: func(v float64) (float64, bool) {
			if holds(sides(v)) {
				return 1, true
			}
			return 0, true
		}}, true
	}
	return pointwise{apply: func(v float64) (float64, bool) { return v, holds(sides(v)) }}, true
}

func arithmetic(op parser.ItemType) func(l, r float64) float64 {
	switch op {
	case parser.ADD:
		return func(l, r float64) float64 { return l + r }
	case parser.SUB:
		return func(l, r float64) float64 { return l - r }
	case parser.MUL:
		return func(l, r float64) float64 { return l * r }
	case parser.DIV:
		return func(l, r float64) float64 { return l / r }
	case parser.MOD:
		return math.Mod
	case parser.POW:
		return math.Pow
	case parser.ATAN2:
		return math.Atan2
	}
	return nil
}

func comparison(op parser.ItemType) func(l, r float64) bool {
	switch op {
	case parser.EQLC:
		return func(l, r float64) bool { return l == r }
	case parser.NEQ:
		return func(l, r float64) bool { return l != r }
	case parser.GTR:
		return func(l, r float64) bool { return l > r }
	case parser.LSS:
		return func(l, r float64) bool { return l < r }
	case parser.GTE:
		return func(l, r float64) bool { return l >= r }
	case parser.LTE:
		return func(l, r float64) bool { return l <= r }
	}
	return nil
}

// keepsName tells whether the series that are aggregated have their metric names.
func (s *scan) keepsName() bool {
	for i := range s.then {
		if s.then[i].dropsName {
			return false
		}
	}
	return s.function.KeepsName()
}

// applyAll applies operations to a column, one after the other.
func applyAll(ops []pointwise, c *column.Column) {
	for i := range ops {
		c.Apply(ops[i].apply)
	}
}
