package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/thanos-io/promql-engine/engine"
	"github.com/thanos-io/promql-engine/execution/parse"
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
	// functions are those that can be parsed.
	functions map[string]*parser.Function
	active    *promql.ActiveQueryTracker
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
	functions := parser.Functions
	if cfg.EnableXFunctions {
		functions = maps.Clone(functions)
		maps.Copy(functions, parse.XFunctions)
	}
	return &engines{
		functions: functions,
		prom:      promql.NewEngine(prom),
		thanos:    engine.New(engine.Opts{EngineOpts: thanos, EnableXFunctions: cfg.EnableXFunctions, EnableAnalysis: true}),
		standard:  cfg.Engine,
		fallback:  !cfg.DisableFallback,
		stream:    !cfg.DisableStreaming,
		active:    active,
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
	return promql.NewActiveQueryTracker(cfg.ActiveQueryPath, max(cfg.MaxConcurrent, 1)+shadowsMax, logger), nil
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

// evaluation is a query that is ready to run.
type evaluation struct {
	query     promql.Query
	queryable *Queryable
	engine    string
	// why says why the engine is not the one that was asked for, nil if it is.
	why *route
}

func (e *evaluation) close() {
	e.query.Close()
	e.queryable.close()
}

// choose names the engine that shall evaluate a request.
func (e *engines) choose(req *Request, notes *selectorNotes) (name string, why *route, err error) {
	name = e.named(req.Engine)
	if err := validateEngine(name); err != nil {
		return "", nil, &store.Error{Kind: store.KindBadRequest, Err: err}
	}
	if name == EnginePrometheus || !e.fallback {
		return name, nil, nil
	}
	expr, err := e.parse(req.Expr)
	if err != nil {
		return name, nil, nil //nolint:nilerr // The engine says it better.
	}
	if (req.Stats || req.PerStepStats || req.Analyze) && contains(expr, isSubquery) {
		why = &routeSubqueryStats
	} else {
		why = e.routed(expr, notes)
	}
	if why != nil {
		name = EnginePrometheus
	}
	return name, why, nil
}

// prepare parses a query and makes it ready to run.
func (e *engines) prepare(ctx context.Context, q *Queryable, req *Request, lookback time.Duration) (*evaluation, error) {
	name, why, err := e.choose(req, &q.q.histograms)
	if err != nil {
		return nil, err
	}
	return e.prepareOn(ctx, name, why, q, req, lookback)
}

// prepareOn does the same with an engine that was chosen.
func (e *engines) prepareOn(ctx context.Context, name string, why *route, q *Queryable, req *Request, lookback time.Duration) (*evaluation, error) {
	query, err := e.query(ctx, name, q, req, lookback)
	if err != nil && name == EngineThanos && engine.IsUnimplemented(err) {
		if !e.fallback {
			return nil, store.Errorf(store.KindBadRequest, "evaluate with engine %s (fallback to %s is disabled): %w", EngineThanos, EnginePrometheus, err)
		}
		name, why = EnginePrometheus, &routeUnsupported
		query, err = e.query(ctx, name, q, req, lookback)
	}
	switch {
	case err == nil:
		return &evaluation{query: query, queryable: q, engine: name, why: why}, nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil, err
	}
	return nil, &store.Error{Kind: store.KindBadRequest, Err: err}
}

func (e *engines) query(ctx context.Context, name string, q *Queryable, req *Request, lookback time.Duration) (promql.Query, error) {
	q.floatsOnly = name == EngineThanos && e.fallback
	if name == EnginePrometheus {
		opts := promql.NewPrometheusQueryOpts(req.PerStepStats, lookback)
		if req.Step == 0 {
			return e.prom.NewInstantQuery(ctx, q, opts, req.Expr, req.Start)
		}
		return e.prom.NewRangeQuery(ctx, q, opts, req.Expr, req.Start, req.End, req.Step)
	}
	optimizers := []logicalplan.Optimizer{dotall{}}
	if e.stream && !q.unstreamed {
		optimizers = append(optimizers, streaming{q})
	}
	opts := &engine.QueryOpts{
		LookbackDeltaParam:      lookback,
		EnablePerStepStatsParam: req.PerStepStats,
		LogicalOptimizers:       append(optimizers, logicalplan.DefaultOptimizers...),
	}
	if req.Step == 0 {
		return e.thanos.MakeInstantQuery(ctx, q, opts, req.Expr, req.Start)
	}
	return e.thanos.MakeRangeQuery(ctx, q, opts, req.Expr, req.Start, req.End, req.Step)
}

// parse parses an expression with the functions that the configuration offers.
func (e *engines) parse(expr string) (parser.Expr, error) {
	p := parser.NewParser(expr, parser.WithFunctions(e.functions))
	defer p.Close()
	return p.ParseExpr()
}

func isSubquery(n parser.Node) bool {
	_, ok := n.(*parser.SubqueryExpr)
	return ok
}
