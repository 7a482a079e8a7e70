package dedup

import (
	"math"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
)

// asHistograms makes native histograms, whole-numbered or floats, of a counter's samples.
func asHistograms(ps []point, floats bool) (out []point) {
	for _, p := range ps {
		n := uint64(p.v)
		h := &histogram.Histogram{Count: n, ZeroCount: n, ZeroThreshold: 0.001, Sum: p.v}
		if floats {
			out = append(out, point{t: p.t, fh: h.ToFloat(nil)})
		} else {
			out = append(out, point{t: p.t, h: h})
		}
	}
	return out
}

// Shows that histograms of both kinds take the road of floats with the same counts, sample by sample, and that
// a replica which changes from one kind to another does too. (It kills the mutant that lifts values
// so that they never fall.)
func TestHistogramsTakeTheSameRoad(t *testing.T) {
	for seed := range uint64(pairs(100)) {
		p := newPair(seed, 200)
		var whole, ints, floats, mixed [][]point
		for _, r := range p.replicas {
			for i := range r {
				r[i].v = math.Floor(r[i].v)
			}
			i := len(r) / 2
			whole, ints, floats = append(whole, r), append(ints, asHistograms(r, false)), append(floats, asHistograms(r, true))
			mixed = append(mixed, append(asHistograms(r[:i], false), asHistograms(r[i:], true)...))
		}
		want := merged(Options{}, whole...)
		for _, rs := range [][][]point{ints, floats} {
			got := merged(Options{}, rs...)
			if len(got) != len(want) {
				t.Fatalf("seed %d: %d samples, want %d", seed, len(got), len(want))
			}
			for i := range got {
				var count float64
				if got[i].h != nil {
					count = float64(got[i].h.Count)
				} else {
					count = got[i].fh.Count
				}
				if got[i].t != want[i].t || count != want[i].v {
					t.Fatalf("seed %d: got %v at %d, want %v", seed, count, got[i].t, want[i])
				}
			}
		}
		if slices.ContainsFunc(p.replicas[0], func(q point) bool { return len(between(p.replicas[1], q.t, q.t)) > 0 }) {
			continue // Of copies that differ in kind, the kind decides.
		}
		times := func(ps []point) (ts []int64) {
			for _, p := range ps {
				ts = append(ts, p.t)
			}
			return ts
		}
		if got := times(merged(Options{}, mixed...)); !slices.Equal(got, times(merged(Options{}, whole...))) {
			t.Fatalf("seed %d: kinds change the choice of samples", seed)
		}
	}
}
