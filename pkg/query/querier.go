package query

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/koios-metrics/koios/pkg/gate"
	"github.com/koios-metrics/koios/pkg/store"
)

// Querier evaluates PromQL over a Store. Its methods may be called in parallel.
type Querier struct {
	store      store.Store
	cfg        Config
	engines    *engines
	queries    *gate.Gate
	selects    *gate.Gate // never entered itself: its twins bound the selects of one request each
	chunkBytes *store.Budget
	metrics    *metrics
	shadow     *shadow
	histograms selectorNotes // have native histograms
	unstreamed selectorNotes // can't be streamed for another reason
}

// New makes a Querier. The caller closes it.
func New(st store.Store, cfg Config, logger log.Logger, reg prometheus.Registerer) (*Querier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("query configuration: %w", err)
	}
	cfg = cfg.withDefaults()
	es, err := newEngines(cfg, logger, reg)
	if err != nil {
		return nil, err
	}
	q := &Querier{
		store:      st,
		cfg:        cfg,
		engines:    es,
		queries:    gate.New("thanos_query_concurrent_gate_queries", cfg.MaxConcurrent, reg),
		selects:    gate.New("thanos_query_concurrent_selects_gate_selects", cfg.MaxConcurrentSelect, reg),
		chunkBytes: cfg.Budget,
		metrics:    newMetrics(reg),
	}
	q.shadow = newShadow(q, cfg, logger)
	return q, nil
}

// Close ends shadow evaluations and closes the log of running queries. No query may run any more.
func (q *Querier) Close() error {
	q.shadow.close()
	return q.engines.close()
}

// Config returns the configuration with its defaults filled in.
func (q *Querier) Config() Config { return q.cfg }

// Request is one query.
type Request struct {
	Options
	Expr string
	// Start and End are the first and the last time of evaluation. An instant query has Step 0 and is
	// evaluated at Start.
	Start, End time.Time
	Step       time.Duration
	// Engine overrides the configured one; empty does not.
	Engine string
	// Lookback overrides how far back instant selectors look; 0 does not.
	Lookback time.Duration
	// Stats asks for statistics, PerStepStats for the number of samples of each step too.
	Stats, PerStepStats bool
	// Analyze asks where the time went; only EngineThanos can tell.
	Analyze bool
}

// Result is the answer to a query.
type Result struct {
	Value parser.Value
	// Annotations are PromQL's and, told apart by IsStoreWarning, the Store's.
	Annotations annotations.Annotations
	// Stats is nil when it was not asked for.
	Stats *stats.Statistics
	// Engine is the one that evaluated.
	Engine  string
	Fetched Fetched
	// Analysis is nil when it was not asked for, or, with the reason in AnalysisErr, can't be had.
	Analysis    *Analysis
	AnalysisErr error

	evaluation *evaluation
	shadow     func() // compares the result in the background and closes the evaluation; nil is not to be
}

// Close gives the memory of the value back; the value must not be used afterwards.
func (r *Result) Close() {
	if r.shadow != nil {
		r.shadow()
		return
	}
	r.evaluation.close()
}

// Exec evaluates a query. What is wrong with the request itself is an error of store.KindBadRequest; all
// other errors are those of the evaluation, promql's own among them. The caller closes the result.
func (q *Querier) Exec(ctx context.Context, req Request) (*Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, q.cfg.Timeout, promql.ErrQueryTimeout(fmt.Sprintf("query execution: it took longer than %s", q.cfg.Timeout)))
	defer cancel()

	ev, err := q.engines.prepare(ctx, q.Queryable(req.Options), &req, q.lookback(&req))
	if err != nil {
		return nil, err
	}
	timers := stats.NewQueryTimers()
	queue := timers.GetTimer(stats.ExecQueueTime).Start()
	err = q.queries.Start(ctx)
	queue.Stop()
	if err != nil {
		ev.close()
		// Not wrapped: whoever retries a timeout would only make the queue longer.
		return nil, fmt.Errorf("too many queries at once, no more than %d are evaluated: %v", q.cfg.MaxConcurrent, err) //nolint:errorlint // as said
	}
	defer q.queries.Done()
	total, eval := timers.GetTimer(stats.ExecTotalTime).Start(), timers.GetTimer(stats.EvalTotalTime).Start()
	res, ev, err := q.run(ctx, ev, &req)
	eval.Stop()
	total.Stop()
	if err != nil {
		return nil, err
	}
	if ev.why != nil {
		q.metrics.fallbacks.WithLabelValues(ev.why.name).Inc()
	}
	r := &Result{
		Value:       res.Value,
		Annotations: res.Warnings,
		Engine:      ev.engine,
		Fetched:     ev.queryable.Fetched(),
		evaluation:  ev,
	}
	if req.Stats || req.PerStepStats {
		r.Stats = ev.query.Stats()
		if ev.engine == EngineThanos { // It has no timers, and an analysis changes what its counts share.
			r.Stats.Timers = timers
			r.Stats.Samples.TotalSamplesPerStep = slices.Clone(r.Stats.Samples.TotalSamplesPerStep)
		}
	}
	if req.Analyze {
		r.Analysis, r.AnalysisErr = analyze(ev.query, ev.engine)
	}
	if q.shadow.wants(r) {
		r.shadow = func() { q.shadow.take(ctx, r, req) }
	}
	return r, nil
}

// run evaluates a query, in another way if the first turns out to be unfit for the data. It closes every
// evaluation but the one that it returns, which has succeeded.
func (q *Querier) run(ctx context.Context, ev *evaluation, req *Request) (*promql.Result, *evaluation, error) {
	for {
		res := ev.query.Exec(ctx)
		name, why, unstreamed := EnginePrometheus, (*route)(nil), false
		if ev.engine == EngineThanos {
			if q.engines.fallback {
				why = doubted(ctx, res)
			}
			if why == nil && !ev.queryable.unstreamed && (errors.Is(res.Err, errNotStreamed) || errors.Is(res.Err, errHistograms)) {
				name, unstreamed = EngineThanos, true
			}
		}
		if why == nil && !unstreamed {
			if res.Err != nil {
				ev.close()
				return nil, nil, res.Err
			}
			return res, ev, nil
		}
		ev.close()
		queryable := q.queryable(req.Options, ev.queryable.common)
		queryable.unstreamed = unstreamed
		var err error
		if ev, err = q.engines.prepareOn(ctx, name, why, queryable, req, q.lookback(req)); err != nil {
			return nil, nil, err
		}
	}
}

func (q *Querier) lookback(req *Request) time.Duration {
	if req.Lookback > 0 {
		return req.Lookback
	}
	return q.cfg.Lookback(req.MaxResolution)
}
