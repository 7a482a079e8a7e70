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
func BenchmarkDecode(b *testing.B) {
	for _, s := range shapes {
		b.Run(s.name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 2))
			var chunks [][]byte
			for range 200 {
				chunks = append(chunks, encode(b, s.generate(r, 120)))
			}
			compare(b, chunks)
		})
	}
	real := scraped(b)
	for _, kind := range slices.Sorted(maps.Keys(real)) {
		b.Run(kind, func(b *testing.B) { compare(b, real[kind]) })
	}
}

// compare takes the median of what a pass over the chunks takes, since passes are short and what disturbs
// them is not.
func compare(b *testing.B, chunks [][]byte) {
	const passesMax = 1 << 16
	var (
		s            Samples
		c            chunkenc.XORChunk
		it           chunkenc.Iterator
		ours, theirs = make([]time.Duration, passesMax), make([]time.Duration, passesMax)
		pass         int
	)
	b.ReportAllocs()
	for b.Loop() {
		begin := time.Now()
		x := sumOurs(b, chunks, &s)
		middle := time.Now()
		y := sumTheirs(b, chunks, &c, &it)
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

func sumOurs(b *testing.B, chunks [][]byte, s *Samples) (sum uint64) {
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

func sumTheirs(b *testing.B, chunks [][]byte, c *chunkenc.XORChunk, it *chunkenc.Iterator) (sum uint64) {
	for _, data := range chunks {
		c.Reset(data)
		*it = c.Iterator(*it)
		samples := *it
		for samples.Next() != chunkenc.ValNone {
			t, v := samples.At()
			sum += uint64(t) + math.Float64bits(v)
		}
		if err := samples.Err(); err != nil {
			b.Fatal(err)
		}
	}
	return sum
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
