package query

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/prometheus/promql"

	"github.com/koios-metrics/koios/pkg/store"
)

// shadowsMax bounds how many shadow evaluations run at once.
const shadowsMax = 1

// shadow evaluates a sample of the queries that EngineThanos has answered again on EnginePrometheus, and counts
// whether the answers are equal. It begins when the answer has been sent and its memory would be given back, takes
// no place among the queries, and has a budget of its own. Its methods may be called in parallel.
type shadow struct {
	q      *Querier
	sample float64
	budget *store.Budget
	logger log.Logger

	places  chan struct{}
	running sync.WaitGroup
	mu      sync.Mutex // guards closed, and running against being waited for
	closed  bool
	ctx     context.Context // ends with the querier
	cancel  context.CancelFunc
}

func newShadow(q *Querier, cfg Config, logger log.Logger) *shadow {
	s := &shadow{
		q:      q,
		sample: cfg.ShadowSample,
		budget: store.NewBudget("memory for shadow evaluations", cfg.ShadowBytesMax),
		logger: logger,
		places: make(chan struct{}, shadowsMax),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// wants tells whether an answer is to be looked at: one of the sample, by EngineThanos, that lacks no data.
func (s *shadow) wants(r *Result) bool {
	if r.Engine != EngineThanos || s.sample <= 0 || rand.Float64() >= s.sample {
		return false
	}
	for _, a := range r.Annotations {
		if IsStoreWarning(a) {
			return false
		}
	}
	return true
}

// take compares a result in the background, and closes its evaluation when that is done. It returns at once.
func (s *shadow) take(ctx context.Context, r *Result, req Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		select {
		case s.places <- struct{}{}:
			s.running.Go(func() {
				defer func() { <-s.places }()
				defer r.evaluation.close()
				s.look(context.WithoutCancel(ctx), r, req)
			})
			return
		default:
		}
	}
	s.q.metrics.shadows.WithLabelValues(shadowSkipped).Inc()
	r.evaluation.close()
}

// look compares a result with that of EnginePrometheus. What is being scraped while that goes on may make a
// difference, so EngineThanos is asked again before one counts.
func (s *shadow) look(ctx context.Context, r *Result, req Request) {
	ctx, cancel := context.WithTimeout(ctx, s.q.cfg.Timeout)
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()

	outcome := func() string {
		want, wantEv, err := s.evaluate(ctx, EnginePrometheus, req)
		if err != nil {
			return s.failed(ctx, err)
		}
		defer wantEv.close()
		difference := disagree(r.Value, want.Value)
		if difference == "" {
			return shadowEqual
		}
		again, againEv, err := s.evaluate(ctx, EngineThanos, req)
		if err != nil {
			return s.failed(ctx, err)
		}
		defer againEv.close()
		switch {
		case disagree(again.Value, want.Value) == "":
			return shadowEqual
		case disagree(again.Value, r.Value) != "":
			return shadowSkipped // The data changes faster than it is read.
		}
		_ = level.Warn(s.logger).Log("msg", "the engines answer a query differently", "query", req.Expr, "start", req.Start, "end", req.End, "step", req.Step,
			"engine", EngineThanos, "reference", EnginePrometheus, "difference", difference)
		return shadowDifferent
	}()
	s.q.metrics.shadows.WithLabelValues(outcome).Inc()
}

// evaluate runs a query on an engine; the caller closes the evaluation.
func (s *shadow) evaluate(ctx context.Context, engine string, req Request) (_ *promql.Result, _ *evaluation, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("BUG: shadow evaluation: %v", p)
		}
	}()
	req.Engine, req.Stats, req.PerStepStats, req.Analyze = engine, false, false, false
	ev, err := s.q.engines.prepare(ctx, s.q.queryable(req.Options, s.budget), &req, s.q.lookback(&req))
	if err != nil {
		return nil, nil, err
	}
	return s.q.run(ctx, ev, &req)
}

// failed is the outcome of an error: what had no room or no time is skipped.
func (s *shadow) failed(ctx context.Context, err error) string {
	if ctx.Err() != nil || store.KindOf(err) == store.KindLimit {
		return shadowSkipped
	}
	_ = level.Warn(s.logger).Log("msg", "shadow evaluation", "err", err)
	return shadowFailed
}

// close ends what runs and waits for it.
func (s *shadow) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
}
