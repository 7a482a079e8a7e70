package fanout

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A wait that outlasts the timeout is noticed, not before it and at most an eighth after it; waits that
// are short, however many, and the time between them are not.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var barked atomic.Int32
		w := newWatchdog(8*time.Second, func() { barked.Add(1) })
		time.Sleep(7 * time.Second)
		w.end()
		for range 100 { // much longer than the timeout altogether
			time.Sleep(time.Second)
			w.begin()
			time.Sleep(7500 * time.Millisecond)
			w.end()
		}
		time.Sleep(time.Hour)
		if barked.Load() != 0 {
			t.Fatal("it barked at short waits")
		}
		w.begin()
		time.Sleep(8*time.Second - 1)
		if barked.Load() != 0 {
			t.Error("it barked before the timeout")
		}
		time.Sleep(time.Second + 2)
		if barked.Load() != 1 {
			t.Error("it did not bark at a long wait")
		}
		w.end()
		w.begin()
		time.Sleep(time.Hour)
		if barked.Load() != 1 {
			t.Error("it barked twice")
		}
		w.stop()

		w = newWatchdog(8*time.Second, func() { barked.Add(1) })
		w.stop()
		time.Sleep(time.Hour)
		if barked.Load() != 1 {
			t.Error("it barked after its end")
		}
		w = newWatchdog(0, nil)
		w.begin()
		w.end()
		w.stop()
	})
}
