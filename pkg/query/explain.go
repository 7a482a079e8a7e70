package query

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/thanos-io/promql-engine/engine"

	"github.com/koios-metrics/koios/pkg/store"
)

// Analysis is where a query spent its time: an operator and those that fed it.
type Analysis struct {
	Name          string        `json:"name,omitempty"`
	ExecutionTime time.Duration `json:"-"`
	Duration      string        `json:"executionTime,omitempty"`
	PeakSamples   int64         `json:"peakSamples,omitempty"`
	TotalSamples  int64         `json:"totalSamples,omitempty"`
	Children      []Analysis    `json:"children,omitempty"`
}

// analyze reads the measurements of a query that was run by the engine of the name.
func analyze(q promql.Query, name string) (*Analysis, error) {
	e, ok := q.(engine.ExplainableQuery)
	if !ok {
		return nil, fmt.Errorf("the query ran on engine %s, only engine %s measures its operators", name, EngineThanos)
	}
	node := e.Analyze()
	if node == nil {
		return &Analysis{}, nil
	}
	a := analysisOf(node)
	return &a, nil
}

func analysisOf(n *engine.AnalyzeOutputNode) Analysis {
	a := Analysis{
		Name:          n.OperatorTelemetry.String(),
		ExecutionTime: n.OperatorTelemetry.ExecutionTimeTaken(),
		PeakSamples:   n.PeakSamples(),
		TotalSamples:  n.TotalSamples(),
	}
	a.Duration = a.ExecutionTime.String()
	for _, c := range n.Children {
		a.Children = append(a.Children, analysisOf(c))
	}
	return a
}

// Plan is the tree of operators that would evaluate a query.
type Plan = engine.ExplainOutputNode

// Explain tells how a query would be evaluated, without doing it. What EnginePrometheus evaluates because
// EngineThanos is known to be wrong about it is a single operator that says so.
func (q *Querier) Explain(ctx context.Context, req Request) (*Plan, error) {
	if name := q.engines.named(req.Engine); name != EngineThanos {
		return nil, store.Errorf(store.KindBadRequest, "explain with engine %s: only engine %s can", name, EngineThanos)
	}
	ev, err := q.engines.prepare(ctx, q.Queryable(req.Options), &req, q.lookback(&req))
	if err != nil {
		return nil, err
	}
	defer ev.close()
	if ev.why != nil {
		return &Plan{OperatorName: fmt.Sprintf("[%s] %s", ev.engine, ev.why)}, nil
	}
	e, ok := ev.query.(engine.ExplainableQuery)
	if !ok {
		return nil, store.Errorf(store.KindBadRequest, "explain: engine %s does not evaluate this query", EngineThanos)
	}
	return e.Explain(), nil
}

// Parse parses a PromQL expression with the functions that the configuration offers.
func (q *Querier) Parse(expr string) (parser.Expr, error) { return q.engines.parse(expr) }
