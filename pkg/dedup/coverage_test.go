package dedup

import (
	"math"
	"slices"
	"testing"
)

// Shows that wherever some replica has a sample the merged stream has one within an interval, and that only what
// was scraped is handed out, at rising times, no two closer than half an interval unless one replica scraped
// both. (It kills the mutant without fill, the one that
// takes the first sample of a new base wherever it lies, and the one for which near-equal scrapes are copies.)
func TestCoverage(t *testing.T) {
	for seed := range uint64(pairs(600)) {
		p := newPair(seed, 400)
		got := merged(Options{}, p.replicas...)
		scraped := map[point]bool{}
		for _, r := range p.replicas {
			for _, q := range r {
				scraped[q] = true
				i, _ := slices.BinarySearchFunc(got, q.t, func(g point, t int64) int { return int(g.t - t) })
				slack := p.interval + p.interval/25
				if near := i < len(got) && got[i].t-q.t <= slack || i > 0 && q.t-got[i-1].t <= slack; !near {
					t.Fatalf("seed %d: nothing within an interval of %d of %d\n%s", seed, p.interval, q.t, format(got))
				}
			}
		}
		for i, q := range got {
			if !scraped[q] {
				t.Fatalf("seed %d: %v was never scraped", seed, q)
			}
			if i == 0 {
				continue
			}
			d := q.t - got[i-1].t
			if d <= 0 || d < p.interval*9/20 && !oneReplica(p.replicas, got[i-1], q) {
				t.Fatalf("seed %d: %d ms from %v to %v, interval %d", seed, d, got[i-1], q, p.interval)
			}
		}
	}
}

func oneReplica(rs [][]point, a, b point) bool {
	return slices.ContainsFunc(rs, func(r []point) bool { return slices.Contains(r, a) && slices.Contains(r, b) })
}

// Shows that increase, and with it rate, over any range lies between what replicas that missed nothing would give,
// give or take what it grows from one scrape to the next, though each replica reads its values late by another
// sixth of an interval. (It kills the mutant without fill.)
func TestIncreaseWithinBounds(t *testing.T) {
	for seed := range uint64(pairs(500)) {
		p := newPair(seed, 400)
		late := func(who int, t int64) float64 { // the same for each scrape, whoever missed it
			return p.at(t + int64(who+1)*p.interval/6)
		}
		var complete, holed [][]point
		for who, r := range p.replicas {
			have := slices.Clone(r)
			for i := range have {
				have[i].v = late(who, have[i].t)
			}
			holed = append(holed, have)
			// What was missed lies at multiples of the interval from what was not.
			all := slices.Clone(have)
			for i := 1; i < len(have); i++ {
				n := (have[i].t - have[i-1].t + p.interval/2) / p.interval
				for j := int64(1); j < n; j++ {
					at := have[i-1].t + j*(have[i].t-have[i-1].t)/n
					all = append(all, point{t: at, v: late(who, at)})
				}
			}
			slices.SortFunc(all, func(a, b point) int { return int(a.t - b.t) })
			complete = append(complete, all)
		}
		got := merged(Options{}, holed...)
		for range 30 {
			window := p.interval * (4 + p.rnd.Int64N(40))
			from := 60*p.interval + p.rnd.Int64N(300*p.interval-window)
			if slices.ContainsFunc(complete, func(r []point) bool { return r[0].t > from || r[len(r)-1].t < from+window }) {
				continue // in an outage at the very start or end
			}
			x, ok := increase(got, from, from+window)
			a, okA := increase(complete[0], from, from+window)
			b, okB := increase(complete[1], from, from+window)
			if !ok || !okA || !okB {
				t.Fatalf("seed %d: no samples in %d intervals", seed, window/p.interval)
			}
			scrape := 0.0
			for at := from - p.interval; at < from+window; at += p.interval / 2 {
				scrape = max(scrape, p.grown(at+p.interval*7/6)-p.grown(at))
			}
			if x < min(a, b)-scrape || x > max(a, b)+scrape || math.IsNaN(x) {
				t.Fatalf("seed %d, interval %d: from %d, %d long: %g, replicas have %g and %g, a scrape is %g\n%s", seed, p.interval, from, window, x, a, b, scrape,
					format(between(got, from, from+window)))
			}
		}
	}
}
