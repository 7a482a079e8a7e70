package query

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
)

// haPair makes the chunks of two replicas of a series: any phases, jitter, outages of either, restarts of the
// counter, staleness markers, changes of the interval, and equal timestamps where the phases are equal.
func haPair(r *rand.Rand) []store.Chunk {
	stale := math.Float64frombits(value.StaleNaN)
	interval := []int64{1000, 15_000, 15_000, 60_000}[r.IntN(4)]
	n := 300 + r.IntN(900)
	change := n
	if r.IntN(4) == 0 {
		change = r.IntN(n)
	}
	counter := make([]float64, n)
	for i, v := 0, r.Float64()*1000; i < n; i++ {
		v += r.Float64() * 20
		if r.IntN(200) == 0 {
			v = r.Float64()
		}
		counter[i] = v
	}
	calm := r.IntN(2) == 0
	var cs []store.Chunk
	for replica := range 2 {
		phase := int64(0)
		if replica == 1 {
			phase = []int64{0, interval / 2, interval * 4 / 15, interval * 11 / 15, r.Int64N(interval)}[r.IntN(5)]
		}
		jitter := []int64{1, interval / 1000, interval / 100, interval / 8}[r.IntN(4)]
		t, between := base+phase, interval
		var ps []point
		flush := func() {
			if len(ps) > 0 {
				cs = append(cs, raw(ps...))
				ps = nil
			}
		}
		last := int64(0)
		for i, away := 0, 0; i < n; i++ {
			if i == change {
				between = interval * []int64{2, 4}[n%2]
			}
			t += between
			at := t + r.Int64N(max(jitter, 1))
			if away--; away > 0 || at <= last {
				continue
			}
			v := counter[i] + float64(replica)*r.Float64()
			if r.IntN(150) == 0 && (!calm || i < n/4) {
				away = 1 + r.IntN(60)
				if r.IntN(2) == 0 {
					v = stale
				} else {
					continue
				}
			}
			last = at
			if ps = append(ps, point{at, v}); len(ps) == 120 || r.IntN(500) == 0 {
				flush()
			}
		}
		flush()
	}
	return store.SortChunks(cs)
}

// Shows that pairs merged the fast way are what package dedup makes of them, sample by sample, for 3,000
// generated pairs and any range that is asked for; and that the fast way is taken where pairs are
// regular. (Margins of 2 intervals instead of 32 fail it, and so do pauses that need not be clearly different.)
func TestPairAsDedup(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	copied, all := 0, 0
	for i := range 3000 {
		cs := haPair(r)
		if !overlap(cs) {
			continue
		}
		from, to := cs[0].MinTime, cs[len(cs)-1].MaxTime
		read := reading{merge: dedup.Options{Counter: i%2 == 0}, reach: dedup.Reach(0)}
		read.mint, read.maxt = from-1000, to+1000
		if i%3 > 0 {
			read.mint = from + r.Int64N(to-from)
			read.maxt = read.mint + r.Int64N(to-read.mint+1)
		}
		se := &series{labels: labels.FromStrings("__name__", "x"), chunks: cs, reading: &read}
		var fast, plain batch
		done := fast.decodePair(se)
		if err := plain.decodeAny(se); err != nil {
			t.Fatal(err)
		}
		if len(fast.lanes) == 2 && !done {
			t.Errorf("pair %d: not merged", i)
		}
		if !done {
			continue
		}
		copied, all = copied+fast.pair.copied, all+fast.samples.Len()
		if at, ok := sameSamples(fast.samples, plain.samples); !ok {
			t.Fatalf("pair %d: sample %d of %d and %d differs; %d were copied", i, at, fast.samples.Len(), plain.samples.Len(), fast.pair.copied)
		}
	}
	t.Logf("%d of %d samples were copied", copied, all)
	if copied < all/10 {
		t.Errorf("only %d of %d samples were copied", copied, all)
	}
}

// sameSamples compares to the last bit.
func sameSamples(a, b xor.Samples) (at int, ok bool) {
	for i := range min(a.Len(), b.Len()) {
		if a.Times[i] != b.Times[i] || math.Float64bits(a.Values[i]) != math.Float64bits(b.Values[i]) {
			return i, false
		}
	}
	return min(a.Len(), b.Len()), slices.Equal(a.Times, b.Times)
}
