package latency

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Shows that quantiles of known durations are found to a few percent, and nothing is told of too little.
//
// Mutant seen killed: the quantile is three buckets lower.
func TestQuantiles(t *testing.T) {
	f := func(quantile float64, draw func(*rand.Rand) time.Duration, want time.Duration) {
		t.Helper()
		e, rnd := New(quantile), rand.New(rand.NewPCG(1, 2))
		if d, known := e.Value(); known {
			t.Errorf("%s is known of nothing", d)
		}
		for range 20_000 {
			e.Observe(draw(rnd))
		}
		if got, known := e.Value(); !known || float64(got) < 0.9*float64(want) || float64(got) > 1.1*float64(want) {
			t.Errorf("%v quantile: %s, want %s", quantile, got, want)
		}
	}
	uniform := func(rnd *rand.Rand) time.Duration { return time.Duration(rnd.Int64N(int64(time.Second))) }
	f(0.5, uniform, 500*time.Millisecond)
	f(0.9, uniform, 900*time.Millisecond)
	f(0.9, func(*rand.Rand) time.Duration { return 3 * time.Millisecond }, 3*time.Millisecond)
	f(0.9, func(*rand.Rand) time.Duration { return 0 }, shortest)
	f(0.9, func(*rand.Rand) time.Duration { return time.Hour }, 57400*time.Millisecond)
}

// Shows that the past is forgotten: after a change the new durations tell before long.
func TestForgets(t *testing.T) {
	e := New(0.9)
	for range 100_000 {
		e.Observe(time.Millisecond)
	}
	for range 4 * halfLife {
		e.Observe(time.Second)
	}
	if d, _ := e.Value(); d < 900*time.Millisecond {
		t.Errorf("still %s", d)
	}
	for range 8 * halfLife {
		e.Observe(time.Millisecond)
	}
	if d, _ := e.Value(); d > 2*time.Millisecond {
		t.Errorf("still %s", d)
	}
}

func BenchmarkObserve(b *testing.B) {
	e := New(0.95)
	b.ReportAllocs()
	for b.Loop() {
		e.Observe(3 * time.Millisecond)
		e.Value()
	}
}
