package dedup

import (
	"slices"
	"testing"
)

// between cuts out what lies in [from, to].
func between(ps []point, from, to int64) []point {
	i, _ := slices.BinarySearchFunc(ps, from, func(p point, t int64) int { return int(p.t - t) })
	j, _ := slices.BinarySearchFunc(ps, to+1, func(p point, t int64) int { return int(p.t - t) })
	return ps[i:j]
}

// Shows that whether a sample is kept depends only on samples around it: wherever a range is asked, what is
// read as far beyond it as package query does gives the very samples that the whole has there. So a range that
// is split anywhere answers as the whole. (It kills the mutant without fill beyond what is wanted: an end of a hole
// that counts only when it lies within the range.)
func TestAnyRangeAnswersAsTheWhole(t *testing.T) {
	for seed := range uint64(pairs(600)) {
		p := newPair(seed, 600)
		rs := p.replicas
		whole := merged(Options{}, rs...)
		for range 12 {
			from := p.rnd.Int64N(600 * p.interval)
			to := from + p.rnd.Int64N(100*p.interval)
			var read [][]point
			for _, r := range rs {
				read = append(read, between(r, from-Reach(0), to+Reach(0)))
			}
			got := between(merged(Options{}, read...), from, to)
			if want := between(whole, from, to); format(got) != format(want) {
				t.Fatalf("seed %d, interval %d, from %d to %d:\n got %s\nwant %s", seed, p.interval, from, to, format(got), format(want))
			}
		}
	}
}

// Shows that the merged stream, merged again, with itself or with a copy, stays what it is. (It kills the mutant
// that lifts values so that they never fall.)
func TestIdempotent(t *testing.T) {
	for seed := range uint64(pairs(300)) {
		p := newPair(seed, 300)
		once := merged(Options{}, p.replicas...)
		if twice := merged(Options{}, once, slices.Clone(once)); format(twice) != format(once) {
			t.Fatalf("seed %d:\n got %s\nwant %s", seed, format(twice), format(once))
		}
	}
}
