package fanout

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A wait that outlasts the timeout is noticed once, not before it and at most an eighth after it; waits that
// are short, however many, and the time between them are not. (Killed: a mutant that goes on counting from
// one wait to the next.)
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var barked, hedged atomic.Int32
		w := newWatchdog(patience{timeout: 8 * time.Second, hedge: 4 * time.Second},
			func(uint64) { hedged.Add(1) }, func(uint64, error) { barked.Add(1) })
		n := w.begin(0)
		time.Sleep(3 * time.Second)
		w.end(n)
		for range 100 { // much longer than the timeout altogether
			time.Sleep(time.Second)
			n = w.begin(0)
			time.Sleep(3500 * time.Millisecond)
			if !w.end(n) {
				t.Fatal("somebody else has ended the wait")
			}
		}
		time.Sleep(time.Hour)
		if barked.Load() != 0 || hedged.Load() != 0 {
			t.Fatal("it barked at short waits")
		}
		n = w.begin(0)
		time.Sleep(4*time.Second - 1)
		if hedged.Load() != 0 {
			t.Error("a hedge too early")
		}
		time.Sleep(time.Second + 2)
		if hedged.Load() != 1 || !w.during(n) {
			t.Error("no hedge")
		}
		time.Sleep(3*time.Second - 2)
		if barked.Load() != 0 {
			t.Error("it barked before the timeout")
		}
		time.Sleep(time.Second + 2)
		if barked.Load() != 1 {
			t.Error("it did not bark at a long wait")
		}
		time.Sleep(time.Hour)
		if barked.Load() != 1 || hedged.Load() != 1 {
			t.Error("it barked twice at one wait")
		}
		w.end(n)
		n = w.begin(0)
		time.Sleep(time.Minute)
		if barked.Load() != 2 {
			t.Error("it did not bark at the next long wait")
		}
		w.waits.Add(1)
		if w.end(n) {
			t.Error("a wait that somebody else has ended is ended again")
		}
		w.stop()

		w = newWatchdog(patience{timeout: 8 * time.Second}, nil, func(uint64, error) { barked.Add(1) })
		w.begin(0)
		w.stop()
		time.Sleep(time.Hour)
		if barked.Load() != 2 {
			t.Error("it barked after its end")
		}
		w = newWatchdog(patience{}, nil, nil)
		if !w.end(w.begin(0)) {
			t.Error("nobody else ends waits")
		}
		w.stop()
	})
}

// A wait may last as long as the timeout, or as three quarters of the query's time, whichever is less; past
// that share, for half of what is left; and half as long for each Store that was
// waited for in vain. (Killed: a mutant that does not halve, by which hanging Stores add up.)
func TestPatience(t *testing.T) {
	start := time.Unix(1000, 0)
	f := func(p patience, at time.Duration, inVain int64, want time.Duration) {
		t.Helper()
		p.start = start
		if got, err := p.allowed(start.Add(at), inVain); got != want || err == nil {
			t.Errorf("%v, error %v, want %v", got, err, want)
		}
	}
	const s = time.Second
	timeout, query := patience{timeout: 8 * s}, patience{deadline: start.Add(100 * s)}
	both := patience{timeout: 8 * s, deadline: start.Add(100 * s)}
	f(timeout, 0, 0, 8*s)
	f(timeout, 1000*s, 0, 8*s)
	f(timeout, 0, 1, 4*s)
	f(timeout, 0, 2, 2*s)
	f(timeout, 0, 900, graceMax)
	f(patience{timeout: 80 * time.Millisecond}, 0, 9, 10*time.Millisecond)
	f(query, 0, 0, 75*s)
	f(query, 25*s, 0, 50*s)
	f(query, 60*s, 0, 20*s)
	f(query, 90*s, 0, 5*s)
	f(both, 0, 0, 8*s)
	f(both, 90*s, 0, 5*s)
	if _, err := (&patience{}).allowed(start, 1); err != nil {
		t.Errorf("a wait without end ends: %v", err)
	}
}
