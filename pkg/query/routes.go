package query

import (
	"context"
	"errors"
	"math"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/thanos-io/promql-engine/execution/parse"

	"github.com/koios-metrics/koios/pkg/store"
)

// route is a kind of query that EngineThanos is known to answer otherwise than Prometheus does. EnginePrometheus
// evaluates it instead. A test holds that each row is still needed.
type route struct {
	// name is the value of the metric's label "reason".
	name string
	// reason says what is wrong, issue where upstream talks about it; empty is nowhere that we know.
	reason, issue string
	// wants tells whether a node of an expression makes the query one of this kind. It is nil where that shows
	// only when the data is there.
	wants func(parser.Node) bool
}

// String is the route as explanations show it.
func (r *route) String() string {
	s := r.name + ": " + r.reason
	if r.issue != "" {
		s += " (" + r.issue + ")"
	}
	return s
}

var (
	routeSelectors = route{
		name:   "anchored_or_smoothed",
		reason: "promql-engine does not know these modifiers of selectors, and evaluates as if they were not there",
		issue:  "https://github.com/thanos-io/promql-engine/issues/630",
		wants: func(n parser.Node) bool {
			v, ok := n.(*parser.VectorSelector)
			return ok && (v.Anchored || v.Smoothed)
		},
	}
	routeTimestamp = route{
		name:   "timestamp_of_expression",
		reason: "timestamp() of promql-engine over anything but a selector drops the parts of a second of the time of evaluation",
		wants: func(n parser.Node) bool {
			c, ok := n.(*parser.Call)
			return ok && c.Func.Name == "timestamp" && !isSelector(c.Args[0])
		},
	}
	routePrediction = route{
		name:   "prediction_at_fixed_time",
		reason: "predict_linear() of promql-engine over a range at a fixed time answers some steps only",
		issue:  "https://github.com/thanos-io/promql-engine/pull/527",
		wants: func(n parser.Node) bool {
			c, ok := n.(*parser.Call)
			return ok && c.Func.Name == "predict_linear" && contains(c.Args[0], isFixed)
		},
	}
	routeQuantile = route{
		name:   "quantile_out_of_range",
		reason: "histogram_quantile() of promql-engine answers NaN for quantiles below 0 or above 1 where buckets are missing, Prometheus's an infinity",
		wants: func(n parser.Node) bool {
			c, ok := n.(*parser.Call)
			return ok && c.Func.Name == "histogram_quantile" && !isShare(c.Args[0])
		},
	}
	routeCountValues = route{
		name:   "count_values_of_expression",
		reason: "promql-engine may round the last digit of a value in another way, and count_values() makes labels of all digits",
		issue:  "https://github.com/thanos-io/promql-engine/pull/697",
		wants: func(n parser.Node) bool {
			a, ok := n.(*parser.AggregateExpr)
			return ok && a.Op == parser.COUNT_VALUES && !isSelector(a.Expr)
		},
	}
	routeHistograms = route{
		name:   "native_histograms",
		reason: "operators and functions of promql-engine lose native histograms, keep those that Prometheus drops, or take them for zeros",
		issue:  "https://github.com/thanos-io/promql-engine/issues/599",
	}
	routeTwice = route{
		name:   "two_values_at_a_time",
		reason: "promql-engine does not notice that labels match many to many, and gives a series several values at a time",
		issue:  "https://github.com/thanos-io/promql-engine/issues/32",
		wants: func(n parser.Node) bool {
			b, ok := n.(*parser.BinaryExpr)
			if !ok || b.VectorMatching == nil || b.Op.IsComparisonOperator() && !b.ReturnBool {
				return false
			}
			switch b.VectorMatching.Card {
			case parser.CardManyToOne:
				return severalNames(b.LHS)
			case parser.CardOneToMany:
				return severalNames(b.RHS)
			}
			return false
		},
	}
	routeError = route{
		name:   "error",
		reason: "promql-engine refused the data; it also does that where series get equal labels without ever having samples at the same time",
		issue:  "https://github.com/thanos-io/promql-engine/pull/402",
	}
	routeUnsupported = route{
		name:   "unsupported",
		reason: "promql-engine does not have what the query needs",
	}
	routeSubqueryStats = route{
		name:   "subquery_statistics",
		reason: "operators of promql-engine below a subquery may run on for a moment when the answer is there, and count while the counts are read",
	}
)

