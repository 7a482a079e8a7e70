package query

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
)

// pairs is how many generated pairs a test looks at: few, always the same, or KOIOS_DEDUP_PAIRS of them.
func pairs(few int) int {
	if n, err := strconv.Atoi(os.Getenv("KOIOS_DEDUP_PAIRS")); err == nil {
		return n
	}
	return few
}

// haPair makes the chunks of two replicas of a series: any phases, jitter, outages of either, restarts of the
// counter, staleness markers, changes of the interval, chunks that tell whose they are or don't, and equal timestamps where the phases are equal.
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
	named := r.IntN(4) > 0
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
				c := raw(ps...)
				if named {
					c.Replica = string(rune('a' + replica))
				}
				cs = append(cs, c)
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
	if r.IntN(4) == 0 { // Another store has some of it too, cut elsewhere.
		for _, c := range slices.Clone(cs) {
			if r.IntN(2) == 0 {
				var s xor.Samples
				if err := xor.Decode(&s, c.Raw.Data); err != nil {
					panic(err)
				}
				var ps []point
				for i := range s.Len() / 2 {
					ps = append(ps, point{s.Times[i+s.Len()/4], s.Values[i+s.Len()/4]})
				}
				if len(ps) > 0 {
					again := raw(ps...)
					again.Replica = c.Replica
					cs = append(cs, again)
				}
			}
		}
	}
	return store.SortChunks(cs)
}

// all reads every sample of an iterator.
func all(t *testing.T, it chunkenc.Iterator) (s xor.Samples) {
	t.Helper()
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		at, v := it.At()
		s.Times, s.Values = append(s.Times, at), append(s.Values, v)
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

// Shows that floats merged in arrays, whole as a scan does it and stretch by stretch as an iterator does, are what
// the iterators of package dedup make of them, sample by sample, for any range that is asked for; and that
// neither the order in which chunks come nor the stretches change anything.
//
// Kills: Around without what lies before mint; without what lies after maxt; a drop of everything before mint; join
// that appends; markers that are lost.
func TestFloatsAsIterators(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	var arrays floatIterator
	var generic iterator
	var m merged
	for i := range pairs(600) {
		cs := haPair(r)
		from, to := cs[0].MinTime, cs[len(cs)-1].MaxTime
		read := reading{reach: dedup.Reach(0)}
		read.mint, read.maxt = from-1000, to+1000
		if i%3 > 0 {
			read.mint = from + r.Int64N(to-from)
			read.maxt = read.mint + r.Int64N(to-read.mint+1)
		}
		if i%3 == 2 { // Between two chunks, where what is before has to be decoded for its own sake.
			read.mint = cs[r.IntN(len(cs))].MinTime - r.Int64N(20_000)
			read.maxt = read.mint + r.Int64N(max(1, to-read.mint))
		}
		se := &series{labels: labels.FromStrings("__name__", "x"), chunks: cs, reading: &read}
		generic.reset(se)
		want := all(t, &generic)
		m.reset(se)
		times, values, err := m.Between(read.mint, read.maxt)
		if err != nil {
			t.Fatal(err)
		}
		check := func(way string, got xor.Samples) {
			t.Helper()
			if at, ok := sameSamples(got, want); !ok {
				t.Fatalf("pair %d, %s: sample %d of %d and %d differs\n%s", i, way, at, got.Len(), want.Len(), around(at, got, want))
			}
		}
		check("whole", xor.Samples{Times: times, Values: values})
		arrays.reset(se)
		check("in stretches", all(t, &arrays))
		// Seeks find what Next finds.
		arrays.reset(se)
		for at := read.mint; at <= read.maxt; at += 1 + r.Int64N(1+(read.maxt-read.mint)/20) {
			kind := arrays.Seek(at)
			k, _ := slices.BinarySearch(want.Times, at)
			if (kind == chunkenc.ValNone) != (k == want.Len()) || kind != chunkenc.ValNone && arrays.AtT() != want.Times[k] {
				t.Fatalf("pair %d: seek %d found %d", i, at, arrays.AtT())
			}
		}
		mixed := slices.Clone(cs)
		r.Shuffle(len(mixed), func(a, b int) { mixed[a], mixed[b] = mixed[b], mixed[a] })
		se.chunks = store.SortChunks(mixed)
		arrays.reset(se)
		check("in another order", all(t, &arrays))
	}
}

// Shows that overlapping chunks of one replica are joined by time, and that where they disagree the greater value
// counts, whichever chunk it is in. (It kills join that takes the last value, and the first.)
func TestChunksOfOneReplica(t *testing.T) {
	nan := math.NaN()
	a, b := raw(point{0, 1}, point{10, 5}, point{20, 2}, point{30, nan}), raw(point{10, 3}, point{15, 9}, point{20, 7}, point{30, 4}, point{40, 1})
	a.Replica, b.Replica = "a", "a"
	read := reading{maxt: 100}
	se := &series{chunks: store.SortChunks([]store.Chunk{a, b})}
	se.reading = &read
	got := all(t, se.Iterator(nil))
	if want := (xor.Samples{Times: []int64{0, 10, 15, 20, 30, 40}, Values: []float64{1, 5, 9, 7, 4, 1}}); !slices.Equal(got.Times, want.Times) || !slices.Equal(got.Values, want.Values) {
		t.Errorf("got %v", got)
	}
}

// around shows what lies around the sample that differs.
func around(at int, a, b xor.Samples) string {
	part := func(s xor.Samples) string { return fmt.Sprint(s.Times[max(0, min(at-3, s.Len())):min(at+4, s.Len())]) }
	return part(a) + "\n" + part(b)
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
