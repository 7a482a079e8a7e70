// Package storetest holds an in-memory Store and the suite that every Store passes.
//
// Memory is the plainest Store there is: it answers from a list, and the suite compares every other Store
// with it. Run opens the Store under test over the suite's data and asks it everything that the interface
// promises: matchers of every kind, the order of labels around external and replica labels, time ranges,
// chunks and the replicas that they name, limits, shards, and the label calls.
package storetest

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
)

// Data is what a Store under test holds.
type Data struct {
	// External are the labels that the Store merges into every series.
	External labels.Labels
	// Series are sorted by stored labels, which are unique.
	Series []Input
}

// Input is one series as it is stored.
type Input struct {
	Labels  labels.Labels
	Samples []Sample
}

// Sample is a float, or a histogram where H or FH is set. T is in ms.
type Sample struct {
	T  int64
	V  float64
	H  *histogram.Histogram
	FH *histogram.FloatHistogram
}

// Base is the time in ms of the first samples of the suite, on a boundary of two hours. All samples lie
// within the hour after it.
const Base int64 = 1_700_006_400_000

// Step is the distance in ms between the samples of most series.
const Step int64 = 15_000

// Floats makes n samples from Base on, Step apart, counting up from first.
func Floats(n int, first float64) []Sample {
	ss := make([]Sample, n)
	for i := range ss {
		ss[i] = Sample{T: Base + int64(i)*Step, V: first + float64(i)}
	}
	return ss
}

func histograms(n int, float bool) []Sample {
	ss := make([]Sample, n)
	for i := range ss {
		h := &histogram.Histogram{
			Schema: 1, ZeroThreshold: 0.001, ZeroCount: uint64(i), Count: uint64(6*i + 5), Sum: float64(10 * i),
			PositiveSpans:   []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 1}},
			PositiveBuckets: []int64{int64(i + 1), 1, 0},
			NegativeSpans:   []histogram.Span{{Offset: 0, Length: 1}},
			NegativeBuckets: []int64{int64(2 * i)},
		}
		ss[i].T = Base + int64(i)*Step
		if float {
			ss[i].FH = h.ToFloat(nil)
		} else {
			ss[i].H = h
		}
	}
	return ss
}

func in(samples []Sample, ls ...string) Input {
	return Input{Labels: labels.FromStrings(ls...), Samples: samples}
}

func sorted(external labels.Labels, inputs ...Input) Data {
	slices.SortFunc(inputs, func(a, b Input) int { return labels.Compare(a.Labels, b.Labels) })
	return Data{External: external, Series: inputs}
}

// Common is the data most cases ask for.
func Common() Data {
	long := make([]Sample, 900)
	for i := range long {
		long[i] = Sample{T: Base + int64(i)*4_000, V: math.Sqrt(float64(i))}
	}
	odd := []Sample{{T: Base, V: math.NaN()}, {T: Base + 1, V: math.Inf(1)}, {T: Base + 7_000, V: math.Float64frombits(value.StaleNaN)}, {T: Base + 7_001, V: -0.5}}
	return sorted(labels.FromStrings("cluster", "eu", "replica", "a"),
		in(Floats(20, 0), "__name__", "up", "instance", "h1:9090", "job", "node"),
		in(Floats(20, 1), "__name__", "up", "instance", "h2:9090", "job", "node"),
		in(Floats(20, 2), "__name__", "up", "instance", "h1:9100", "job", "api"),
		in(Floats(20, 3), "__name__", "up"),
		in(Floats(130, 0), "__name__", "requests_total", "code", "200", "method", "GET"),
		in(Floats(130, 5), "__name__", "requests_total", "code", "404", "method", "GET"),
		in(Floats(130, 6), "__name__", "requests_total", "code", "500", "method", "POST"),
		in(Floats(130, 7), "__name__", "requests_total", "code", "503"),
		in(long, "__name__", "long"),
		in(odd, "__name__", "odd"),
		in(histograms(125, false), "__name__", "latency", "kind", "int"),
		in(histograms(125, true), "__name__", "latency", "kind", "float"),
		in(Floats(3, 0), "__name__", "utf8", "name", "größe 🜁", "with.dots", "x"),
		in(Floats(3, 0), "__name__", "values", "v", "a\"b\\c\n"),
		in(Floats(3, 0), "__name__", "values", "v", "a+b.c"),
		in(Floats(3, 0), "__name__", "values", "v", "aXb"),
		in([]Sample{{T: Base + 600_000, V: 1}}, "__name__", "single"),
	)
}

