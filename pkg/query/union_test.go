package query

import (
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// numbered is an iterator over histograms that say whether they follow what the whole series has before them.
type numbered struct {
	chunkenc.Iterator // for what is not used here
	times             []int64
	hints             []histogram.CounterResetHint
	at                int
}

func (n *numbered) Next() chunkenc.ValueType { return n.Seek(n.AtT() + 1) }

//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (n *numbered) Seek(t int64) chunkenc.ValueType {
	for n.at < len(n.times) && (n.at < 0 || n.times[n.at] < t) {
		n.at++
	}
	if n.at == len(n.times) {
		return chunkenc.ValNone
	}
	return chunkenc.ValHistogram
}

func (n *numbered) AtT() int64 {
	if n.at < 0 || n.at == len(n.times) {
		return -1
	}
	return n.times[n.at]
}

func (n *numbered) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	h := tsdbutil.GenerateTestHistogram(n.times[n.at])
	h.CounterResetHint = n.hints[n.at]
	return n.times[n.at], h
}

func (n *numbered) Err() error { return nil }

// Shows that the union of what stores hold of a replica is each sample once, in order, walked or sought; and that what
// a histogram says of the one before is handed on only where that was handed out, and always where a store holds both.
func TestUnion(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		n := 1 + rnd.IntN(30)
		has := make([]bool, n)
		both := make([]bool, n) // some store holds this and the one before in the union, with nothing between
		var its []chunkenc.Iterator
		var all []*numbered
		for range 1 + rnd.IntN(4) {
			it := &numbered{at: -1}
			for at := range n {
				if rnd.IntN(3) > 0 {
					has[at] = true
					it.times = append(it.times, int64(at))
				}
			}
			all, its = append(all, it), append(its, it)
		}
		before := make([]int64, n)
		last := int64(-1)
		for at := range n {
			if before[at] = last; has[at] {
				last = int64(at)
			}
		}
		for _, it := range all {
			for i, at := range it.times {
				// The truth about the one before in its own store: not a reset if that is the union's, a reset if it is not.
				hint := histogram.CounterReset
				if i > 0 && it.times[i-1] == before[at] {
					hint, both[at] = histogram.NotCounterReset, true
				}
				it.hints = append(it.hints, hint)
			}
		}
		u := newUnion(its)
		at := int64(-1)
		for {
			want := at + 1
			var kind chunkenc.ValueType
			walked := false
			if rnd.IntN(4) > 0 {
				kind, walked = u.Next(), at >= 0
			} else {
				want += rnd.Int64N(3)
				kind = u.Seek(want)
			}
			for want < int64(n) && !has[want] {
				want++
			}
			if want >= int64(n) {
				if kind != chunkenc.ValNone || u.Next() != chunkenc.ValNone || u.Seek(0) != chunkenc.ValNone {
					t.Fatalf("seed %d: more after the end", seed)
				}
				break
			}
			if kind != chunkenc.ValHistogram || u.AtT() != want {
				t.Fatalf("seed %d: at %d, want %d", seed, u.AtT(), want)
			}
			at = want
			_, h := u.AtHistogram(nil)
			if walked && h.CounterResetHint == histogram.CounterReset {
				t.Fatalf("seed %d: at %d: what is said of a sample that was not handed out is handed on", seed, at)
			}
			if walked && both[at] && h.CounterResetHint != histogram.NotCounterReset {
				t.Fatalf("seed %d: at %d: what is said of the sample before is lost", seed, at)
			}
		}
	}
}