// routes are all of them, in the order in which they are looked at.
func routes() []*route {
	return []*route{&routeSelectors, &routeTimestamp, &routePrediction, &routeQuantile, &routeCountValues, &routeHistograms, &routeTwice, &routeError, &routeUnsupported, &routeSubqueryStats}
}

// routed returns why EngineThanos shall not evaluate an expression, nil if nothing speaks against it. Functions
// that EnginePrometheus lacks leave no choice.
func (e *engines) routed(expr parser.Expr, notes *selectorNotes) *route {
	if contains(expr, func(n parser.Node) bool {
		c, ok := n.(*parser.Call)
		return ok && parse.IsExtFunction(c.Func.Name)
	}) {
		return nil
	}
	for _, r := range routes() {
		if r.wants != nil && contains(expr, r.wants) {
			return r
		}
	}
	if e.selectsNoted(expr, notes) {
		return &routeHistograms
	}
	return nil
}

// selectsNoted tells whether a selector is noted to select native histograms, which matters unless they are only
// counted where they are streamed.
func (e *engines) selectsNoted(expr parser.Expr, notes *selectorNotes) (found bool) {
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok || found {
			return nil
		}
		for i := len(path) - 1; i >= 0; i-- {
			if _, ok := path[i].(*parser.ParenExpr); ok {
				continue
			}
			a, ok := path[i].(*parser.AggregateExpr)
			if ok && e.stream && (a.Op == parser.COUNT || a.Op == parser.GROUP) {
				return nil
			}
			break
		}
		found = notes.has(v.LabelMatchers)
		return nil
	})
	return found
}

// errHistograms ends a query of promql-engine that comes upon native histograms.
var errHistograms = errors.New("there are native histograms")

// doubted returns why an answer of promql-engine is not to be trusted, nil if it is.
func doubted(ctx context.Context, res *promql.Result) *route {
	switch err := res.Err; {
	case errors.Is(err, errHistograms):
		return &routeHistograms
	case err == nil && twice(res.Value):
		return &routeTwice
	case err != nil && ctx.Err() == nil && !isFailure(err):
		return &routeError
	}
	return nil
}

// isFailure tells whether an error is none of the evaluation itself, but of reading, of time or of a limit, so
// that another engine would not do better.
func isFailure(err error) bool {
	var (
		failed  *store.Error
		gap     *store.Gap
		samples promql.ErrTooManySamples
		timeout promql.ErrQueryTimeout
		ended   promql.ErrQueryCanceled
		storage promql.ErrStorage
	)
	return errors.As(err, &failed) || errors.As(err, &gap) || errors.As(err, &samples) || errors.As(err, &timeout) ||
		errors.As(err, &ended) || errors.As(err, &storage) || errors.Is(err, errNotStreamed) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// twice tells whether a series of a matrix has two values at a time.
func twice(v parser.Value) bool {
	m, _ := v.(promql.Matrix)
	for i := range m {
		fs, hs := m[i].Floats, m[i].Histograms
		for j := 1; j < len(fs); j++ {
			if fs[j].T <= fs[j-1].T {
				return true
			}
		}
		for j := 1; j < len(hs); j++ {
			if hs[j].T <= hs[j-1].T {
				return true
			}
		}
	}
	return false
}

// contains tells whether a node of an expression is wanted.
func contains(expr parser.Expr, wants func(parser.Node) bool) (found bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		found = found || n != nil && wants(n)
		return nil
	})
	return found
}

func isSelector(e parser.Expr) bool {
	_, ok := withoutParens(e).(*parser.VectorSelector)
	return ok
}

// isShare tells whether an expression is a number from 0 to 1.
func isShare(e parser.Expr) bool {
	n, ok := withoutParens(e).(*parser.NumberLiteral)
	return ok && n.Val >= 0 && n.Val <= 1 && !math.IsNaN(n.Val)
}

// isFixed tells whether a node has a time of its own.
func isFixed(n parser.Node) bool {
	switch n := n.(type) {
	case *parser.VectorSelector:
		return n.Timestamp != nil || n.StartOrEnd != 0
	case *parser.SubqueryExpr:
		return n.Timestamp != nil || n.StartOrEnd != 0
	}
	return false
}

func withoutParens(e parser.Expr) parser.Expr {
	for {
		p, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = p.Expr
	}
}