// Orders are data whose final order differs from the stored one.
func Orders() map[string]Data {
	s := func(ls ...string) Input { return in(Floats(2, 0), ls...) }
	// Replicas hold samples of their own: equal chunks of two would become one.
	of := func(replica string, ls ...string) Input {
		return in(Floats(2, float64(10*len(ls))+float64(replica[0])), append(ls, "replica", replica)...)
	}
	ext := labels.FromStrings
	nested := []Input{
		s("__name__", "m"), s("__name__", "m", "a", "1"), s("__name__", "m", "a", "1", "b", "1"), s("__name__", "m", "a", "1", "b", "1", "z", "1"),
		s("__name__", "m", "a", "1", "z", "1"), s("__name__", "m", "a", "2"), s("__name__", "m", "b", "1"), s("__name__", "m", "b", "1", "c", "1"),
		s("__name__", "m", "z", "1"), s("__name__", "n"), s("__name__", "n", "zz", "1"),
	}
	return map[string]Data{
		"external label in front":      sorted(ext("__a", "x"), nested...),
		"external label in the middle": sorted(ext("m", "x"), nested...),
		"external label at the end":    sorted(ext("zzz", "x"), nested...),
		"several external labels":      sorted(ext("__a", "x", "aa", "x", "m", "x", "zzz", "x"), nested...),
		"no external labels":           sorted(labels.EmptyLabels(), nested...),
		"external label that is stored too": sorted(ext("r", "x"),
			s("__name__", "m", "r", "1"), s("__name__", "m", "r", "1", "z", "1"), s("__name__", "m", "r", "2"), s("__name__", "n", "a", "1"), s("__name__", "n", "a", "1", "r", "0")),
		"replica label on some series": sorted(ext("cluster", "eu"),
			s("__name__", "m"), s("__name__", "m", "b", "1"), of("1", "__name__", "m"), of("2", "__name__", "m"),
			of("1", "__name__", "m", "b", "1"), of("1", "__name__", "m", "z", "1"), of("1", "__name__", "n", "z", "1"), s("__name__", "n", "z", "1")),
		"replica label inside and outside": sorted(ext("cluster", "eu", "m", "x", "replica", "a"),
			s("__name__", "m"), of("1", "__name__", "m"), of("2", "__name__", "m", "r", "1"), in(Floats(2, 7), "__name__", "m", "m", "1"), in(Floats(2, 3), "__name__", "m", "zzz", "1")),
	}
}

// encode cuts samples into chunks of one kind and at most 120 samples.
func encode(samples []Sample) []store.Chunk {
	var (
		cs  []store.Chunk
		c   chunkenc.Chunk
		app chunkenc.Appender
	)
	flush := func() {
		if c != nil {
			cs[len(cs)-1].Raw = store.Payload{Encoding: c.Encoding(), Data: c.Bytes()}
			c = nil
		}
	}
	open := func(n chunkenc.Chunk, t int64) {
		flush()
		c = n
		app, _ = c.Appender()
		cs = append(cs, store.Chunk{MinTime: t})
	}
	for _, s := range samples {
		full := c == nil || c.NumSamples() >= 120
		switch {
		case s.H != nil:
			if full || c.Encoding() != chunkenc.EncHistogram {
				open(chunkenc.NewHistogramChunk(), s.T)
			}
			if n, _, a, err := app.AppendHistogram(nil, s.T, s.H, true); n != nil || err != nil {
				open(chunkenc.NewHistogramChunk(), s.T)
				_, _, app, _ = app.AppendHistogram(nil, s.T, s.H, false)
			} else {
				app = a
			}
		case s.FH != nil:
			if full || c.Encoding() != chunkenc.EncFloatHistogram {
				open(chunkenc.NewFloatHistogramChunk(), s.T)
			}
			if n, _, a, err := app.AppendFloatHistogram(nil, s.T, s.FH, true); n != nil || err != nil {
				open(chunkenc.NewFloatHistogramChunk(), s.T)
				_, _, app, _ = app.AppendFloatHistogram(nil, s.T, s.FH, false)
			} else {
				app = a
			}
		default:
			if full || c.Encoding() != chunkenc.EncXOR {
				open(chunkenc.NewXORChunk(), s.T)
			}
			app.Append(s.T, s.V)
		}
		cs[len(cs)-1].MaxTime = s.T
	}
	flush()
	return cs
}
