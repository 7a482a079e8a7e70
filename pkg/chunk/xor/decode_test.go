package xor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// prometheus reads a chunk with Prometheus's iterator.
func prometheus(data []byte) (samples []sample, err error) {
	var c chunkenc.XORChunk
	c.Reset(data)
	it := c.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		t, v := it.At()
		samples = append(samples, sample{t, v})
	}
	return samples, it.Err()
}

func pairs(s Samples) []sample {
	all := make([]sample, s.Len())
	for i := range all {
		all[i] = sample{s.Times[i], s.Values[i]}
	}
	return all
}

// same compares bit by bit: a NaN has many faces, and staleness is one of them.
func same(a, b []sample) bool {
	return slices.EqualFunc(a, b, func(a, b sample) bool {
		return a.t == b.t && math.Float64bits(a.v) == math.Float64bits(b.v)
	})
}

// agree decodes any bytes and holds the outcome to that of the reference, and to what Prometheus makes of
// them with the differences that the package comment lists and no others.
func agree(t testing.TB, data []byte) error {
	t.Helper()
	var s Samples
	err := Decode(&s, data)
	got := pairs(s)
	if len(got) > Count(data) || cap(s.Times) > 2*Count(data)+8 {
		t.Fatalf("% x: %d samples in room for %d, Count %d", data, len(got), cap(s.Times), Count(data))
	}
	want, wantErr := reference(data)
	if !same(got, want) || !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
		t.Fatalf("% x:\n got %d samples, %v\nwant %d samples, %v\n%v\n%v", data, len(got), err, len(want), wantErr, got, want)
	}
	if len(data) < 2 {
		return err // where Prometheus panics
	}
	theirs, theirErr := prometheus(data)
	if len(theirs) < len(got) || !same(got, theirs[:len(got)]) || err == nil && (theirErr != nil || len(theirs) != len(got)) {
		t.Fatalf("% x:\n got %d samples, %v\nPrometheus %d samples, %v\n%v\n%v", data, len(got), err, len(theirs), theirErr, got, theirs)
	}
	return err
}

// Every kind of series, in chunks of one sample up to the most there can be, decodes to what was encoded.
//
// Kills: a run that is looked for behind the bits that were loaded (LeadingZeros64(w) without the 1); a
// value of 64 bits read without the ninth byte.
func TestDecodesWhatWasEncoded(t *testing.T) {
	sizes := []int{1, 2, 3, 4, 5, 8, 13, 29, 30, 60, 119, 120, 121, 240, 1000, math.MaxUint16}
	for _, shape := range shapes {
		for seed, size := range sizes {
			rounds := 20
			if size > 200 {
				rounds = 1
			}
			for round := range rounds {
				r := rand.New(rand.NewPCG(uint64(seed), uint64(round)))
				want := shape.generate(r, size)
				data := encode(t, want)
				var s Samples
				if err := Decode(&s, data); err != nil {
					t.Fatalf("%s, %d samples: %v", shape.name, size, err)
				}
				if !same(pairs(s), want) {
					t.Fatalf("%s, %d samples: differs\n got %v\nwant %v", shape.name, size, pairs(s), want)
				}
				if n := Count(data); n != size {
					t.Fatalf("%s: Count of %d samples is %d", shape.name, size, n)
				}
			}
		}
	}
}

// Chunks that a Prometheus scraped decode to what its own iterator reads.
//
// Kills: a distance that is not carried over from one sample to the next (distance = change).
func TestDecodesScrapedChunks(t *testing.T) {
	for kind, chunks := range scraped(t) {
		if len(chunks) < 50 {
			t.Errorf("only %d of %s", len(chunks), kind)
		}
		for _, data := range chunks {
			if err := agree(t, data); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
		}
	}
}

// The greatest and least change of distance of each size, and those just past them, are read as written.
//
// Kills: signed as two's complement, int64(w) >> (64-n).
func TestChangesOfDistance(t *testing.T) {
	for _, n := range []uint{14, 17, 20, 40} {
		edge := int64(1) << (n - 1)
		for _, change := range []int64{-edge - 1, -edge, -edge + 1, -edge + 2, -1, 0, 1, edge - 1, edge, edge + 1} {
			const distance = 1 << 41
			want := []sample{{0, 1}, {distance, 1}, {3*distance - distance + change, 1}, {4*distance + change, 2}}
			var s Samples
			if err := Decode(&s, encode(t, want)); err != nil || !same(pairs(s), want) {
				t.Errorf("change of %d: %v, %v", change, pairs(s), err)
			}
		}
	}
}

