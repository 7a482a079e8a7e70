package gate

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Shows that work which only waits is spread up to the bound, work that shares one thing is not, and work that goes
// wrong is not; and that each number is used once. (Killed: a mutant without the factor of gain; one that ignores
// failures.)
func TestSpread(t *testing.T) {
	f := func(name string, n, wantMost int, call func() bool) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var running, most, sum atomic.Int64
				Spread(t.Context(), 4, n, func(i int) bool {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					sum.Add(int64(i))
					return call()
				})
				if most.Load() != int64(wantMost) {
					t.Errorf("%d at a time, want %d", most.Load(), wantMost)
				}
				if want := int64(n) * int64(n-1) / 2; sum.Load() != want {
					t.Errorf("numbers add up to %d, want %d", sum.Load(), want)
				}
			})
		})
	}
	wait := func() bool { time.Sleep(30 * time.Millisecond); return true }
	f("latency", 1000, 4*SpreadFactor, wait)
	f("few", 3, 3, wait)
	f("failing", 1000, 4, func() bool { wait(); return false })
	var free time.Time // of something that one call has at a time
	var mu sync.Mutex
	f("one at a time", 1000, 8, func() bool {
		mu.Lock()
		free = later(free, time.Now()).Add(time.Millisecond)
		mine := free
		mu.Unlock()
		time.Sleep(time.Until(mine))
		return true
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Shows that no call is begun after the context has ended, and that those under way are waited for.
func TestSpreadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var begun, ended atomic.Int64
		Spread(ctx, 4, 1000, func(int) bool {
			if begun.Add(1) == 4 {
				cancel()
			}
			time.Sleep(time.Second)
			ended.Add(1)
			return true
		})
		if begun.Load() != 4 || ended.Load() != 4 {
			t.Errorf("begun %d, ended %d", begun.Load(), ended.Load())
		}
	})
}
