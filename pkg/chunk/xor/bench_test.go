package xor

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// BenchmarkDecode reads chunks with Decode and, in turns with it, with Prometheus's iterator; both add up
// all times and values. "x-prometheus" is how many times faster Decode is.
func BenchmarkDecode(b *testing.B) { compareAll(b, sumArrays) }

// BenchmarkIterator does the same with Iterator, behind the same interface as Prometheus's.
func BenchmarkIterator(b *testing.B) { compareAll(b, sumIterator) }

func compareAll(b *testing.B, ours summer) {
	for _, s := range shapes {
		b.Run(s.name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			var chunks [][]byte
			for range 200 {
				chunks = append(chunks, encode(b, s.generate(r, 120)))
			}
			compare(b, chunks, ours)
		})
	}
	chunks := scraped(b)
	for _, kind := range slices.Sorted(maps.Keys(chunks)) {
		b.Run(kind, func(b *testing.B) { compare(b, chunks[kind], ours) })
	}
}

// A summer adds up all times and values of the chunks.
type summer func(b *testing.B, chunks [][]byte, r *reader) uint64

// reader is what summers use again and again.
type reader struct {
	samples Samples
	ours    Iterator
	chunk   chunkenc.XORChunk
	theirs  chunkenc.Iterator
}

// compare takes the median of what a pass over the chunks takes, since passes are short and what disturbs
// them is not.
func compare(b *testing.B, chunks [][]byte, sum summer) {
	const passesMax = 1 << 16
	var (
		r            reader
		ours, theirs = make([]time.Duration, passesMax), make([]time.Duration, passesMax)
		pass         int
	)
	sum(b, chunks, &r) // makes arrays
	sumPrometheus(b, chunks, &r)
	b.ReportAllocs()
	for b.Loop() {
		begin := time.Now()
		x := sum(b, chunks, &r)
		middle := time.Now()
		y := sumPrometheus(b, chunks, &r)
		ours[pass%passesMax], theirs[pass%passesMax] = middle.Sub(begin), time.Since(middle)
		if x != y {
			b.Fatal("the samples differ")
		}
		pass++
	}
	samples := 0
	for _, data := range chunks {
		samples += Count(data)
	}
	o, p := median(ours[:min(pass, passesMax)]), median(theirs[:min(pass, passesMax)])
	b.ReportMetric(float64(o.Nanoseconds())/float64(samples), "ns/sample")
	b.ReportMetric(float64(p.Nanoseconds())/float64(samples), "prometheus-ns/sample")
	b.ReportMetric(float64(p)/float64(o), "x-prometheus")
	b.ReportMetric(0, "ns/op")
}

func sumArrays(b *testing.B, chunks [][]byte, r *reader) (sum uint64) {
	s := &r.samples
	for _, data := range chunks {
		s.Reset()
		if err := Decode(s, data); err != nil {
			b.Fatal(err)
		}
		values := s.Values[:len(s.Times)]
		for i, t := range s.Times {
			sum += uint64(t) + math.Float64bits(values[i])
		}
	}
	return sum
}

func sumIterator(b *testing.B, chunks [][]byte, r *reader) (sum uint64) {
	for _, data := range chunks {
		r.ours.Open(data)
		sum += sumOf(b, &r.ours)
	}
	return sum
}

func sumPrometheus(b *testing.B, chunks [][]byte, r *reader) (sum uint64) {
	for _, data := range chunks {
		r.chunk.Reset(data)
		r.theirs = r.chunk.Iterator(r.theirs)
		sum += sumOf(b, r.theirs)
	}
	return sum
}

//go:noinline
func sumOf(b *testing.B, it chunkenc.Iterator) (sum uint64) {
	for it.Next() != chunkenc.ValNone {
		t, v := it.At()
		sum += uint64(t) + math.Float64bits(v)
	}
	if err := it.Err(); err != nil {
		b.Fatal(err)
	}
	return sum
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
