package fanout

import (
	"sync"
	"sync/atomic"
	"time"
)

// looksPerTimeout is how often a watchdog looks while one timeout passes. A wait is ended at most one
// such interval too late.
const looksPerTimeout = 8

// watchdog ends a wait that lasts too long. Waits are many and short, so that a timer for each would cost
// as much as the merge; here a wait costs two atomic writes, and one timer looks now and then whether it
// is still the same wait. A nil watchdog never barks.
type watchdog struct {
	timeout time.Duration
	late    func()

	waits atomic.Uint64 // odd during a wait; one more at each start and end

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
	seen    uint64    // the state at the look that first saw it
	since   time.Time // …and the time of that look
}

// newWatchdog makes one that calls late, once at most. A wait begins at once.
func newWatchdog(timeout time.Duration, late func()) *watchdog {
	if timeout <= 0 {
		return nil
	}
	w := &watchdog{timeout: timeout, late: late, seen: 1, since: time.Now()}
	w.waits.Store(1)
	w.mu.Lock() // look can't come before timer is set
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.interval(), w.look)
	return w
}

func (w *watchdog) interval() time.Duration { return max(w.timeout/looksPerTimeout, time.Millisecond) }

// begin starts a wait. One goroutine at a time calls begin and end, in turns.
func (w *watchdog) begin() {
	if w != nil {
		w.waits.Add(1)
	}
}

// end ends a wait.
func (w *watchdog) end() {
	if w != nil {
		w.waits.Add(1)
	}
}

// stop ends the looking.
func (w *watchdog) stop() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
}

func (w *watchdog) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	now, state := time.Now(), w.waits.Load()
	if state%2 == 0 || state != w.seen {
		w.seen, w.since = state, now
		w.timer.Reset(w.interval())
		return
	}
	left := w.timeout - now.Sub(w.since)
	if left <= 0 {
		w.stopped = true
		w.late()
		return
	}
	w.timer.Reset(min(left, w.interval()))
}
