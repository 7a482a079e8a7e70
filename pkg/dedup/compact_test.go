package dedup

import (
	"math"
	"math/rand/v2"
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
// Kills: no fill; near that is the whole reach.
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

// wild makes a replica whose rhythm changes all the time, from seconds to most of an hour, with markers.
func wild(rnd *rand.Rand, until int64) (ps []point) {
	each := int64(1 + rnd.IntN(600_000))
	for t := rnd.Int64N(600_000); t < until; {
		v := float64(t)
		if rnd.IntN(15) == 0 {
			v = stale
		}
		ps = append(ps, point{t: t, v: v})
		switch rnd.IntN(12) {
		case 0:
			each = 1 + rnd.Int64N([]int64{10_000, 100_000, 1_000_000, 3_000_000}[rnd.IntN(4)])
		case 1:
			t += each * rnd.Int64N(12)
		}
		t += max(1, each+rnd.Int64N(1+each/4)-each/8)
	}
	return ps
}

// Shows that any range, split anywhere, answers as the whole whatever the samples are like: replicas that know
// no rhythm, by arrays that hold no more than they were asked for and by iterators.
//
// Kills: near that is the whole reach; a recorder that reads but one sample behind what is wanted, and one that keeps
// none before it; an end of a hole that counts only when it lies within what is wanted; markers that count only there.
func TestAnyRangeOfAnything(t *testing.T) {
	for seed := range uint64(pairs(400)) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		const until = 40_000_000
		rs := [][]point{wild(rnd, until), wild(rnd, until), wild(rnd, until)}[:2+seed%2]
		var sources []Source[float64]
		for _, r := range rs {
			sources = append(sources, newSource(r))
		}
		whole := floatsOf(math.MinInt64, math.MaxInt64, sources...)
		if got, want := format(merged(Options{}, rs...)), format(whole); got != want {
			t.Fatalf("seed %d, iterators:\n got %s\nwant %s", seed, got, want)
		}
		for range 20 {
			from := rnd.Int64N(until)
			to := from + rnd.Int64N(2_000_000)
			want := format(between(whole, from, to))
			var read [][]point
			sources = sources[:0]
			for _, r := range rs {
				read = append(read, between(r, from-Reach(0), to+Reach(0)))
				sources = append(sources, newSource(read[len(read)-1]))
			}
			if got := format(floatsOf(from, to, sources...)); got != want {
				t.Fatalf("seed %d, from %d to %d, arrays:\n got %s\nwant %s", seed, from, to, got, want)
			}
			if got := format(between(merged(Options{}, read...), from, to)); got != want {
				t.Fatalf("seed %d, from %d to %d, iterators:\n got %s\nwant %s", seed, from, to, got, want)
			}
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
