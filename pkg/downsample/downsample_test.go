package downsample

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/chunk/xor"
)

// What Thanos made of some raw series, as testdata/thanos.txt has it, is what we make of them. (The test beside a
// real Thanos writes the file anew where KOIOS_UPDATE is its path.)
func TestGolden(t *testing.T) {
	data, err := os.ReadFile("testdata/thanos.txt")
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{resolution: block.Resolution5m}
	series := 0
	for _, text := range strings.Split(string(data), "series ")[1:] {
		name, rest, _ := strings.Cut(text, "\n")
		var raw []stream.Chunk
		var want, got []string
		for line := range strings.Lines(rest) {
			var (
				kind, payload string
				c             stream.Chunk
			)
			if _, err := fmt.Sscan(line, &kind, &c.Encoding, &c.MinTime, &c.MaxTime, &payload); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if c.Data, err = hex.DecodeString(payload); err != nil {
				t.Fatal(err)
			}
			if kind == "raw" {
				raw = append(raw, c)
			} else {
				want = append(want, fmt.Sprintf("%d %d %x", c.MinTime, c.MaxTime, c.Data))
			}
		}
		m.out = m.out[:0]
		if err := m.raw(raw); err != nil {
			t.Fatal(err)
		}
		for _, c := range m.out {
			got = append(got, fmt.Sprintf("%d %d %x", c.MinTime, c.MaxTime, c.Data))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		series++
	}
	if series < 5 {
		t.Errorf("only %d series", series)
	}
}

// window is what a naive reader keeps of a window of time.
type window struct{ count, sum, least, greatest float64 }

// naive walks the samples once, with none of what the package does.
func naive(points []point, resolution int64) (map[int64]window, float64) {
	all := map[int64]window{}
	growth, before := 0.0, math.NaN()
	for _, p := range points {
		if math.IsNaN(p.f) {
			continue
		}
		end := (p.t/resolution+1)*resolution - 1
		w, ok := all[end]
		if !ok {
			w.least, w.greatest = math.Inf(1), math.Inf(-1)
		}
		w.count++
		w.sum += p.f
		w.least, w.greatest = min(w.least, p.f), max(w.greatest, p.f)
		all[end] = w
		if p.f >= before {
			growth += p.f - before
		} else if p.f < before {
			growth += p.f
		}
		before = p.f
	}
	return all, growth
}

// readSeries reads the aggregates of a block's series, by the end of their window, and the growth of their counters.
func readSeries(t *testing.T, dir string, resolution int64) (map[string]map[int64]window, map[string]float64) {
	t.Helper()
	r, err := stream.OpenReader(stream.Dir(dir), stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var (
		s       stream.Series
		scratch = labels.NewScratchBuilder(0)
		all     = map[string]map[int64]window{}
		growth  = map[string]float64{}
	)
	for {
		err := r.Read(&s)
		if errors.Is(err, io.EOF) {
			return all, growth
		}
		if err != nil {
			t.Fatal(err)
		}
		ls, err := r.Labels(&scratch, &s)
		if err != nil {
			t.Fatal(err)
		}
		windows := map[int64]window{}
		var counter aggr.CounterReader
		var totals xor.Samples
		for _, c := range s.Chunks {
			parts, err := aggr.Chunk(c.Data).Parts()
			if err != nil {
				t.Fatal(err)
			}
			if parts[aggr.Count].Encoding != chunkenc.EncXOR || parts[aggr.Sum].Encoding != chunkenc.EncXOR {
				continue // of histograms
			}
			var of [aggr.Types]xor.Samples
			for i := range of {
				if err := xor.Decode(&of[i], parts[i].Data); err != nil {
					t.Fatal(err)
				}
			}
			counter.Read(&totals, of[aggr.Counter])
			for i, at := range of[aggr.Count].Times {
				if at < c.MinTime || at > c.MaxTime {
					t.Fatalf("%s: a window at %d in a chunk from %d to %d", ls, at, c.MinTime, c.MaxTime)
				}
				end := (at/resolution+1)*resolution - 1
				if _, twice := windows[end]; twice {
					t.Fatalf("%s: the window of %d is there twice", ls, at)
				}
				windows[end] = window{of[0].Values[i], of[1].Values[i], of[2].Values[i], of[3].Values[i]}
			}
		}
		if n := totals.Len(); n > 0 {
			growth[ls.String()] = totals.Values[n-1] - totals.Values[0]
			all[ls.String()] = windows
		}
	}
}

// Every window of every series has the count, sum, least and greatest of its samples, and the counters of all chunks
// together grow as the samples did: at five minutes, and at one hour made of those.
func TestAsANaiveReader(t *testing.T) {
	// Mutants killed: windows one millisecond longer; the total as the trailing sample of a counter.
	for seed := range uint64(3) {
		length := 60 * hour
		all := everyKind(seed, length)
		dir := t.TempDir()
		in, meta := writeBlock(t, dir, all, origin, origin+length)
		for _, resolution := range []int64{block.Resolution5m, block.Resolution1h} {
			m, res, err := Downsample(t.Context(), stream.Dir(in), meta, dir, Config{Workers: 2})
			if err != nil {
				t.Fatal(err)
			}
			if m.Resolution() != resolution || m.MinTime != meta.MinTime || m.MaxTime != meta.MaxTime || m.ULID == meta.ULID {
				t.Errorf("metadata of the block made: %+v", m)
			}
			if m.Stats.NumSamples != res.Samples || res.Samples == 0 {
				t.Errorf("%d samples in metadata, %d were written", m.Stats.NumSamples, res.Samples)
			}
			in, meta = filepath.Join(dir, m.ULID.String()), m
			windows, growth := readSeries(t, in, resolution)
			for _, s := range all {
				name := s.labels.String()
				if s.points[0].h != nil || s.points[0].fh != nil || strings.Contains(name, "infinite") {
					continue
				}
				want, grown := naive(s.points, resolution)
				if len(want) == 0 {
					continue
				}
				checkWindows(t, name, want, windows[name])
				if strings.Contains(name, "counter") && math.Abs(grown-growth[name]) > 1e-6*(1+math.Abs(grown)) {
					t.Errorf("%s: the counter grew by %v, want %v", name, growth[name], grown)
				}
			}
		}
	}
}

func checkWindows(t *testing.T, name string, want, got map[int64]window) {
	t.Helper()
	if len(want) != len(got) {
		t.Errorf("%s: %d windows, want %d", name, len(got), len(want))
		return
	}
	for end, w := range want {
		g := got[end]
		if w.count != g.count || math.Abs(w.sum-g.sum) > 1e-9*(1+math.Abs(w.sum))*w.count || w.least != g.least || w.greatest != g.greatest {
			t.Errorf("%s: the window to %d is %v, want %v", name, end, g, w)
			return
		}
	}
}

// The running total of histograms of a gauge is the gauge, whether it rises or falls; that of a counter grows by all that
// comes after a restart.
func TestTotalsOfHistograms(t *testing.T) {
	// Mutants killed: a gauge that falls taken for a counter that was reset.
	for _, hint := range []histogram.CounterResetHint{histogram.GaugeType, histogram.UnknownCounterReset} {
		var samples []histSample
		var want []float64
		grown, before := 0.0, 0.0
		for i, n := range []uint64{5, 9, 4, 2, 7, 7, 1, 30} {
			h := newHistogram(1).ToFloat(nil)
			h.CounterResetHint, h.ZeroCount = hint, float64(n)
			h.Count += float64(n) - 2
			samples = append(samples, histSample{int64(i) * block.Resolution5m, h})
			switch {
			case hint == histogram.GaugeType:
				grown = h.Count
			case h.Count < before:
				grown += h.Count
			default:
				grown += h.Count - before
			}
			before = h.Count
			want = append(want, grown)
		}
		w, err := aggregateHistograms(samples, block.Resolution5m)
		if err != nil {
			t.Fatal(err)
		}
		var got []float64
		for _, h := range w.totals {
			got = append(got, h.Count)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("hint %v: %s", hint, diff)
		}
	}
}

// One worker or several, and whatever is read at once: the same bytes.
func TestSameBytesAtAnyWidth(t *testing.T) {
	// Mutant killed: batches written as they come ready.
	dir := t.TempDir()
	in, meta := writeBlock(t, dir, everyKind(4, 30*hour), origin, origin+30*hour)
	var want []byte
	for _, cfg := range []Config{{Workers: 1}, {Workers: 8}, {Workers: 3, WindowBytes: 100}} {
		m, _, err := Downsample(t.Context(), stream.Dir(in), meta, dir, cfg)
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, name := range []string{"index", "chunks/000001"} {
			b, err := os.ReadFile(filepath.Join(dir, m.ULID.String(), name))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, b...)
		}
		if want == nil {
			want = got
		}
		if !bytes.Equal(want, got) {
			t.Errorf("%+v: other bytes", cfg)
		}
	}
}

// A corrupt chunk ends the work with an error that says where, and leaves nothing behind; told to, it is left out and the
// rest is there.
func TestCorruptChunk(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	in, meta := writeBlock(t, dir, everyKind(5, 50*hour), origin, origin+50*hour)
	path := filepath.Join(in, "chunks", "000001")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	_, _, err = Downsample(t.Context(), stream.Dir(in), meta, out, Config{})
	if c := stream.AsCorrupt(err); c == nil || c.Fault != stream.FaultChecksum || c.File != "chunks/000001" {
		t.Errorf("a flipped bit gives %v", err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	skipped := 0
	m, res, err := Downsample(t.Context(), stream.Dir(in), meta, out, Config{Skip: func(*stream.CorruptError) bool { skipped++; return true }})
	if err != nil || m == nil || skipped != 1 || res.Series < 30 {
		t.Errorf("%d chunks skipped, %d series: %v", skipped, res.Series, err)
	}
}

// Nothing but staleness makes no block.
func TestNothing(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	s := rawSeries{labels: labels.FromStrings("a", "b"), points: []point{{t: origin, f: math.Float64frombits(value.StaleNaN)}}}
	in, meta := writeBlock(t, dir, []rawSeries{s}, origin, origin+hour)
	m, res, err := Downsample(t.Context(), stream.Dir(in), meta, out, Config{})
	if m != nil || err != nil || res.SeriesLeftOut != 1 || res.Dropped != 1 {
		t.Errorf("%v, %+v, %v", m, res, err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Any bytes for a raw chunk give aggregates or an error.
func FuzzRaw(f *testing.F) {
	f.Add(byte(1), xor.Encode(nil, []int64{origin, origin + 1}, []float64{1, 2}))
	f.Add(byte(1), xor.Encode(nil, []int64{origin + 10, origin}, []float64{1, 2}))
	for _, s := range histogramSeries(rand.New(rand.NewPCG(1, 1)), hour/4) {
		for _, c := range encodeRaw(f, s) {
			f.Add(byte(c.Encoding), c.Data)
		}
	}
	f.Fuzz(func(t *testing.T, enc byte, data []byte) {
		m := &maker{resolution: block.Resolution5m}
		c := stream.Chunk{Encoding: chunkenc.Encoding(enc), Data: data}
		if err := m.raw([]stream.Chunk{c, c}); err != nil {
			return
		}
		for _, c := range m.out {
			if _, err := aggr.Chunk(c.Data).Parts(); err != nil || c.MinTime > c.MaxTime {
				t.Fatalf("chunk from %d to %d: %v", c.MinTime, c.MaxTime, err)
			}
		}
	})
}

// Any bytes for an aggregate chunk give coarser aggregates or an error.
func FuzzAggregates(f *testing.F) {
	for _, s := range everyKind(6, 2*hour) {
		m := &maker{resolution: block.Resolution5m}
		if err := m.raw(encodeRaw(f, s)); err != nil {
			f.Fatal(err)
		}
		for _, c := range m.out {
			f.Add(c.Data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &maker{resolution: block.Resolution1h}
		c := stream.Chunk{Encoding: aggr.Encoding, Data: data}
		if err := m.aggregates([]stream.Chunk{c, c}, block.Resolution5m); err != nil {
			return
		}
		for _, c := range m.out {
			if _, err := aggr.Chunk(c.Data).Parts(); err != nil || c.MinTime > c.MaxTime {
				t.Fatalf("chunk from %d to %d: %v", c.MinTime, c.MaxTime, err)
			}
		}
	})
}

// BenchmarkRaw takes two days of a counter at 15 s apart: decoding, aggregating and encoding, in ns per raw sample.
func BenchmarkRaw(b *testing.B) {
	const samples = 11520
	var chunks []stream.Chunk
	var decoded xor.Samples
	v := 0.0
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < samples; i += 120 {
		var s xor.Samples
		for k := range 120 {
			v += math.Floor(r.ExpFloat64() * 50)
			s.Times, s.Values = append(s.Times, origin+int64(i+k)*15_000), append(s.Values, v)
		}
		chunks = append(chunks, stream.Chunk{MinTime: s.Times[0], MaxTime: s.Times[119], Encoding: chunkenc.EncXOR, Data: xor.Encode(nil, s.Times, s.Values)})
	}
	m := &maker{resolution: block.Resolution5m}
	per := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/samples, "ns/sample")
	}
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			decoded.Reset()
			for i := range chunks {
				if err := xor.Decode(&decoded, chunks[i].Data); err != nil {
					b.Fatal(err)
				}
			}
		}
		per(b)
	})
	b.Run("aggregate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.floats.aggregate(decoded, m.resolution)
		}
		per(b)
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.out, m.arena = m.out[:0], m.arena[:0]
			m.emitFloats(&m.floats)
		}
		per(b)
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.out, m.arena = m.out[:0], m.arena[:0]
			if err := m.raw(chunks); err != nil {
				b.Fatal(err)
			}
		}
		per(b)
	})
}
