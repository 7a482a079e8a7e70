package dataset

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// named starts a label set with a metric name, and label names and values by turns.
func named(name string, pairs ...string) *labels.Builder {
	b := labels.NewBuilder(labels.EmptyLabels())
	b.Set(labels.MetricName, name)
	for i := 0; i+1 < len(pairs); i += 2 {
		b.Set(pairs[i], pairs[i+1])
	}
	return b
}

// counter grows by perSecond in whole steps and starts again at 0 each period, shifted by phase; both in ms.
func counter(perSecond float64, period, phase int64) func(int64) float64 {
	return func(ms int64) float64 {
		return math.Floor(perSecond * float64((ms+phase)%period) / 1000)
	}
}

// noise is a fixed number in [-1, 1) for each seed and time (splitmix64).
func noise(seed uint64, at int64) float64 {
	z := (seed<<40 ^ uint64(at)) + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	return float64(z>>11)/(1<<52) - 1
}

// nativeCounter is an exponential histogram whose seven buckets and zero bucket grow at rates of their own.
func nativeCounter(perSecond float64) func(int64) *histogram.Histogram {
	weights := []float64{0.05, 0.1, 0.25, 0.3, 0.15, 0.08, 0.04}
	return func(ms int64) *histogram.Histogram {
		seconds := float64(ms) / 1000
		h := &histogram.Histogram{
			Schema:        1,
			ZeroThreshold: 0.001,
			ZeroCount:     uint64(0.03 * perSecond * seconds),
			PositiveSpans: []histogram.Span{{Offset: -2, Length: 4}, {Offset: 2, Length: 3}},
		}
		h.Count = h.ZeroCount
		var last int64
		for i, w := range weights {
			n := int64(w * perSecond * seconds)
			h.PositiveBuckets = append(h.PositiveBuckets, n-last)
			last = n
			h.Count += uint64(n)
			h.Sum += float64(n) * math.Pow(2, float64(i-1)/2)
		}
		return h
	}
}
