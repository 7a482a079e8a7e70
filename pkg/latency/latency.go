// Package latency learns how long something usually takes, so that waiting for it can be bounded sensibly.
package latency

import (
	"math"
	"sync"
	"time"
)

const (
	// Durations are counted in buckets whose bounds grow by this factor, so that a quantile is right to 5 %.
	growth = 1.05
	// The first bucket ends here, the last one at about a minute: 320 buckets of 4 bytes.
	shortest = 10 * time.Microsecond
	buckets  = 320
	// After so many observations all counts are halved, so that what was long ago counts less and less.
	halfLife = 512
	// Less than so many observations are no ground to tell a quantile.
	least = 10
	// A quantile is looked for again after so many observations.
	stale = 16
)

// Estimator learns a quantile of durations; the recent ones count more. Its methods may be called in parallel.
type Estimator struct {
	quantile float64

	mu     sync.Mutex
	counts [buckets]float32
	total  float64
	seen   int // since the last halving
	fresh  int // observations until the quantile is looked for again
	value  time.Duration
}

// New makes an estimator of a quantile between 0 and 1.
func New(quantile float64) *Estimator { return &Estimator{quantile: quantile} }

// Observe takes notice of a duration.
func (e *Estimator) Observe(d time.Duration) {
	i := 0
	if d > shortest {
		i = min(int(math.Log(float64(d)/float64(shortest))/math.Log(growth))+1, buckets-1)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.counts[i]++
	e.total++
	e.fresh--
	if e.seen++; e.seen == halfLife {
		e.seen = 0
		for j := range e.counts {
			e.counts[j] /= 2
		}
		e.total /= 2
	}
}

// Value returns the quantile, and false as long as too little is known.
func (e *Estimator) Value() (time.Duration, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.total < least {
		return 0, false
	}
	if e.fresh <= 0 {
		e.fresh = stale
		e.value = e.find()
	}
	return e.value, true
}

func (e *Estimator) find() time.Duration {
	want, sum := e.total*e.quantile, 0.0
	for i, n := range e.counts {
		if sum += float64(n); sum >= want && n > 0 {
			return time.Duration(float64(shortest) * math.Pow(growth, float64(i)))
		}
	}
	return time.Duration(float64(shortest) * math.Pow(growth, buckets-1))
}
