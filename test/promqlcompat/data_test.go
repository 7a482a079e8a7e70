package promqlcompat

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/koios-metrics/koios/test/dataset"
)

const (
	interval = 15 * time.Second
	span     = 3 * time.Hour
)

// generatedOver makes the data that generated queries ask for: all series of package dataset, with some more of the
// kinds that a single process mixes rarely. It lies in blocks and in the head.
func generatedOver(t testing.TB) (*teststorage.TestStorage, []labels.Labels) {
	t.Helper()
	st := teststorage.New(t)
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	all := append(dataset.All(), extras()...)
	was := make([]bool, len(all))
	start := dataset.Start.UnixMilli()
	for ms := int64(1000); ms < span.Milliseconds(); ms += interval.Milliseconds() {
		app := st.Appender(t.Context())
		for i, s := range all {
			present := s.Present == nil || s.Present(ms)
			var err error
			switch {
			case was[i] && !present && s.Stale:
				_, err = app.Append(0, s.Labels, start+ms, math.Float64frombits(value.StaleNaN))
			case !present:
			case s.Float != nil && !math.IsNaN(s.Float(ms)) || s.Histogram == nil:
				_, err = app.Append(0, s.Labels, start+ms, s.Float(ms))
			default:
				var h, fh = s.Histogram(ms), (*histogram.FloatHistogram)(nil)
				if s.Labels.Get("floats") != "" {
					h, fh = nil, h.ToFloat(nil)
				}
				_, err = app.AppendHistogram(0, s.Labels, start+ms, h, fh)
			}
			was[i] = present
			if err != nil {
				t.Fatalf("append to %s: %v", s.Labels, err)
			}
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.CompactHead(promtsdb.NewRangeHead(st.Head(), start, start+2*time.Hour.Milliseconds()-1)); err != nil {
		t.Fatal(err)
	}
	sets := make([]labels.Labels, 0, len(all))
	for _, s := range all {
		sets = append(sets, s.Labels)
	}
	return st, sets
}

// changing are the labels of a series that is a float at times and a histogram at others.
var changing = labels.FromStrings("__name__", "changing", "job", "shop")

// extras are float histograms, histograms with bounds of their own, and a series that changes its type.
func extras() []dataset.Series {
	const minute = 60_000
	var native func(int64) *histogram.Histogram
	for _, s := range dataset.All() {
		if s.Histogram != nil {
			native = s.Histogram
			break
		}
	}
	custom := func(perSecond float64, bounds ...float64) func(int64) *histogram.Histogram {
		return func(ms int64) *histogram.Histogram {
			h := &histogram.Histogram{
				Schema:        histogram.CustomBucketsSchema,
				CustomValues:  bounds,
				PositiveSpans: []histogram.Span{{Length: uint32(len(bounds) + 1)}},
			}
			var last int64
			for i := range len(bounds) + 1 {
				n := int64(perSecond * float64(ms%(71*minute)) / 1000 / float64(i+2))
				h.PositiveBuckets = append(h.PositiveBuckets, n-last)
				last = n
				h.Count += uint64(n)
				h.Sum += float64(n) * float64(i)
			}
			return h
		}
	}
	return []dataset.Series{
		{Labels: labels.FromStrings("__name__", "rpc_duration_seconds", "job", "shop", "instance", "floats", "floats", "yes"), Histogram: native},
		{Labels: labels.FromStrings("__name__", "size_bytes", "job", "shop", "instance", "a"), Histogram: custom(3, 1, 10, 100)},
		{Labels: labels.FromStrings("__name__", "size_bytes", "job", "shop", "instance", "b"), Histogram: custom(5, 1, 10, 100)},
		{Labels: labels.FromStrings("__name__", "size_bytes", "job", "shop", "instance", "c"), Histogram: custom(2, 1, 50)},
		{Labels: changing, Histogram: native, Float: func(ms int64) float64 {
			if ms/(19*minute)%2 == 0 {
				return float64(ms / 1000)
			}
			return math.NaN()
		}},
		{Labels: labels.FromStrings("__name__", "gaps", "job", "shop"), Float: func(ms int64) float64 { return math.Sin(float64(ms) / 1e6) }, Present: func(ms int64) bool {
			return ms/(7*minute)%3 != 1
		}},
	}
}
