package dedup

import (
	"math"
	"slices"
	"testing"
)

// source is what one replica recorded, and counts how often it is asked.
type source struct {
	w     Window[float64]
	asked int
}

func newSource(ps []point) *source {
	s := &source{}
	for _, p := range ps {
		if math.Float64bits(p.v) == math.Float64bits(stale) {
			s.w.Marks = append(s.w.Marks, p.t)
			continue
		}
		s.w.Times, s.w.Values = append(s.w.Times, p.t), append(s.w.Values, p.v)
	}
	return s
}

func (s *source) Around(int64, int64, bool, int64) (Window[float64], error) {
	s.asked++
	return s.w, nil
}

func (s *source) Ahead(int64) int64 { return math.MaxInt64 }

func floatsOf(from, to int64, sources ...Source[float64]) (ps []point) {
	m := NewFloats()
	m.Reset(sources, Reach(0))
	times, values, err := m.Between(from, to)
	if err != nil {
		panic(err)
	}
	for i, t := range times {
		ps = append(ps, point{t: t, v: values[i]})
	}
	return ps
}

// Shows that merging arrays at once gives what the iterator gives, stretch by stretch, for two and three replicas
// with markers, and that a compactor that merges block by block, reading as far beyond each as samples
// matter, writes what a query merges: dedup(compact(x)) = dedup(x).
//
// Kills: a reach of a third; a near that is not the same on both sides of a hole.
func TestCompactedAsQueried(t *testing.T) {
	for seed := range uint64(pairs(400)) {
		p := newPair(seed, 400)
		rs := p.replicas
		if seed%2 == 0 {
			third := newPair(seed+7, 400).replicas[0]
			for i := range third {
				third[i].t = third[i].t%p.interval + int64(i)*p.interval
			}
			slices.SortFunc(third, func(a, b point) int { return int(a.t - b.t) })
			rs = append(rs, slices.CompactFunc(third, func(a, b point) bool { return a.t == b.t }))
		}
		for _, r := range rs {
			for range 4 {
				r[p.rnd.IntN(len(r))].v = stale
			}
		}
		want := format(merged(Options{}, rs...))
		var sources []Source[float64]
		for _, r := range rs {
			sources = append(sources, newSource(r))
		}
		if got := format(floatsOf(math.MinInt64, math.MaxInt64, sources...)); got != want {
			t.Fatalf("seed %d, arrays:\n got %s\nwant %s", seed, got, want)
		}
		// Blocks of any length, and each reads its own samples only as far as it must.
		var compacted []point
		for from := int64(0); from < 500*p.interval; {
			to := from + 1 + p.rnd.Int64N(100*p.interval)
			sources = sources[:0]
			for _, r := range rs {
				sources = append(sources, newSource(between(r, from-Reach(0), to+Reach(0))))
			}
			compacted = append(compacted, floatsOf(from, to, sources...)...)
			from = to + 1
		}
		if got := format(compacted); got != want {
			t.Fatalf("seed %d, interval %d, compacted:\n got %s\nwant %s", seed, p.interval, got, want)
		}
		if got := format(merged(Options{}, compacted)); got != want {
			t.Fatalf("seed %d: compacted and merged again:\n got %s\nwant %s", seed, got, want)
		}
	}
}

// Shows that a second replica is not asked for anything while the first has everything, and that it is asked where
// the first has a hole, a marker, or an end. (It kills the mutant that asks for both at once.)
func TestSecondIsReadInHolesOnly(t *testing.T) {
	f := func(name string, from, to int64, want bool, first string) {
		t.Helper()
		a, b := newSource(parse(first)), newSource(parse(every(5, 605, 15)))
		floatsOf(from*1000, to*1000, a, b)
		if (b.asked > 0) != want {
			t.Errorf("%s: the second was asked %d times", name, b.asked)
		}
	}
	whole := every(0, 600, 15)
	f("complete", 100, 400, false, whole)
	f("complete but for what is not wanted", 100, 250, false, every(0, 600, 15, 300, 400))
	f("a hole", 100, 500, true, every(0, 600, 15, 300, 400))
	f("in the hole", 330, 340, true, every(0, 600, 15, 300, 400))
	f("the end", 400, 700, true, whole)
	f("the start", -10, 100, true, whole)
	f("a marker", 100, 400, true, every(0, 290, 15)+"290:stale "+every(300, 600, 15))
}