// Windows of every place and width are read as written, new ones and used again.
//
// Kills: `width <= 57` as `<= 58`; a width of 0 that is not taken for 64; a mask that is not shifted to its place.
func TestWindows(t *testing.T) {
	for leading := range 64 {
		for trailing := range 64 - leading {
			x := ^uint64(0) >> leading >> trailing << trailing
			for offset := range 9 { // the bit that the window begins at
				v, at := uint64(0x4059_0000_0000_0000), int64(0)
				var want []sample
				for i := range 4 + offset {
					if i >= offset {
						v ^= x
					} else {
						v ^= 3 << 40 // five bits: same time, same window, two bits
					}
					at += 1000
					want = append(want, sample{at, math.Float64frombits(v)})
				}
				var s Samples
				if err := Decode(&s, encode(t, want)); err != nil || !same(pairs(s), want) {
					t.Fatalf("%d zeros before, %d behind: %v, %v", leading, trailing, pairs(s), err)
				}
			}
		}
	}
}

// A chunk that ends early, wherever that is, gives the samples that are complete and ErrShort.
//
// Kills: the sample that is cut off handed out (`return n` for `return n-1`); a tail that is one byte longer (a
// sample would begin behind the end, and two had to be taken back); a tail that is followed by zeros.
func TestCutOff(t *testing.T) {
	for _, shape := range shapes {
		for _, size := range []int{1, 2, 3, 10, 120} {
			data := encode(t, shape.generate(rand.New(rand.NewPCG(3, 4)), size))
			for n := range data {
				if err := agree(t, data[:n]); !errors.Is(err, ErrShort) {
					t.Fatalf("%s: %d of %d bytes: %v", shape.name, n, len(data), err)
				}
			}
		}
	}
}

// Bytes that were damaged in one or more places are read as Prometheus reads them, or refused.
//
// Kills: the check of t+distance in samples left out; a window that is never too wide.
func TestDamaged(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	outcomes := map[string]int{}
	for range 20_000 {
		shape := shapes[r.IntN(len(shapes))]
		data := slices.Clone(encode(t, shape.generate(r, 1+r.IntN(150))))
		for range 1 + r.IntN(3) {
			data[2+r.IntN(len(data)-2)] ^= 1 << r.IntN(8)
		}
		err := agree(t, data)
		outcomes[fmt.Sprint(errors.Unwrap(err))]++
	}
	for _, err := range []error{nil, ErrShort, ErrMalformed, ErrDisorder} {
		if outcomes[fmt.Sprint(err)] == 0 {
			t.Errorf("no chunk with the outcome %v: %v", err, outcomes)
		}
	}
}

