package query

import (
	"context"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/thanos-io/promql-engine/execution/model"
	"github.com/thanos-io/promql-engine/execution/telemetry"
	"github.com/thanos-io/promql-engine/logicalplan"
	enginequery "github.com/thanos-io/promql-engine/query"

	"github.com/koios-metrics/koios/pkg/column"
)

// streaming is an optimiser of EngineThanos for one request. Where a query aggregates a selector, or a range
// function of one, or such values compared or combined with a number, it puts a node that drains the Store's cursor series by series, so that memory
// holds the groups and a few series instead of all series.
//
// It goes before the optimisers of the engine: those let selectors share what they fetch, and a selector
// that is streamed shares nothing.
type streaming struct{ q *Queryable }

// Optimize implements logicalplan.Optimizer.
func (s streaming) Optimize(plan logicalplan.Node, _ *enginequery.Options) (logicalplan.Node, annotations.Annotations) {
	logicalplan.TraverseBottomUp(nil, &plan, func(_, current *logicalplan.Node) bool {
		if a, ok := (*current).(*logicalplan.Aggregation); ok {
			if n := s.node(a); n != nil {
				*current = n
			}
		}
		return false
	})
	return plan, nil
}

// node is the streamed form of an aggregation, nil if it has none.
func (s streaming) node(a *logicalplan.Aggregation) *streamed {
	op, ok := column.ParseOp(a.Op.String())
	if !ok || a.Param != nil {
		return nil
	}
	n := &streamed{original: a, q: s.q, op: op, function: column.Latest}
	var operand logicalplan.Node
	operand, n.then = withoutPointwise(a.Expr)
	switch e := operand.(type) {
	case *logicalplan.VectorSelector:
		n.selector = e
	case *logicalplan.FunctionCall:
		if len(e.Args) != 1 {
			return nil
		}
		m, ok := bare(e.Args[0]).(*logicalplan.MatrixSelector)
		if !ok {
			return nil
		}
		if n.function, ok = column.Range(e.Func.Name); !ok {
			return nil
		}
		n.selector, n.matrix = m.VectorSelector, m
	default:
		return nil
	}
	if v := n.selector; v.SelectTimestamp || v.Anchored || v.Smoothed || s.q.q.unstreamed.has(n.matchers()) {
		return nil
	}
	if !asksPresence(n.function, n.then, op) && s.q.q.histograms.has(n.matchers()) {
		return nil
	}
	return n
}

func bare(n logicalplan.Node) logicalplan.Node {
	for {
		p, ok := n.(*logicalplan.Parens)
		if !ok {
			return n
		}
		n = p.Expr
	}
}

// streamed is the node of an aggregation that is evaluated by a scan.
type streamed struct {
	logicalplan.LeafNode
	original *logicalplan.Aggregation
	q        *Queryable

	op       column.Op
	function column.Function
	then     []pointwise
	selector *logicalplan.VectorSelector
	matrix   *logicalplan.MatrixSelector // nil when the function is column.Latest
}

// Clone implements logicalplan.Node.
func (n *streamed) Clone() logicalplan.Node {
	c := *n
	c.original = n.original.Clone().(*logicalplan.Aggregation)
	c.selector = n.selector.Clone().(*logicalplan.VectorSelector)
	return &c
}

// String implements logicalplan.Node.
func (n *streamed) String() string { return n.original.String() }

// Type implements logicalplan.Node.
func (n *streamed) Type() logicalplan.NodeType { return n.original.Type() }

// ReturnType implements logicalplan.Node.
func (n *streamed) ReturnType() parser.ValueType { return n.original.ReturnType() }

// matchers are all that the series must match.
func (n *streamed) matchers() []*labels.Matcher {
	return append(slices.Clip(n.selector.LabelMatchers), n.selector.Filters...)
}

// MakeExecutionOperator implements logicalplan.UserDefinedExpr. The hints say what goes on around the
// aggregation, which nobody below it needs.
func (n *streamed) MakeExecutionOperator(_ context.Context, opts *enginequery.Options, _ storage.SelectHints) (model.VectorOperator, error) {
	v := n.selector
	steps := column.Steps{First: opts.Start.UnixMilli() - v.Offset.Milliseconds(), Step: opts.Step.Milliseconds(), N: opts.TotalSteps()}
	from, to := opts.Start.UnixMilli(), opts.End.UnixMilli()
	if v.Timestamp != nil {
		from, to = *v.Timestamp, *v.Timestamp
		steps.First, steps.Step = from-v.OriginalOffset.Milliseconds(), 0
	}
	span := opts.LookbackDelta
	hints := &storage.SelectHints{Step: opts.Step.Milliseconds()}
	switch {
	case n.matrix == nil && len(n.then) > 0: // The aggregation is not one of what is selected.
	case n.matrix == nil:
		hints.Func, hints.Grouping, hints.By = n.original.Op.String(), n.original.Grouping, !n.original.Without
	default:
		span = n.matrix.Range
		hints.Func, hints.Range = n.function.Name, span.Milliseconds()
	}
	offset := v.OriginalOffset.Milliseconds()
	hints.Start, hints.End = from-offset-(span.Milliseconds()-1), to-offset
	if v.Projection != nil {
		hints.ProjectionLabels, hints.ProjectionInclude = v.Projection.Labels, v.Projection.Include
	}
	o := &streamOperator{
		opts: opts,
		scan: &scan{
			q:        n.q,
			hints:    hints,
			matchers: n.matchers(),
			function: n.function,
			then:     n.then,
			steps:    steps,
			span:     span,
			op:       n.op,
			by:       newGrouping(n.original.Grouping, n.original.Without),
			position: posrange.PositionRange{Start: v.PosRange.Start, End: v.PosRange.End},
			tracker:  opts.SampleTracker,
		},
		name: fmt.Sprintf("[streamedAggregate] %s", n.original),
	}
	// The samples are counted where they are read.
	o.source, o.telemetry = newSource(fmt.Sprintf("[scan] %s", n.original.Expr), opts)
	return telemetry.NewOperator(telemetry.NewTelemetry(o, opts), o), nil
}
