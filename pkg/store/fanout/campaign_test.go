//go:build campaign

package fanout_test

import (
	"slices"
	"testing"
	"time"
)

// The same as TestFaults with 1,000 queries on a real clock, and other seeds each time: how much later is the
// answer where a survivor holds the same blocks?
func TestFaultsCampaign(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	healthy, survived := faults(t, seed, 1000, time.Second)
	p99 := func(ds []time.Duration) time.Duration {
		slices.Sort(ds)
		return ds[len(ds)*99/100]
	}
	h, s := p99(healthy), p99(survived)
	t.Logf("seed %d: p99 of %d healthy queries %s, of %d with a gateway stalled or killed %s: %.2f times", seed, len(healthy), h, len(survived), s, float64(s)/float64(h))
}
