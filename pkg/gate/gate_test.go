package gate

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Shows that no more than the bound are inside at once, and that all get in eventually.
func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound, callers = 3, 20
		g := New("test_gate_queries", bound, nil)
		var inside, most atomic.Int64
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				if err := g.Start(t.Context()); err != nil {
					t.Errorf("start: %v", err)
					return
				}
				defer g.Done()
				n := inside.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(time.Second) // Fake time of the bubble: everyone who can enter does so first.
				inside.Add(-1)
			})
		}
		wg.Wait()
		if got := most.Load(); got != bound {
			t.Errorf("most inside at once: got %d, want %d", got, bound)
		}
	})
}

// Shows that a waiting caller leaves with the cause of its context and takes no place.
func TestContext(t *testing.T) {
	g := New("test_gate_queries", 1, nil)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("client went away")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := g.Start(ctx); !errors.Is(err, cause) {
		t.Fatalf("start with an ended context: got %v, want %v", err, cause)
	}
	g.Done()
	if err := g.Start(t.Context()); err != nil {
		t.Fatalf("start after done: %v", err)
	}
	// A twin has places of its own.
	if err := g.Twin().Start(t.Context()); err != nil {
		t.Fatalf("start of a twin: %v", err)
	}
}

// Shows that a gate without bound lets everyone in and still ends with its context.
func TestNoBound(t *testing.T) {
	g := New("test_gate_queries", 0, nil)
	for range 100 {
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		g.Done()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("start with an ended context: %v", err)
	}
}

// Shows the names of the metrics and what they count.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	g := New("thanos_query_concurrent_gate_queries", 2, reg)
	for range 2 {
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	g.Done()
	want := `
# HELP thanos_query_concurrent_gate_queries_in_flight How many are inside the gate now.
# TYPE thanos_query_concurrent_gate_queries_in_flight gauge
thanos_query_concurrent_gate_queries_in_flight 1
# HELP thanos_query_concurrent_gate_queries_max How many may pass the gate at once.
# TYPE thanos_query_concurrent_gate_queries_max gauge
thanos_query_concurrent_gate_queries_max 2
# HELP thanos_query_concurrent_gate_queries_total How many have entered the gate.
# TYPE thanos_query_concurrent_gate_queries_total counter
thanos_query_concurrent_gate_queries_total 2
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "thanos_query_concurrent_gate_queries_in_flight",
		"thanos_query_concurrent_gate_queries_max", "thanos_query_concurrent_gate_queries_total"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(reg, "thanos_query_concurrent_gate_queries_duration_seconds"); err != nil || n != 1 {
		t.Errorf("duration histogram: %d, %v", n, err)
	}
}

func BenchmarkGate(b *testing.B) {
	g := New("test_gate_queries", 4, nil)
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Start(ctx); err != nil {
			b.Fatal(err)
		}
		g.Done()
	}
}
