package merge

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/chunk/xor"
)

// one makes a block with one series of the points, in chunks of 100.
func one(replica string, mint, maxt int64, points []point) testBlock {
	var chunks [][]point
	for c := range slices.Chunk(points, 100) {
		chunks = append(chunks, c)
	}
	return testBlock{replica: replica, mint: mint, maxt: maxt, series: map[string][][]point{"series_0": chunks}}
}

func floatPoints(from, n, step int64) (points []point) {
	for i := range n {
		points = append(points, point{t: from + i*step, f: float64(i)})
	}
	return points
}

func compacted(t *testing.T, cfg Config) ([]point, Result) {
	t.Helper()
	out := t.TempDir()
	meta, res, err := Compact(t.Context(), cfg, map[string]string{"a": "b"}, out)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, filepath.Join(out, meta.ULID.String()))["series_0"], res
}

// Chunks that overlap no other are passed, and so are those of the first replica where the merged samples are its
// own.
func TestChunksPass(t *testing.T) {
	first := one("a", 0, 2*hour, floatPoints(0, 400, 15_000))
	second := one("b", 0, 2*hour, floatPoints(7000, 400, 15_000))
	later := one("a", 2*hour, 4*hour, floatPoints(2*hour, 400, 15_000))
	if _, res := compacted(t, Config{Inputs: inputsOf(t, []testBlock{first, later})}); res.ChunksMade != 0 || res.ChunksPassed != 8 {
		t.Errorf("apart: %+v", res)
	}
	if _, res := compacted(t, Config{Inputs: inputsOf(t, []testBlock{first, first})}); res.ChunksMade != 0 || res.ChunksPassed != 4 || res.Duplicates != 400 {
		t.Errorf("the same block twice: %+v", res)
	}
	_, res := compacted(t, Config{Inputs: inputsOf(t, []testBlock{first, second}), Dedup: Penalty})
	if res.ChunksPassed < 3 || res.ChunksMade > 2 {
		t.Errorf("replicas: %+v", res)
	}
}

// What a block's tombstones cover is not in the output, and everything else is.
func TestTombstones(t *testing.T) {
	// Mutant killed: an interval without its last millisecond.
	points := floatPoints(0, 400, 15_000)
	in := inputsOf(t, []testBlock{one("a", 0, 2*hour, points)})
	stones := tombstones.NewMemTombstones()
	r, err := stream.OpenReader(in[0].Files, stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var s stream.Series
	if err := errors.Join(r.Read(&s), r.Close()); err != nil {
		t.Fatal(err)
	}
	stones.AddInterval(refOf(&s), tombstones.Interval{Mint: 30_000, Maxt: 45_000}, tombstones.Interval{Mint: 60*15_000 + 1, Maxt: 200 * 15_000})
	in[0].Tombstones = stones
	got, _ := compacted(t, Config{Inputs: in})
	want := slices.DeleteFunc(points, func(p point) bool {
		return p.t >= 30_000 && p.t <= 45_000 || p.t > 60*15_000 && p.t <= 200*15_000
	})
	compare(t, content{"s": want}, content{"s": got})
}

// Staleness markers of a series that only one replica has stay; those that another replica contradicts go.
func TestMarkers(t *testing.T) {
	points := floatPoints(0, 100, 15_000)
	gone := append(slices.Clone(points[:60]), point{t: 60 * 15_000, f: math.Float64frombits(value.StaleNaN)})
	got, _ := compacted(t, Config{Inputs: inputsOf(t, []testBlock{one("a", 0, hour, gone)}), Dedup: Penalty})
	compare(t, content{"s": gone}, content{"s": got})
	got, _ = compacted(t, Config{Inputs: inputsOf(t, []testBlock{one("a", 0, hour, gone), one("b", 0, hour, floatPoints(5000, 100, 15_000))}), Dedup: Penalty})
	for _, p := range got {
		if value.IsStaleNaN(p.f) {
			t.Errorf("a marker at %d while the other replica goes on", p.t)
		}
	}
	if last := got[len(got)-1].t; last != 5000+99*15_000 {
		t.Errorf("the last sample is at %d", last)
	}
}

// Histograms that overlap, with floats among them, are merged sample by sample too.
func TestHistograms(t *testing.T) {
	var points []point
	for i := range int64(200) {
		p := point{t: i * 15_000}
		if i%70 < 60 {
			p.h = &histogram.Histogram{Count: uint64(i + 3), Sum: float64(i), Schema: 1, ZeroThreshold: 0.1,
				PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{i + 1, 1 - i}}
			p.f = p.h.Sum
		} else {
			p.f = float64(i)
		}
		points = append(points, p)
	}
	got, res := compacted(t, Config{Inputs: inputsOf(t, []testBlock{one("a", 0, hour, points[:150]), one("a", 0, hour, points[80:])})})
	compare(t, content{"s": points}, content{"s": got})
	if res.HistogramSamples == 0 || res.FloatSamples == 0 || res.ChunksMade == 0 {
		t.Errorf("%+v", res)
	}
}

// aggregateChunk makes a chunk of aggregates of n windows of five minutes of a counter that grows by 20 a window.
func aggregateChunk(from int64, n int, base float64) stream.Chunk {
	var s [aggr.Types]xor.Samples
	for i := range n {
		at := from + int64(i+1)*300_000 - 1
		for k, v := range []float64{20, base + float64(i), base, base + 1, base + float64(20*i+19)} {
			s[k].Times, s[k].Values = append(s[k].Times, at), append(s[k].Values, v)
		}
	}
	last := s[aggr.Count].Times[n-1]
	c := &s[aggr.Counter]
	c.Times, c.Values = append([]int64{from}, c.Times...), append([]float64{base}, c.Values...)
	c.Times, c.Values = append(c.Times, last), append(c.Values, c.Values[n])
	var parts [aggr.Types]aggr.Part
	for k := range parts {
		parts[k] = aggr.Part{Encoding: chunkenc.EncXOR, Data: xor.Encode(nil, s[k].Times, s[k].Values)}
	}
	return stream.Chunk{MinTime: s[0].Times[0], MaxTime: last, Encoding: aggr.Encoding, Data: aggr.Append(nil, &parts)}
}

// Of overlapping chunks of aggregates every window is kept once, from one chunk with all its aggregates, in order, and what
// is written can be read.
func TestAggregates(t *testing.T) {
	w := newWorker(&Config{MinTime: math.MinInt64, MaxTime: math.MaxInt64, Inputs: []Input{{Meta: &block.Meta{}}}})
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		w.reset()
		var es []entry
		windows := map[int64]bool{}
		for k := range 2 + r.IntN(4) {
			c := aggregateChunk(r.Int64N(50)*300_000, 1+r.IntN(40), float64(1000*k))
			for at := c.MinTime; at <= c.MaxTime; at += 300_000 {
				windows[at] = true
			}
			es = append(es, entry{Chunk: c, source: k})
		}
		slices.SortFunc(es, byTime)
		if err := w.aggregates(es); err != nil {
			t.Fatal(err)
		}
		last := int64(math.MinInt64)
		for _, c := range w.out {
			if c.MinTime <= last {
				t.Fatal("chunks out of order")
			}
			parts, err := aggr.Chunk(c.Data).Parts()
			if err != nil {
				t.Fatal(err)
			}
			var of [aggr.Types]xor.Samples
			for i := range of {
				if err := xor.Decode(&of[i], parts[i].Data); err != nil {
					t.Fatal(err)
				}
			}
			n := of[aggr.Count].Len()
			if of[aggr.Counter].Len() < n+1 || of[aggr.Sum].Len() != n || c.MinTime != of[0].Times[0] || c.MaxTime != of[0].Times[n-1] {
				t.Fatalf("%d counts, %d sums, %d of the counter", n, of[1].Len(), of[4].Len())
			}
			for i, at := range of[aggr.Count].Times {
				if !windows[at] {
					t.Fatalf("the window of %d is there twice, or never was", at)
				}
				delete(windows, at)
				if of[aggr.Max].Values[i] != of[aggr.Min].Values[i]+1 {
					t.Fatalf("the window of %d is of two chunks", at)
				}
			}
			last = c.MaxTime
		}
		if len(windows) > 0 {
			t.Fatalf("%d windows are gone", len(windows))
		}
	}
}

