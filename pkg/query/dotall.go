package query

import (
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/thanos-io/promql-engine/logicalplan"
	enginequery "github.com/thanos-io/promql-engine/query"
)

// dotall is an optimiser of EngineThanos that lets a dot in the expressions of label_replace() match the ends of
// lines, as it does for Prometheus. What that engine compiles is the text in the plan.
type dotall struct{}

// Optimize implements logicalplan.Optimizer.
func (dotall) Optimize(plan logicalplan.Node, _ *enginequery.Options) (logicalplan.Node, annotations.Annotations) {
	const expression = 4 // label_replace(v, dst, replacement, src, expression)
	logicalplan.TraverseBottomUp(nil, &plan, func(_, current *logicalplan.Node) bool {
		if c, ok := (*current).(*logicalplan.FunctionCall); ok && c.Func.Name == "label_replace" && len(c.Args) > expression {
			if s, ok := bare(c.Args[expression]).(*logicalplan.StringLiteral); ok {
				c.Args[expression] = &logicalplan.StringLiteral{Val: "(?s:" + s.Val + ")"}
			}
		}
		return false
	})
	return plan, nil
}
