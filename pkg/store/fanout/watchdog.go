package fanout

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/koios-metrics/koios/pkg/store"
)

const (
	// looksPerTimeout is how often a watchdog looks while one timeout passes. A wait is ended at most one
	// such interval too late.
	looksPerTimeout = 8
	// shareOfDeadline is the part of a query's time that one Store may let it wait; the rest is for an
	// answer without that Store.
	shareOfDeadline = 0.75
	// graceMax is what is left of the patience, at most, once many Stores have turned out to be late.
	graceMax = 100 * time.Millisecond
)

// patience says how long waits may be. Its zero value is patience without end.
type patience struct {
	// hedge is when another endpoint is asked too; 0 is never.
	hedge time.Duration
	// timeout is the longest wait; 0 is no bound.
	timeout time.Duration
	// A query that began at start and has to be done at deadline bounds waits too. Zero is no deadline.
	start, deadline time.Time
}

// allowed returns how long a wait that began at since may be, and the error of a longer one. Each Store that
// was waited for in vain before halves it: meanwhile the others had the time to get ready, and Stores that hang
// one after the other take little more than twice the time of one.
func (p *patience) allowed(since time.Time, inVain int64) (time.Duration, error) {
	d, err := time.Duration(math.MaxInt64), error(nil)
	if p.timeout > 0 {
		d, err = p.timeout, errLate(p.timeout)
	}
	if !p.deadline.IsZero() {
		cut := p.start.Add(time.Duration(shareOfDeadline * float64(p.deadline.Sub(p.start))))
		if share := max(cut.Sub(since), p.deadline.Sub(since)/2); share < d {
			d, err = share, errShare(share)
		}
	}
	if err != nil && inVain > 0 {
		d = max(d>>min(inVain, 62), min(d/looksPerTimeout, graceMax))
	}
	return d, err
}

func errLate(d time.Duration) error {
	return store.Errorf(store.KindUnavailable, "nothing received for %s", d)
}

func errShare(d time.Duration) error {
	return store.Errorf(store.KindUnavailable, "nothing received for %s, a store's share of the query's time", d.Round(time.Millisecond))
}

// watchdog ends a wait that lasts too long. Waits are many and short, so that a timer for each would cost
// as much as the merge; here a wait costs two atomic writes, and one timer looks now and then whether it
// is still the same wait. A nil watchdog never barks.
type watchdog struct {
	patience
	// onHedge and onLate are told of a long wait, each once a wait at most. They must not block.
	onHedge func(wait uint64)
	onLate  func(wait uint64, err error)

	waits  atomic.Uint64 // odd during a wait; one more at each start and end
	inVain atomic.Int64  // as allowed takes it, for the wait

	mu             sync.Mutex
	timer          *time.Timer
	stopped        bool
	seen           uint64    // the state at the look that first saw it
	since          time.Time // …and the time of that look
	hedged, barked bool      // what that wait has led to
}

// newWatchdog makes one whose first wait begins right away with a call of begin; nil if the patience has
// no end.
func newWatchdog(p patience, onHedge func(uint64), onLate func(uint64, error)) *watchdog {
	if p.hedge <= 0 && p.timeout <= 0 && p.deadline.IsZero() {
		return nil
	}
	w := &watchdog{patience: p, onHedge: onHedge, onLate: onLate, seen: 1, since: time.Now()}
	w.mu.Lock() // look can't come before timer is set
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.interval(w.since), w.look)
	return w
}

// interval is the pause before the next look.
func (w *watchdog) interval(now time.Time) time.Duration {
	d, _ := w.allowed(now, w.inVain.Load())
	if w.hedge > 0 {
		d = min(d, w.hedge)
	}
	return max(d/looksPerTimeout, time.Millisecond)
}

// begin starts a wait and returns its number. One goroutine at a time calls begin.
func (w *watchdog) begin(inVain int64) uint64 {
	if w == nil {
		return 0
	}
	wait := w.waits.Add(1)
	if inVain == w.inVain.Load() {
		return wait
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inVain.Store(inVain)
	w.seen, w.since, w.hedged, w.barked = wait, time.Now(), false, false
	w.timer.Reset(w.interval(w.since))
	return wait
}

// end ends a wait. It is false if somebody else has ended it before.
func (w *watchdog) end(wait uint64) bool {
	return w == nil || w.waits.CompareAndSwap(wait, wait+1)
}

// during tells whether a wait goes on.
func (w *watchdog) during(wait uint64) bool { return w.waits.Load() == wait }

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
		w.seen, w.since, w.hedged, w.barked = state, now, false, false
		w.timer.Reset(w.interval(now))
		return
	}
	waited := now.Sub(w.since)
	if w.hedge > 0 && !w.hedged && waited >= w.hedge {
		w.hedged = true
		w.onHedge(state)
	}
	pause := w.interval(now)
	if !w.barked {
		allowed, err := w.allowed(w.since, w.inVain.Load())
		if left := allowed - waited; left > 0 {
			pause = min(pause, left)
		} else {
			w.barked = true
			w.onLate(state, err)
		}
	}
	w.timer.Reset(pause)
}