// A corrupt input is named, nothing is left behind, and what is corrupt can be left out.
func TestCorruptInput(t *testing.T) {
	in := inputsOf(t, []testBlock{one("a", 0, hour, floatPoints(0, 200, 15_000)), one("a", hour, 2*hour, floatPoints(hour, 200, 15_000))})
	dir := t.TempDir()
	b := one("a", 2*hour, 3*hour, floatPoints(2*hour, 200, 15_000))
	bad := b.write(t, dir, 7)
	file := filepath.Join(dir, "7", "chunks", "000001")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o666); err != nil {
		t.Fatal(err)
	}
	in = append(in, bad)
	out := t.TempDir()
	_, _, err = Compact(t.Context(), Config{Inputs: in}, nil, out)
	var of *InputError
	if !errors.As(err, &of) || of.ID != bad.Meta.ULID || stream.AsCorrupt(err) == nil {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// Bytes that have the right checksum and are no samples.
	garbage := in[0]
	w, err := stream.NewWriter(filepath.Join(dir, "garbage"), stream.WriterConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"__name__", "job", "series_0", "x"} {
		if err := w.AddSymbol([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.AddSeries([]uint32{0, 2, 1, 3}, []stream.Chunk{{MinTime: 5, MaxTime: 9, Encoding: chunkenc.EncXOR, Data: []byte{0, 9, 1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	garbage.Files = stream.Dir(filepath.Join(dir, "garbage"))
	for _, dedup := range []Dedup{OneToOne, Penalty} {
		of = nil
		_, _, err = Compact(t.Context(), Config{Inputs: []Input{garbage, in[0]}, Dedup: dedup}, nil, out)
		if !errors.As(err, &of) || stream.AsCorrupt(err) == nil {
			t.Errorf("bytes that are no samples: %v", err)
		}
	}
	got, _ := compacted(t, Config{Inputs: in, Skip: func(input int, _ *stream.CorruptError) bool { return input == 2 }})
	if len(got) < 450 || len(got) >= 600 {
		t.Errorf("%d samples", len(got))
	}
}
