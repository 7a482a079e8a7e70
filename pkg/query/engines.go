package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/thanos-io/promql-engine/engine"
	"github.com/thanos-io/promql-engine/logicalplan"

	"github.com/koios-metrics/koios/pkg/logging"
	"github.com/koios-metrics/koios/pkg/store"
)

// engines are the evaluators that a request can choose from.
type engines struct {
	prom     promql.QueryEngine
	thanos   *engine.Engine
	standard string
	fallback bool
	stream   bool
	active   *promql.ActiveQueryTracker
}

func newEngines(cfg Config, logger log.Logger, reg prometheus.Registerer) (*engines, error) {
	slogger := logging.Slog(logger)
	active, err := openActiveQueries(cfg, slogger)
	if err != nil {
		return nil, err
	}
	opts := func(name string) promql.EngineOpts {
		o := promql.EngineOpts{
			Logger:     slogger,
			MaxSamples: cfg.MaxSamples,
			Timeout:    cfg.Timeout,
			NoStepSubqueryIntervalFn: func(int64) int64 {
				return cfg.DefaultEvaluationInterval.Milliseconds()
			},
			LookbackDelta:        cfg.LookbackDelta,
			EnableAtModifier:     true,
			EnableNegativeOffset: true,
			EnablePerStepStats:   true,
		}
		if reg != nil {
			o.Reg = prometheus.WrapRegistererWith(prometheus.Labels{"engine": name, "mode": cfg.EnginesMode}, reg)
		}
		if active != nil {
			o.ActiveQueryTracker = active
		}
		return o
	}
	prom, thanos := opts(EnginePrometheus), opts(EngineThanos)
	if prom.MaxSamples == 0 {
		prom.MaxSamples = math.MaxInt32 // That engine takes 0 for none allowed.
	}
	return &engines{
		prom:     promql.NewEngine(prom),
		thanos:   engine.New(engine.Opts{EngineOpts: thanos, EnableXFunctions: cfg.EnableXFunctions, EnableAnalysis: true}),
		standard: cfg.Engine,
		fallback: !cfg.DisableFallback,
		stream:   !cfg.DisableStreaming,
		active:   active,
	}, nil
}

// openActiveQueries opens the log of running queries, nil if there is to be none.
func openActiveQueries(cfg Config, logger *slog.Logger) (t *promql.ActiveQueryTracker, err error) {
	if cfg.ActiveQueryPath == "" {
		return nil, nil
	}
	if err := os.MkdirAll(cfg.ActiveQueryPath, 0o777); err != nil {
		return nil, fmt.Errorf("open log of active queries: %w", err)
	}
	defer func() {
		if p := recover(); p != nil { // The library panics when it can't write.
			t, err = nil, fmt.Errorf("open log of active queries in %s: %v", cfg.ActiveQueryPath, p)
		}
	}()
	return promql.NewActiveQueryTracker(cfg.ActiveQueryPath, max(cfg.MaxConcurrent, 1), logger), nil
}

func (e *engines) close() error {
	if e.active == nil {
		return nil
	}
	return e.active.Close()
}

// named resolves the name in a request; empty is the configured engine.
func (e *engines) named(name string) string {
	if name == "" {
		return e.standard
	}
	return name
}

// prepare parses a query and makes it ready to run. It returns the name of the engine that will run it.
func (e *engines) prepare(ctx context.Context, q *Queryable, req *Request, lookback time.Duration) (promql.Query, string, error) {
	name := e.named(req.Engine)
	if err := validateEngine(name); err != nil {
		return nil, "", &store.Error{Kind: store.KindBadRequest, Err: err}
	}
	if name == EngineThanos && (req.Stats || req.PerStepStats || req.Analyze) && e.fallback && hasSubquery(req.Expr) {
		// Operators below a subquery may run on for a moment when the answer is there, and count while
		// the counts are read.
		name = EnginePrometheus
	}
	query, err := e.prepareOn(ctx, name, q, req, lookback)
	if err != nil && name == EngineThanos && engine.IsUnimplemented(err) {
		if !e.fallback {
			return nil, "", store.Errorf(store.KindBadRequest, "evaluate with engine %s (fallback to %s is disabled): %w", EngineThanos, EnginePrometheus, err)
		}
		name = EnginePrometheus
		query, err = e.prepareOn(ctx, name, q, req, lookback)
	}
	switch {
	case err == nil:
		return query, name, nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil, "", err
	}
	return nil, "", &store.Error{Kind: store.KindBadRequest, Err: err}
}

func (e *engines) prepareOn(ctx context.Context, name string, q *Queryable, req *Request, lookback time.Duration) (promql.Query, error) {
	if name == EnginePrometheus {
		opts := promql.NewPrometheusQueryOpts(req.PerStepStats, lookback)
		if req.Step == 0 {
			return e.prom.NewInstantQuery(ctx, q, opts, req.Expr, req.Start)
		}
		return e.prom.NewRangeQuery(ctx, q, opts, req.Expr, req.Start, req.End, req.Step)
	}
	opts := &engine.QueryOpts{LookbackDeltaParam: lookback, EnablePerStepStatsParam: req.PerStepStats}
	if e.stream && !q.unstreamed {
		opts.LogicalOptimizers = append([]logicalplan.Optimizer{streaming{q}}, logicalplan.DefaultOptimizers...)
	}
	if req.Step == 0 {
		return e.thanos.MakeInstantQuery(ctx, q, opts, req.Expr, req.Start)
	}
	return e.thanos.MakeRangeQuery(ctx, q, opts, req.Expr, req.Start, req.End, req.Step)
}

// hasSubquery tells whether an expression has a subquery. One that can't be parsed has none.
func hasSubquery(s string) bool {
	expr, err := parser.ParseExpr(s)
	if err != nil {
		return false
	}
	found := false
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		_, ok := n.(*parser.SubqueryExpr)
		found = found || ok
		return nil
	})
	return found
}
