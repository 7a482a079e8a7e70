package downsample

import (
	"crypto/rand"
	"fmt"
	"math"
	mrand "math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// point is a sample of any kind; the zero histograms mean a float.
type point struct {
	t  int64
	f  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

type rawSeries struct {
	labels labels.Labels
	points []point
}

const hour = int64(3_600_000)

// origin is a multiple of all windows.
const origin = int64(1_699_992_000_000) / (24 * hour) * 24 * hour

// everyKind makes series of every kind from origin on, as long as length ms.
func everyKind(seed uint64, length int64) []rawSeries {
	r := mrand.New(mrand.NewPCG(seed, 8))
	var all []rawSeries
	add := func(kind string, step int64, next func(i int, before float64) (float64, bool)) {
		s := rawSeries{labels: labels.FromStrings("__name__", kind, "i", fmt.Sprint(len(all)))}
		v := 0.0
		for i, t := 0, origin+r.Int64N(step); t < origin+length; i, t = i+1, t+step+r.Int64N(20) {
			got, ok := next(i, v)
			if ok {
				s.points = append(s.points, point{t: t, f: got})
			}
			if !math.IsNaN(got) {
				v = got
			}
		}
		if len(s.points) > 0 {
			all = append(all, s)
		}
	}
	for _, step := range []int64{15_000, 30_000, 60_000, 61_000, 299_000, 600_000, 4_000_000} {
		add("counter", step, func(_ int, v float64) (float64, bool) {
			if r.IntN(500) == 0 {
				v = 0
			}
			return v + math.Floor(r.ExpFloat64()*50), true
		})
		add("gauge", step, func(_ int, v float64) (float64, bool) { return v + r.NormFloat64(), true })
		add("holes", step, func(i int, v float64) (float64, bool) { return v + 1, i/200%3 != 1 })
		add("stale", step, func(i int, v float64) (float64, bool) {
			if r.IntN(40) == 0 {
				return math.Float64frombits(value.StaleNaN), true
			}
			if r.IntN(40) == 0 {
				return math.NaN(), true
			}
			return v + 1, true
		})
		add("infinite", step, func(_ int, _ float64) (float64, bool) {
			if r.IntN(40) == 0 {
				return math.Inf(1 - 2*r.IntN(2)), true
			}
			return r.Float64(), true
		})
	}
	add("constant", 15_000, func(int, float64) (float64, bool) { return 7, true })
	add("short", 15_000, func(i int, v float64) (float64, bool) { return v + 1, i < 50 })
	add("single", 15_000, func(i int, v float64) (float64, bool) { return 3, i == 50 })
	add("onlynan", 15_000, func(i int, v float64) (float64, bool) { return math.NaN(), i < 5 })
	all = append(all, histogramSeries(r, length)...)
	return all
}

// histogramSeries makes series of native histograms.
func histogramSeries(r *mrand.Rand, length int64) []rawSeries {
	var all []rawSeries
	for kind := range 8 {
		s := rawSeries{labels: labels.FromStrings("__name__", "histogram", "kind", fmt.Sprint(kind))}
		h := newHistogram(1)
		for i, t := 0, origin+r.Int64N(30_000); t < origin+length; i, t = i+1, t+60_000 {
			grow := r.IntN(4)
			for b := range h.PositiveBuckets {
				h.PositiveBuckets[b] += int64(grow * (b & 1)) // deltas: every second bucket stands above the others
			}
			h.Count, h.Sum = countOf(h), h.Sum+float64(grow)
			if kind == 2 && r.IntN(300) == 0 {
				h = newHistogram(1) // a restart
			}
			if kind >= 6 && i%17 == 0 {
				h = newHistogram(1) // a gauge goes down
			}
			c := h.Copy()
			switch {
			case kind == 6 || kind == 7:
				c.CounterResetHint = histogram.GaugeType
				if kind == 7 {
					s.points = append(s.points, point{t: t, fh: c.ToFloat(nil)})
					continue
				}
			case kind == 1 || kind == 4:
				fh := c.ToFloat(nil)
				if kind == 4 {
					fh.CounterResetHint = histogram.GaugeType
				}
				s.points = append(s.points, point{t: t, fh: fh})
				continue
			case kind == 3 && i/500%2 == 1:
				if err := c.ReduceResolution(0); err != nil {
					panic(err)
				}
			case kind == 5 && i/700%2 == 1:
				s.points = append(s.points, point{t: t, f: float64(i)})
				continue
			}
			s.points = append(s.points, point{t: t, h: c})
		}
		all = append(all, s)
	}
	return all
}

func newHistogram(schema int32) *histogram.Histogram {
	h := &histogram.Histogram{
		Schema: schema, ZeroThreshold: 0.001, ZeroCount: 2, Sum: 10,
		PositiveSpans:   []histogram.Span{{Offset: 0, Length: 3}, {Offset: 2, Length: 2}},
		PositiveBuckets: []int64{3, 1, -1, 2, 0},
	}
	h.Count = countOf(h)
	return h
}

func countOf(h *histogram.Histogram) uint64 {
	n, bucket := h.ZeroCount, int64(0)
	for _, d := range h.PositiveBuckets {
		bucket += d
		n += uint64(bucket)
	}
	return n
}

// listed is a sample for Prometheus's encoder.
type listed struct{ point }

func (l listed) T() int64                      { return l.t }
func (l listed) F() float64                    { return l.f }
func (l listed) H() *histogram.Histogram       { return l.h }
func (l listed) FH() *histogram.FloatHistogram { return l.fh }
func (l listed) Copy() chunks.Sample           { return l }

func (l listed) Type() chunkenc.ValueType {
	switch {
	case l.h != nil:
		return chunkenc.ValHistogram
	case l.fh != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// writeBlock writes a raw block of the series below parent.
func writeBlock(t testing.TB, parent string, all []rawSeries, mint, maxt int64) (string, *block.Meta) {
	t.Helper()
	id := ulid.MustNew(ulid.Now(), rand.Reader)
	dir := filepath.Join(parent, id.String())
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b rawSeries) int { return labels.Compare(a.labels, b.labels) })
	w, err := stream.NewWriter(dir, stream.WriterConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	var symbols []string
	for _, s := range all {
		s.labels.Range(func(l labels.Label) { symbols = append(symbols, l.Name, l.Value) })
	}
	slices.Sort(symbols)
	symbols = slices.Compact(symbols)
	for _, s := range symbols {
		if err := w.AddSymbol([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range all {
		var pairs []uint32
		s.labels.Range(func(l labels.Label) {
			for _, x := range []string{l.Name, l.Value} {
				i, _ := slices.BinarySearch(symbols, x)
				pairs = append(pairs, uint32(i))
			}
		})
		if err := w.AddSeries(pairs, encodeRaw(t, s)); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	m := &block.Meta{
		BlockMeta: tsdb.BlockMeta{
			ULID: id, MinTime: mint, MaxTime: maxt, Version: 1,
			Stats:      tsdb.BlockStats{NumSamples: stats.Samples, NumSeries: stats.Series, NumChunks: stats.Chunks},
			Compaction: tsdb.BlockMetaCompaction{Level: 3, Sources: []ulid.ULID{id}},
		},
		Thanos: block.Thanos{
			Version: 1, Labels: map[string]string{"cluster": "a"}, Source: block.SourceTest,
			SegmentFiles: stats.SegmentFiles,
		},
	}
	if err := block.WriteMetaDir(dir, m); err != nil {
		t.Fatal(err)
	}
	return dir, m
}

func encodeRaw(t testing.TB, s rawSeries) []stream.Chunk {
	t.Helper()
	samples := make([]chunks.Sample, len(s.points))
	for i, p := range s.points {
		samples[i] = listed{p}
	}
	it := storage.NewSeriesToChunkEncoder(storage.NewListSeries(s.labels, samples)).Iterator(nil)
	var out []stream.Chunk
	for it.Next() {
		c := it.At()
		out = append(out, stream.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Chunk.Encoding(), Data: c.Chunk.Bytes()})
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return out
}
