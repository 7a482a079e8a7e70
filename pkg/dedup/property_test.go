package dedup

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// world is a counter that grows and restarts, and servers that scrape it.
type world struct {
	rnd      *rand.Rand
	interval int64
	restarts []int64
}

func newWorld(seed uint64) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 1))}
	w.interval = []int64{1_000, 5_000, 15_000, 30_000, 60_000, 300_000}[w.rnd.IntN(6)]
	for range w.rnd.IntN(4) {
		w.restarts = append(w.restarts, w.rnd.Int64N(w.interval*200))
	}
	slices.Sort(w.restarts)
	return w
}

// at is the value of the counter: it grows by one per ms since its last restart.
func (w *world) at(t int64) float64 {
	since := -w.interval
	for _, r := range w.restarts {
		if r <= t {
			since = r
		}
	}
	return float64(t - since)
}

// scrape records n samples: with jitter, with holes in runs where the server was down, and with values
// read up to skew after the timestamp.
func (w *world) scrape(n int, holes float64, skew int64) (ps []point) {
	phase := w.rnd.Int64N(w.interval)
	down := 0
	for i := range int64(n) {
		if down == 0 && w.rnd.Float64() < holes {
			down = 1 + w.rnd.IntN(10)
		}
		if down > 0 {
			down--
			continue
		}
		t := phase + i*w.interval + w.rnd.Int64N(w.interval/50+1)
		v := t
		if skew > 0 {
			v += w.rnd.Int64N(skew)
		}
		ps = append(ps, point{t: t, v: w.at(v)})
	}
	return ps
}

// Shows that two servers that miss nothing give exactly what one of them alone gives.
func TestCompletePairIsOne(t *testing.T) {
	for seed := range uint64(1_000) {
		w := newWorld(seed)
		w.restarts = nil
		a, b := w.scrape(100, 0, 0), w.scrape(100, 0, 0)
		if a[0].t > b[0].t {
			a, b = b, a
		}
		got := merged(Options{}, b, a)
		if d := (b[0].t - a[0].t) * 20 / w.interval; d < 1 || d > 8 && d < 11 || d > 18 {
			continue // Jitter changes from one cell to the next who leads.
		}
		// The first scrape of the other may come before its first, and the last after its last.
		whole := func(one []point) bool {
			i := slices.Index(got, one[0])
			return i >= 0 && i <= 1 && len(got) >= i+len(one) && len(got) <= i+len(one)+1 && format(got[i:i+len(one)]) == format(one)
		}
		if !whole(a) && !whole(b) {
			t.Fatalf("seed %d:\n got %s\neither %s\n    or %s", seed, format(got), format(a), format(b))
		}
	}
}

// Shows that holes are filled: wherever some server has a sample, the result has one within an interval
// and a half.
func TestHolesAreFilled(t *testing.T) {
	for seed := range uint64(2_000) {
		w := newWorld(seed)
		rs := [][]point{w.scrape(200, 0.05, 0), w.scrape(200, 0.05, 0), w.scrape(200, 0.05, 0)}[:2+seed%2]
		got := merged(Options{}, rs...)
		for _, r := range rs {
			for _, p := range r {
				i, _ := slices.BinarySearchFunc(got, p.t, func(q point, t int64) int { return int(q.t - t) })
				near := i < len(got) && got[i].t-p.t <= w.interval*3/2 || i > 0 && p.t-got[i-1].t <= w.interval*3/2
				if !near {
					t.Fatalf("seed %d: nothing near %d, interval %d:\n%s", seed, p.t, w.interval, format(got))
				}
			}
		}
	}
}

// Shows that no fall is invented: the result falls as often as the counter restarted, at most, though
// values are read up to half an interval after their timestamps say; and that what is handed out was scraped.
func TestNoInventedFalls(t *testing.T) {
	for seed := range uint64(5_000) {
		w := newWorld(seed)
		rs := [][]point{w.scrape(200, 0.05, w.interval/2), w.scrape(200, 0.05, w.interval/2)}
		got := merged(Options{}, rs...)
		falls := 0
		for i := range got {
			if i > 0 && got[i].v < got[i-1].v {
				falls++
			}
			if !slices.ContainsFunc(rs, func(r []point) bool { return slices.Contains(r, got[i]) }) {
				t.Fatalf("seed %d: %v was never scraped", seed, got[i])
			}
		}
		if falls > len(w.restarts) {
			t.Fatalf("seed %d: %d falls, %d restarts\n%s", seed, falls, len(w.restarts), format(got))
		}
	}
}