// A header that promises more than the bytes can hold costs no more memory than the bytes can fill.
//
// Kills: Count without its bound.
func TestLyingHeader(t *testing.T) {
	for size := range 300 {
		data := make([]byte, size)
		if size >= 2 {
			binary.BigEndian.PutUint16(data, math.MaxUint16)
		}
		if n := Count(data); n > 4*size {
			t.Errorf("%d samples expected in %d bytes", n, size)
		}
		if err := agree(t, data); !errors.Is(err, ErrShort) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// What no encoder writes is told apart, with the samples before it kept; equal times are no fault.
//
// Kills: `t+distance < t` as `<=`; samples of a failed decode dropped or garbage kept.
func TestFaults(t *testing.T) {
	f := func(name string, data []byte, want []sample, wantErr error) {
		t.Helper()
		s := Samples{Times: []int64{7}, Values: []float64{7}}
		err := Decode(&s, data)
		if !errors.Is(err, wantErr) || !same(pairs(s), append([]sample{{7, 7}}, want...)) {
			t.Errorf("%s: %v, %v", name, pairs(s), err)
		}
	}
	ordered := []sample{{1000, 1}, {2000, 1}, {2500, 3}}
	f("equal times", encode(t, append(ordered, sample{2500, 2})), append(ordered, sample{2500, 2}), nil)
	f("equal times at once", encode(t, []sample{{5, 1}, {5, 2}, {5, 2}}), []sample{{5, 1}, {5, 2}, {5, 2}}, nil)
	f("third is early", encode(t, append(ordered, sample{2499, 3}, sample{9999, 3})), ordered, ErrDisorder)
	f("second is early", encode(t, []sample{{5, 1}, {4, 1}, {9, 1}}), []sample{{5, 1}}, ErrDisorder)
	f("times run over", encode(t, []sample{{math.MaxInt64 - 10, 1}, {math.MaxInt64 - 5, 1}, {math.MaxInt64, 1}, {math.MinInt64 + 4, 1}, {math.MinInt64 + 9, 1}, {math.MinInt64 + 14, 1}}),
		[]sample{{math.MaxInt64 - 10, 1}, {math.MaxInt64 - 5, 1}, {math.MaxInt64, 1}}, ErrDisorder)
	f("farthest times", encode(t, []sample{{math.MinInt64, 1}, {-1, 1}, {math.MaxInt64 - 1, 1}}), []sample{{math.MinInt64, 1}, {-1, 1}, {math.MaxInt64 - 1, 1}}, nil)
	f("no header", []byte{0}, nil, ErrShort)
	f("no bytes", nil, nil, ErrShort)
	f("no samples", []byte{0, 0}, nil, nil)
	f("bytes behind the samples", append(encode(t, ordered), 1, 2, 3), ordered, nil)
	f("endless varint", append([]byte{0, 1}, slices.Repeat([]byte{0xff}, 20)...), nil, ErrMalformed)

	// The second value: 11, 31 zeros, 63 bits.
	wide := encode(t, ordered[:1])
	wide[1] = 3
	wide = append(wide, 1, 0b11_11111_1, 0b11111_000)
	f("window wider than a value", append(wide, make([]byte, 40)...), ordered[:1], ErrMalformed)
}

// Decoding into arrays that are long enough allocates nothing.
//
// Kills: a tail that escapes to the heap.
func TestDecodeAllocatesNothing(t *testing.T) {
	var chunks [][]byte
	for _, shape := range shapes {
		chunks = append(chunks, encode(t, shape.generate(rand.New(rand.NewPCG(7, 8)), 120)))
	}
	var s Samples
	var it Iterator
	n := testing.AllocsPerRun(100, func() {
		s.Reset()
		for _, data := range chunks {
			if err := Decode(&s, data); err != nil {
				t.Fatal(err)
			}
			it.Open(data)
			for it.Next() != chunkenc.ValNone {
				it.At()
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Any bytes give what Prometheus makes of them, or an error that the package comment explains.
func FuzzDecode(f *testing.F) {
	for _, shape := range shapes {
		for _, size := range []int{1, 2, 3, 40, 125} {
			f.Add(encode(f, shape.generate(rand.New(rand.NewPCG(9, 10)), size)))
		}
	}
	for _, chunks := range scraped(f) {
		for _, data := range chunks[:5] {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { agree(t, data) })
}

// Any samples that Prometheus encodes, their times in order, come back.
func FuzzEncoded(f *testing.F) {
	f.Add([]byte("any bytes are samples: eight of value and two of distance, shifted by the third's low bits"))
	f.Add(make([]byte, 200))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var want []sample
		var at int64
		for len(raw) >= 11 && len(want) < math.MaxUint16 {
			at += int64(binary.LittleEndian.Uint16(raw)) << (raw[2] % 24)
			v := binary.LittleEndian.Uint64(raw[3:])
			if raw[2] >= 128 && len(want) > 0 { // near the last one
				v = math.Float64bits(want[len(want)-1].v) ^ v>>(raw[2]%64)
			}
			want = append(want, sample{at, math.Float64frombits(v)})
			raw = raw[11:]
		}
		var s Samples
		if err := Decode(&s, encode(t, want)); err != nil || !same(pairs(s), want) {
			t.Fatalf("%v\n got %v\nwant %v", err, pairs(s), want)
		}
	})
}
