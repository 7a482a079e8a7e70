package xor

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Any mixture of Next and Seek stands on the same samples as with Prometheus's iterator.
//
// Kills: a Seek that skips the current sample (from = it.next); one that looks past the first of equal times
// (`times[from] <= t`); `between` that begins at from+2.
func TestIteratorWalksLikePrometheus(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	var it Iterator
	for range 5000 {
		shape := shapes[r.IntN(len(shapes))]
		samples := shape.generate(r, 1+r.IntN(130))
		for i := range samples[1:] {
			if r.IntN(20) == 0 {
				samples[i+1].t = samples[i].t
			}
		}
		slices.SortStableFunc(samples, func(a, b sample) int { return int(a.t - b.t) })
		data := encode(t, samples)

		var c chunkenc.XORChunk
		c.Reset(data)
		want := c.Iterator(nil)
		it.Open(data)
		for {
			var a, b chunkenc.ValueType
			if r.IntN(3) == 0 {
				target := samples[r.IntN(len(samples))].t + r.Int64N(3) - 1
				a, b = it.Seek(target), want.Seek(target)
			} else {
				a, b = it.Next(), want.Next()
			}
			if a != b {
				t.Fatalf("%s: stands on %v instead of %v", shape.name, a, b)
			}
			if a == chunkenc.ValNone {
				break
			}
			gotT, gotV := it.At()
			wantT, wantV := want.At()
			if !same([]sample{{gotT, gotV}}, []sample{{wantT, wantV}}) || it.AtT() != wantT {
				t.Fatalf("%s: stands on %d, %v instead of %d, %v", shape.name, gotT, gotV, wantT, wantV)
			}
		}
		if (it.Err() == nil) != (want.Err() == nil) {
			t.Fatalf("%s: %v instead of %v", shape.name, it.Err(), want.Err())
		}
	}
}

// An iterator at its end stays there, and one without samples is at its end; none of its methods panics.
//
// Kills: Next that doesn't pass the end (next = len), after which Seek finds the last sample again.
func TestIteratorEnds(t *testing.T) {
	var it Iterator
	f := func(name string, want ...int64) {
		t.Helper()
		it.At()
		it.AtT()
		var got []int64
		for it.Next() != chunkenc.ValNone {
			got = append(got, it.AtT())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v instead of %v", name, got, want)
		}
		if it.Seek(0) != chunkenc.ValNone || it.Next() != chunkenc.ValNone {
			t.Errorf("%s: goes on behind the end", name)
		}
		it.At()
		it.AtT()
	}
	f("zero")
	it.Reset(Samples{Times: []int64{1, 2}, Values: []float64{1, 2}}, nil)
	f("two", 1, 2)
	it.Reset(Samples{Times: []int64{1, 2, 3}, Values: []float64{1, 2, 3}}, ErrDisorder)
	if it.Seek(2) != chunkenc.ValFloat || it.Seek(1) != chunkenc.ValFloat || it.AtT() != 2 {
		t.Error("a seek backwards moves")
	}
	f("after a seek", 3)
	if it.Err() != ErrDisorder { //nolint:errorlint // the very error is handed through
		t.Errorf("error is %v", it.Err())
	}
	it.Open(nil)
	f("no chunk")
	if it.Err() == nil {
		t.Error("no error of a chunk without bytes")
	}
}

// Between is what a look at every sample finds, and appending to it leaves the others alone.
//
// Kills: `> maxt` as `>= maxt`; the missing third index of the slices.
func TestBetween(t *testing.T) {
	times := []int64{1, 3, 3, 5, 9, 9}
	for mint := range int64(11) {
		for maxt := range int64(11) {
			s := Samples{Times: slices.Clone(times), Values: []float64{1, 2, 3, 4, 5, 6}}
			var want []sample
			for _, p := range pairs(s) {
				if mint <= p.t && p.t <= maxt {
					want = append(want, p)
				}
			}
			got := s.Between(mint, maxt)
			if !same(pairs(got), want) {
				t.Errorf("from %d to %d: %v instead of %v", mint, maxt, pairs(got), want)
			}
			if err := Decode(&got, encode(t, []sample{{7, 7}})); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.Times, times) {
				t.Errorf("from %d to %d: appending overwrites", mint, maxt)
			}
		}
	}
}
