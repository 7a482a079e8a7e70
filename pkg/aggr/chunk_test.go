package aggr

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
)

func xorPart(times []int64, values []float64) Part {
	return Part{Encoding: chunkenc.EncXOR, Data: xor.Encode(nil, times, values)}
}

// What Append writes, Parts and Get read; what is absent stays absent.
func TestAppendAndRead(t *testing.T) {
	// Mutants killed: the encoding counted in the length; Get stopping one part early.
	r := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		var parts [Types]Part
		for i := range parts {
			if r.IntN(3) > 0 {
				parts[i] = Part{Encoding: chunkenc.Encoding(1 + r.IntN(3)), Data: bytes.Repeat([]byte{byte(i)}, 1+r.IntN(300))}
			}
		}
		c := Chunk(Append(nil, &parts))
		got, err := c.Parts()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(parts, got); diff != "" {
			t.Fatal(diff)
		}
		for i, p := range parts {
			enc, data, err := c.Get(Type(i))
			if p.Data == nil {
				if !errors.Is(err, ErrAbsent) {
					t.Fatalf("%s is absent: %v", Type(i), err)
				}
				continue
			}
			if err != nil || enc != p.Encoding || !bytes.Equal(data, p.Data) {
				t.Fatalf("%s: %v", Type(i), err)
			}
		}
	}
}

// The bytes of a chunk stay what they are: three windows of a counter that restarted, in all five aggregates.
// (That such bytes are Thanos's is shown by the tests of package downsample.)
func TestGolden(t *testing.T) {
	times := []int64{299_999, 599_999, 720_000}
	parts := [Types]Part{
		xorPart(times, []float64{20, 20, 9}),
		xorPart(times, []float64{190, 590, 300}),
		xorPart(times, []float64{0, 0, 30}),
		xorPart(times, []float64{19, 39, 48}),
		xorPart([]int64{0, 299_999, 599_999, 720_000, 720_000}, []float64{0, 19, 58, 67, 48}),
	}
	want, err := os.ReadFile("testdata/chunk.hex")
	if err != nil {
		t.Fatal(err)
	}
	if got := Append(nil, &parts); os.Getenv("KOIOS_UPDATE") != "" {
		if err := os.WriteFile("testdata/chunk.hex", []byte(hex.EncodeToString(got)+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), hex.EncodeToString(Append(nil, &parts))); diff != "" {
		t.Error(diff)
	}
}

// The counters of chunk after chunk are one total: growth between chunks counts, a restart between them as well, and the
// last raw value of a chunk is what the next begins from.
func TestCounterReader(t *testing.T) {
	f := func(want []float64, chunks ...xor.Samples) {
		t.Helper()
		var (
			r   CounterReader
			out xor.Samples
		)
		for _, c := range chunks {
			r.Read(&out, c)
		}
		if diff := cmp.Diff(want, out.Values); diff != "" {
			t.Error(diff)
		}
	}
	s := func(tv ...float64) (s xor.Samples) {
		for i := 0; i < len(tv); i += 2 {
			s.Times, s.Values = append(s.Times, int64(tv[i])), append(s.Values, tv[i+1])
		}
		return s
	}
	// Within the chunk the counter restarted once: 10 to 30, then from 0 to 5, so the total is 35 and the raw value 5.
	first := s(0, 10, 9, 30, 19, 35, 19, 5)
	f([]float64{10, 30, 35}, first)
	f([]float64{10, 30, 35, 37, 42}, first, s(20, 7, 29, 12, 29, 12))
	f([]float64{10, 30, 35, 38}, first, s(20, 3, 20, 3))
	f([]float64{10, 30, 35, 36}, first, s(15, 99, 25, 6)) // what goes back is passed over
	f([]float64{10, 11}, s(0, 10), s(1, math.NaN(), 2, 11))
}

// CutCounter keeps what windows grew by, and ends with the last one again.
func TestCutCounter(t *testing.T) {
	whole := xor.Samples{Times: []int64{0, 9, 19, 29, 29}, Values: []float64{10, 30, 35, 40, 10}}
	f := func(mint, maxt int64, times []int64, values []float64) {
		t.Helper()
		got := CutCounter(whole, mint, maxt)
		if diff := cmp.Diff(xor.Samples{Times: times, Values: values}, got); diff != "" {
			t.Error(diff)
		}
	}
	f(0, 100, whole.Times, whole.Values)
	f(0, 19, []int64{0, 9, 19, 19}, []float64{10, 30, 35, 35})
	f(10, 29, []int64{19, 29, 29}, []float64{35, 40, 10})
	f(30, 99, nil, nil)
}

// Any bytes give parts or an error, never more than there is; and what is read can be written again.
func FuzzParts(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1})
	p := xorPart([]int64{1, 2}, []float64{3, 4})
	f.Add(Append(nil, &[Types]Part{p, p, p, p, p}))
	f.Fuzz(func(t *testing.T, data []byte) {
		parts, err := Chunk(data).Parts()
		for i := range Type(Types) {
			_, part, errGet := Chunk(data).Get(i)
			if err == nil && errGet != nil && !errors.Is(errGet, ErrAbsent) || !bytes.Equal(part, parts[i].Data) && err == nil {
				t.Fatalf("Parts: %v, Get: %v", err, errGet)
			}
		}
		if err != nil {
			return
		}
		again, err := Chunk(Append(nil, &parts)).Parts()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(parts, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
