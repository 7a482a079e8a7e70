// Package gate bounds how many things of one kind happen at once, and counts those that wait.
package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Gate lets at most a fixed number of holders in at once. Its methods may be called in parallel.
type Gate struct {
	slots   chan struct{} // nil: no bound
	metrics *metrics
}

// New makes a gate for width holders; 0 or less is no bound. Its metrics are named prefix_max,
// prefix_in_flight, prefix_total and prefix_duration_seconds, for example with the prefix
// "thanos_query_concurrent_gate_queries"; a nil Registerer registers nothing.
func New(prefix string, width int, reg prometheus.Registerer) *Gate {
	m := newMetrics(prefix, reg)
	m.max.Set(float64(width))
	return &Gate{slots: newSlots(width), metrics: m}
}

// Twin returns an empty gate of the same width that reports to the same metrics: for a bound that
// holds per request and not per process.
func (g *Gate) Twin() *Gate {
	return &Gate{slots: newSlots(cap(g.slots)), metrics: g.metrics}
}

// Start waits for a free place and takes it; the caller gives it back with Done. It returns an error
// that wraps the context's cause, and takes nothing, when the context ends first.
func (g *Gate) Start(ctx context.Context) error {
	begin := time.Now()
	defer func() { g.metrics.duration.Observe(time.Since(begin).Seconds()) }()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("wait at gate: %w", context.Cause(ctx))
	}
	if g.slots != nil {
		select {
		case g.slots <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("wait at gate: %w", context.Cause(ctx))
		}
	}
	g.metrics.inFlight.Inc()
	g.metrics.total.Inc()
	return nil
}

// Done gives back the place that a successful Start took.
func (g *Gate) Done() {
	g.metrics.inFlight.Dec()
	if g.slots == nil {
		return
	}
	select {
	case <-g.slots:
	default:
		panic("BUG: gate: Done without Start")
	}
}

func newSlots(width int) chan struct{} {
	if width <= 0 {
		return nil
	}
	return make(chan struct{}, width)
}
