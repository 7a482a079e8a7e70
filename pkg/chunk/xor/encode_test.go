package xor

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
)

// sameAsAppender fails unless Encode writes what Prometheus's appender writes.
func sameAsAppender(t *testing.T, samples []sample) {
	t.Helper()
	var s Samples
	for _, p := range samples {
		s.Times, s.Values = append(s.Times, p.t), append(s.Values, p.v)
	}
	got := Encode([]byte("before"), s.Times, s.Values)
	if want := append([]byte("before"), encode(t, samples)...); !bytes.Equal(got, want) {
		t.Fatalf("%d samples %v:\ngot  %x\nwant %x", len(samples), samples[:min(8, len(samples))], got, want)
	}
}

// Encode writes the bytes of Prometheus's appender: series as they are scraped, and values and distances of all
// magnitudes.
func TestEncodeIsPrometheus(t *testing.T) {
	// Mutants killed: leading not cut at 31; trailing compared with >; fits with one less at the top.
	r := rand.New(rand.NewPCG(11, 12))
	for _, s := range shapes {
		for n := range 130 {
			sameAsAppender(t, s.generate(r, n))
		}
	}
	for range 20_000 {
		samples := make([]sample, r.IntN(40))
		at := r.Int64N(1<<42) - 1<<41
		var v uint64
		for i := range samples {
			switch r.IntN(4) {
			case 0:
				at += r.Int64N(1 << r.IntN(40))
			case 1:
				at += 15000 + r.Int64N(3) - 1
			default:
				at += 15000
			}
			switch r.IntN(4) {
			case 0:
				v = r.Uint64() >> r.IntN(64) << r.IntN(64)
			case 1:
				v ^= 1 << r.IntN(64)
			case 2:
				v = math.Float64bits(float64(r.IntN(1000)))
			}
			samples[i] = sample{at, math.Float64frombits(v)}
		}
		sameAsAppender(t, samples)
	}
	// Changes of the distance around the borders of their codes.
	for _, n := range []uint{14, 17, 20, 40} {
		for d := int64(-2); d <= 2; d++ {
			for _, change := range []int64{1<<(n-1) + d, -(1 << (n - 1)) + d} {
				sameAsAppender(t, []sample{{0, 1}, {1 << 50, 1}, {2<<50 + change, 2}, {3<<50 + 2*change, 2}})
			}
		}
	}
}

// Any series of bits that are taken for samples are encoded as Prometheus's appender does, and Decode reads
// them again.
func FuzzEncode(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 9))
	f.Fuzz(func(t *testing.T, data []byte) {
		var samples []sample
		at := int64(0)
		for len(data) >= 12 && len(samples) < SamplesMax {
			at += int64(binary.BigEndian.Uint32(data))
			samples = append(samples, sample{at, math.Float64frombits(binary.BigEndian.Uint64(data[4:]))})
			data = data[12:]
		}
		sameAsAppender(t, samples)
		var s Samples
		if err := Decode(&s, encode(t, samples)); err != nil || s.Len() != len(samples) {
			t.Fatalf("%d samples read of %d: %v", s.Len(), len(samples), err)
		}
	})
}

// BenchmarkEncode writes chunks with Encode and, in turns with it, with Prometheus's appender.
func BenchmarkEncode(b *testing.B) {
	for _, s := range shapes {
		b.Run(s.name, func(b *testing.B) {
			var (
				r       = rand.New(rand.NewPCG(1, 2))
				samples = s.generate(r, 120)
				arrays  Samples
				buf     []byte
			)
			for _, p := range samples {
				arrays.Times, arrays.Values = append(arrays.Times, p.t), append(arrays.Values, p.v)
			}
			b.Run("koios", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					buf = Encode(buf[:0], arrays.Times, arrays.Values)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/120, "ns/sample")
			})
			b.Run("prometheus", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					encode(b, samples)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/120, "ns/sample")
			})
		})
	}
}
