package cache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/koios-metrics/koios/pkg/latency"
)

// How long a Fetch waits for a server: so many times what nine of ten answers take, at least waitMin, at most the
// configured timeout, and at most a share of what the storage behind the cache takes. A cache that is late for a while
// makes requests slower by that share, and only until its breaker opens.
const (
	waitFactor  = 4
	waitMin     = 2 * time.Millisecond
	waitUnknown = 40 * time.Millisecond // before anything was learned; a connection is made
	waitPerKey  = 10 * time.Microsecond
	originShare = 8 // one part in so many
)

// A server that fails, or is late, failuresMax times of the last failuresOf is left alone, and probed in the background
// at intervals that grow from the first to the second.
const (
	failuresMax   = 5
	failuresOf    = 10
	probeInterval = 50 * time.Millisecond
)

// server is one thing that may be slow or dead by itself: a memcached, a Redis with its replicas, the peers of a group.
type server interface {
	// get hands out the values of those keys that are there, by their place. It may be called in parallel.
	get(ctx context.Context, keys []string, found func(i int, value []byte)) error
	// set keeps entries. It may be called in parallel. An error that wraps errRefused is the answer of a server that is
	// well: it has no room for an entry, or takes none of that size.
	set(ctx context.Context, entries []wireEntry) error
	// probe tells whether the server works. It makes a connection if there is none.
	probe(ctx context.Context) error
	close()
}

// errRefused is a server's answer that it does not take an entry.
var errRefused = errors.New("the server does not take the entry")

// wireEntry is an entry as a server keeps it.
type wireEntry struct {
	key   string
	value []byte
	ttl   time.Duration
}

// guard knows how a server does, and keeps the others from waiting for it.
type guard struct {
	server
	name    string
	cfg     guardConfig
	latency *latency.Estimator
	breaker circuitbreaker.CircuitBreaker[any]
	metrics *remoteMetrics

	ctx     context.Context
	cancel  context.CancelFunc
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// guardConfig is what servers of one cache have in common.
type guardConfig struct {
	// Timeout bounds every operation.
	Timeout time.Duration
	// ProbeIntervalMax bounds the time between two probes of a server that is left alone.
	ProbeIntervalMax time.Duration
	// Origin returns what the storage behind the cache usually takes; nil or 0 is unknown.
	Origin func() time.Duration
}

// newGuard makes a guard. A server that is not connected yet is left alone until its first probe ends well.
func newGuard(name string, s server, connected bool, cfg guardConfig, m *remoteMetrics) *guard {
	g := &guard{server: s, name: name, cfg: cfg, latency: latency.New(0.9), metrics: m}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.breaker = circuitbreaker.NewBuilder[any]().
		WithFailureThresholdRatio(failuresMax, failuresOf).
		WithDelay(1 << 62). // it is closed by a probe only
		OnOpen(func(circuitbreaker.StateChangedEvent) {
			m.leftAlone.Inc()
			g.background(g.probeUntilWell)
		}).
		OnClose(func(circuitbreaker.StateChangedEvent) { m.leftAlone.Dec() }).
		Build()
	if !connected {
		g.breaker.Open()
	}
	return g
}

// begin keeps close waiting until end is called, unless the guard is closed.
func (g *guard) begin() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.running.Add(1)
	}
	return !g.closed
}

func (g *guard) end() { g.running.Done() }

// background runs something that close waits for, unless the guard is closed.
func (g *guard) background(f func()) bool {
	if !g.begin() {
		return false
	}
	go func() {
		defer g.end()
		f()
	}()
	return true
}

// during does something that close waits for, unless the guard is closed.
func (g *guard) during(f func()) {
	if g.begin() {
		defer g.end()
		f()
	}
}

// available tells whether the server is to be asked at all.
func (g *guard) available() bool { return g.breaker.IsClosed() }

// wait returns how long to wait for so many keys.
func (g *guard) wait(keys int) time.Duration {
	extra := time.Duration(keys) * waitPerKey
	d := waitUnknown
	if learned, known := g.latency.Value(); known {
		d = waitFactor * learned
	}
	if g.cfg.Origin != nil {
		if origin := g.cfg.Origin(); origin > 0 {
			d = min(d, origin/originShare)
		}
	}
	return min(max(d, waitMin)+extra, g.cfg.Timeout)
}

// done notes how an operation ended. One that was given up was noted as late before, but still teaches what to expect.
func (g *guard) done(took time.Duration, givenUp bool, err error) {
	if err == nil {
		g.latency.Observe(took)
	}
	switch {
	case givenUp:
	case err == nil:
		g.breaker.RecordSuccess()
	default:
		g.breaker.RecordFailure()
	}
}

// late notes that somebody gave up waiting.
func (g *guard) late() { g.breaker.RecordFailure() }

// probeUntilWell lets requests back to the server when it answers as quickly as they would wait.
func (g *guard) probeUntilWell() {
	interval := probeInterval
	for {
		t := time.NewTimer(interval)
		select {
		case <-g.ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		// The first answer may need a connection; the second one counts.
		if g.probeOnce() == nil {
			start := time.Now()
			if g.probeOnce() == nil && time.Since(start) <= g.wait(1) {
				g.breaker.Close()
				return
			}
		}
		interval = min(2*interval, g.cfg.ProbeIntervalMax)
	}
}

func (g *guard) probeOnce() error {
	ctx, cancel := context.WithTimeout(g.ctx, g.cfg.Timeout)
	defer cancel()
	return g.probe(ctx)
}

// close ends what runs for the server, waits for it, and closes the server.
func (g *guard) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.running.Wait()
	if !g.breaker.IsClosed() {
		g.breaker.Close() // it is not left alone any more, it is gone
	}
	g.server.close()
}
