package difference

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// Rounding is no difference, anything else is: labels, times, kinds, values, and each part of a histogram.
func TestSeries(t *testing.T) {
	base := func() promql.Series {
		return promql.Series{
			Metric: labels.FromStrings("a", "b"),
			Floats: []promql.FPoint{{T: 1, F: 0.1 + 0.2}, {T: 2, F: math.NaN()}, {T: 3, F: math.Inf(1)}},
			Histograms: []promql.HPoint{{T: 4, H: &histogram.FloatHistogram{
				Schema: 1, ZeroThreshold: 0.01, ZeroCount: 2, Count: 7, Sum: 8.4,
				PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []float64{2, 3},
			}}},
		}
	}
	f := func(what string, differ bool, change func(*promql.Series)) {
		t.Helper()
		got, want := base(), base()
		change(&got)
		if d := Series(&got, &want); (d != "") != differ {
			t.Errorf("%s: %q", what, d)
		}
	}
	f("nothing", false, func(*promql.Series) {})
	f("rounding", false, func(s *promql.Series) { s.Floats[0].F = 0.3 })
	f("spans", false, func(s *promql.Series) {
		h := s.Histograms[0].H
		h.PositiveSpans, h.PositiveBuckets = []histogram.Span{{Offset: 0, Length: 3}}, []float64{2, 3, 0}
	})
	f("labels", true, func(s *promql.Series) { s.Metric = labels.FromStrings("a", "c") })
	f("time", true, func(s *promql.Series) { s.Floats[0].T = 0 })
	f("value", true, func(s *promql.Series) { s.Floats[0].F = 0.3001 })
	f("NaN", true, func(s *promql.Series) { s.Floats[1].F = 1 })
	f("infinity", true, func(s *promql.Series) { s.Floats[2].F = math.Inf(-1) })
	f("a sample less", true, func(s *promql.Series) { s.Floats = s.Floats[:2] })
	f("a histogram less", true, func(s *promql.Series) { s.Histograms = nil })
	for what, change := range map[string]func(*histogram.FloatHistogram){
		"count":          func(h *histogram.FloatHistogram) { h.Count++ },
		"sum":            func(h *histogram.FloatHistogram) { h.Sum++ },
		"zero count":     func(h *histogram.FloatHistogram) { h.ZeroCount++ },
		"zero threshold": func(h *histogram.FloatHistogram) { h.ZeroThreshold *= 2 },
		"schema":         func(h *histogram.FloatHistogram) { h.Schema++ },
		"bucket":         func(h *histogram.FloatHistogram) { h.PositiveBuckets = []float64{3, 2} },
		"custom values":  func(h *histogram.FloatHistogram) { h.CustomValues = []float64{1} },
	} {
		f(what, true, func(s *promql.Series) {
			s.Histograms[0].H = s.Histograms[0].H.Copy()
			change(s.Histograms[0].H)
		})
	}
}