// Shows that any input gives rising times, no panic, and nothing that was not recorded.
func FuzzStay(f *testing.F) {
	f.Add([]byte{15, 1, 15, 2, 15, 3, 30, 4}, []byte{5, 1, 15, 2, 15, 3, 15, 4}, true)
	f.Add([]byte{0, 0, 0, 0, 255, 255}, []byte{}, false)
	f.Add([]byte{1, 1, 1, 255, 1, 1}, []byte{1, 1, 1, 2, 1, 255}, false)
	read := func(b []byte) (ps []point) {
		at := int64(0)
		for ; len(b) >= 2; b = b[2:] {
			d := binary.LittleEndian.Uint16(b)
			at += int64(d & 0xff)
			v := float64(d >> 8)
			if v == 255 {
				v = stale
			}
			ps = append(ps, point{t: at, v: v})
		}
		return ps
	}
	f.Fuzz(func(t *testing.T, x, y []byte, counter bool) {
		a, b := read(x), read(y)
		opts := Options{}
		_ = counter
		got := merged(opts, a, b)
		for i, p := range got {
			if i > 0 && p.t <= got[i-1].t {
				t.Fatalf("times do not rise: %s", format(got))
			}
			same := func(q point) bool {
				return q.t == p.t && (q.v == p.v || value.IsStaleNaN(p.v) && value.IsStaleNaN(q.v))
			}
			if !slices.ContainsFunc(a, same) && !slices.ContainsFunc(b, same) {
				t.Fatalf("%v was never scraped", p)
			}
		}
	})
}

// ns/sample of the result: over chunks, as a query reads them.
func BenchmarkMerge(b *testing.B) {
	const n = 1_200
	encode := func(ps []point) []chunkenc.Chunk {
		var cs []chunkenc.Chunk
		for part := range slices.Chunk(ps, 120) {
			c := chunkenc.NewXORChunk()
			app, err := c.Appender()
			if err != nil {
				b.Fatal(err)
			}
			for _, p := range part {
				app.Append(p.t, p.v)
			}
			cs = append(cs, c)
		}
		return cs
	}
	for _, shape := range []struct {
		name  string
		holes float64
	}{{"healthy", 0}, {"flapping", 0.05}} {
		for replicas := 1; replicas <= 3; replicas++ {
			b.Run(fmt.Sprintf("%s/replicas=%d", shape.name, replicas), func(b *testing.B) {
				w := newWorld(7)
				w.interval = 15_000
				chunks := make([][]chunkenc.Chunk, replicas)
				for i := range chunks {
					chunks[i] = encode(w.scrape(n, shape.holes, 0))
				}
				its := make([]chunkenc.Iterator, replicas)
				inputs := make([]concat, replicas)
				var reuse chunkenc.Iterator
				samples := 0
				b.ReportAllocs()
				for b.Loop() {
					for i := range its {
						inputs[i].reset(chunks[i])
						its[i] = &inputs[i]
					}
					it := Merge(reuse, its, Options{})
					if replicas > 1 {
						reuse = it
					}
					for it.Next() != chunkenc.ValNone {
						samples++
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
			})
		}
	}
}

// concat walks over chunks one after the other.
type concat struct {
	chunkenc.Iterator
	chunks []chunkenc.Chunk
}

func (c *concat) reset(cs []chunkenc.Chunk) {
	c.Iterator, c.chunks = cs[0].Iterator(c.Iterator), cs[1:]
}

func (c *concat) Next() chunkenc.ValueType {
	for {
		if k := c.Iterator.Next(); k != chunkenc.ValNone || len(c.chunks) == 0 {
			return k
		}
		c.reset(c.chunks)
	}
}

//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (c *concat) Seek(t int64) chunkenc.ValueType {
	for k := c.Next(); ; k = c.Next() {
		if k == chunkenc.ValNone || c.AtT() >= t {
			return k
		}
	}
}
