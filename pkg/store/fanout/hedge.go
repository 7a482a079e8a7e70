package fanout

import (
	"math/bits"
	"slices"
	"sync"
	"time"
)

const (
	// hedgeMin and hedgeMax bound the wait for a first series after which another endpoint is asked too;
	// hedgeUnknown is that wait while nothing is known.
	hedgeMin     = 2 * time.Millisecond
	hedgeMax     = 2 * time.Second
	hedgeUnknown = 250 * time.Millisecond
	// hedgePercent is the share of first series that are taken for late.
	hedgePercent = 95
	// paceKept is how many waits are remembered for each size of request, paceLeast how many say something.
	paceKept, paceLeast = 256, 20
	// Each part of a request that could be hedged earns a fraction of a hedge, and no more than so many are
	// saved up: a fleet that is slow as a whole is not asked twice as much.
	hedgeEarned, hedgesSaved = 0.25, 32
	// troubleFailed and troubleOvertaken are how long an endpoint is asked last after that.
	troubleFailed, troubleOvertaken = 10 * time.Second, 2 * time.Second
)

// pace learns how soon Stores begin to answer, and how many hedges they can bear. Its methods may be called
// in parallel.
type pace struct {
	mu      sync.Mutex
	sizes   [64]waits            // by the logarithm of the time range asked for
	hedges  float64              // that may be spent
	trouble map[string]time.Time // until when
	turn    uint
}

// waits are the latest waits of requests of one size.
type waits struct {
	ring []time.Duration
	next int
	late time.Duration // the percentile; 0 is unknown
}

func newPace() *pace { return &pace{hedges: hedgesSaved, trouble: map[string]time.Time{}} }

// size tells cheap requests from dear ones: four times the time range is the next size.
func size(mint, maxt int64) int { return bits.Len64(uint64(max(maxt-mint, 0))) / 2 }

// note takes in how long a first series took.
func (p *pace) note(size int, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &p.sizes[size]
	if len(w.ring) < paceKept {
		w.ring = append(w.ring, d)
	} else {
		w.ring[w.next] = d
		w.next = (w.next + 1) % paceKept
	}
	if n := len(w.ring); n >= paceLeast && (w.late == 0 || n < paceKept || w.next%16 == 0) {
		sorted := slices.Clone(w.ring)
		slices.Sort(sorted)
		w.late = sorted[n*hedgePercent/100]
	}
}

// delay returns when to hedge: somewhat later than the percentile, as the slowest of all that are overtaken
// are never noted.
func (p *pace) delay(size int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if late := p.sizes[size].late; late > 0 {
		return min(max(late+late/4, hedgeMin), hedgeMax)
	}
	return hedgeUnknown
}

// earn is told of a part that could be hedged.
func (p *pace) earn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hedges = min(p.hedges+hedgeEarned, hedgesSaved)
}

// spend takes a hedge; false if none is left.
func (p *pace) spend() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hedges < 1 {
		return false
	}
	p.hedges--
	return true
}

// blame has a Store asked last for a while.
func (p *pace) blame(name string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for n, until := range p.trouble { // no more of them than Stores that have failed lately
		if now.After(until) {
			delete(p.trouble, n)
		}
	}
	if until := now.Add(d); until.After(p.trouble[name]) {
		p.trouble[name] = until
	}
}

// troubled tells whether a Store failed lately.
func (p *pace) troubled(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.trouble[name])
}

// takeTurn returns a number that counts up, to share work among equals.
func (p *pace) takeTurn() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	return int(p.turn % (1 << 30))
}
