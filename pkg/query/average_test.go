package query

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
)

// Shows that averages of downsampled histograms are right one after the other, whether the reader brings a histogram to
// fill or not: dividing must not reach into the state of the decoder.
func TestAverageOfHistograms(t *testing.T) {
	sums := func(n float64) *histogram.FloatHistogram {
		return &histogram.FloatHistogram{
			CounterResetHint: histogram.GaugeType,
			Schema:           1,
			Count:            12 * n,
			Sum:              100 * n,
			ZeroThreshold:    0.001,
			ZeroCount:        2 * n,
			PositiveSpans:    []histogram.Span{{Length: 2}},
			PositiveBuckets:  []float64{3 * n, 4 * n},
			NegativeSpans:    []histogram.Span{{Length: 1}},
			NegativeBuckets:  []float64{3 * n},
		}
	}
	chunk, counts := chunkenc.NewFloatHistogramChunk(), chunkenc.NewXORChunk()
	app, err := chunk.Appender()
	if err != nil {
		t.Fatal(err)
	}
	countApp, err := counts.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(5) {
		if _, _, _, err := app.AppendFloatHistogram(nil, i, sums(float64(10+i)), true); err != nil {
			t.Fatal(err)
		}
		countApp.Append(i, 4)
	}
	for _, kept := range []*histogram.FloatHistogram{nil, {}} {
		a := &average{sum: chunk.Iterator(nil), count: counts.Iterator(nil)}
		for i := range int64(5) {
			if kind := a.Next(); kind != chunkenc.ValFloatHistogram {
				t.Fatalf("sample %d is a %s: %v", i, kind, a.Err())
			}
			_, got := a.AtFloatHistogram(kept)
			if want := sums(float64(10+i) / 4); !got.Equals(want) {
				t.Errorf("reusing %v: average %d is %s, want %s", kept != nil, i, got, want)
			}
		}
	}
}

// Shows that averages of a series are right when the iterator was left in the middle of another one, as happens when
// that one goes on past the wanted times. Replicas are read from their beginning, so there two chunks overlap.
func TestAverageAfterAnother(t *testing.T) {
	first := downsampled(5*minute, point{minute, 4}, point{6 * minute, 10}, point{11 * minute, 20})
	second := downsampled(5*minute, point{2 * minute, 6}, point{7 * minute, 8})
	for _, chunks := range [][]store.Chunk{{first}, {first, second}} {
		r := readingOf(&Options{}, dedup.Stay, &storage.SelectHints{Func: "sum"})
		r.mint, r.maxt = math.MinInt64, 9*minute
		s := &series{chunks: chunks, reading: &r}
		all := func(it *iterator) (ps []point) {
			it.reset(s)
			for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
				at, v := it.At()
				ps = append(ps, point{at, v})
			}
			return ps
		}
		want, used := all(&iterator{}), &iterator{}
		for range 3 {
			if got := all(used); !cmp.Equal(got, want) {
				t.Errorf("%d chunks: got %v, want %v", len(chunks), got, want)
			}
		}
	}
}
