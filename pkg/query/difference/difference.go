// Package difference tells where two answers of PromQL differ by more than rounding.
package difference

import (
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// tolerance is how far two values may lie apart and count as equal, as a part of the larger one: engines add in different
// orders.
const tolerance = 1e-9

// Series tells where two series differ, "" if they don't: in their labels, the times of their points, or the values.
func Series(got, want *promql.Series) string {
	if !labels.Equal(got.Metric, want.Metric) {
		return fmt.Sprintf("series %s, want %s", got.Metric, want.Metric)
	}
	if len(got.Floats) != len(want.Floats) || len(got.Histograms) != len(want.Histograms) {
		return fmt.Sprintf("%s has %d floats and %d histograms, want %d and %d", want.Metric, len(got.Floats), len(got.Histograms), len(want.Floats), len(want.Histograms))
	}
	for i, w := range want.Floats {
		if g := got.Floats[i]; g.T != w.T || !Near(g.F, w.F) {
			return fmt.Sprintf("%s is %v at %d, want %v at %d", want.Metric, g.F, g.T, w.F, w.T)
		}
	}
	for i, w := range want.Histograms {
		if g := got.Histograms[i]; g.T != w.T || !nearHistogram(g.H, w.H) {
			return fmt.Sprintf("%s is %v at %d, want %v at %d", want.Metric, g.H, g.T, w.H, w.T)
		}
	}
	return ""
}

// Near tells whether two values are equal but for rounding. NaN is equal to NaN.
func Near(a, b float64) bool {
	switch {
	case math.IsNaN(a) || math.IsNaN(b):
		return math.IsNaN(a) && math.IsNaN(b)
	case math.IsInf(a, 0) || math.IsInf(b, 0):
		return a == b
	}
	return math.Abs(a-b) <= tolerance*max(math.Abs(a), math.Abs(b))
}

// nearHistogram compares what histograms count, however their spans are laid out.
func nearHistogram(a, b *histogram.FloatHistogram) bool {
	if a.Schema != b.Schema || a.ZeroThreshold != b.ZeroThreshold || !Near(a.Sum, b.Sum) || !Near(a.Count, b.Count) || !Near(a.ZeroCount, b.ZeroCount) {
		return false
	}
	if !slices.Equal(a.CustomValues, b.CustomValues) {
		return false
	}
	return slices.EqualFunc(buckets(a), buckets(b), func(x, y histogram.Bucket[float64]) bool {
		return x.Lower == y.Lower && x.Upper == y.Upper && Near(x.Count, y.Count)
	})
}

func buckets(h *histogram.FloatHistogram) []histogram.Bucket[float64] {
	var all []histogram.Bucket[float64]
	for it := h.AllBucketIterator(); it.Next(); {
		if b := it.At(); b.Count != 0 {
			all = append(all, b)
		}
	}
	return all
}
