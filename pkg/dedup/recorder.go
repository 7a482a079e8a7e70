package dedup

import (
	"math"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// sample is what matters of a sample of any kind; the zero kind is none.
type sample struct {
	t    int64
	f    float64 // value of a float, count of a histogram
	kind chunkenc.ValueType
}

var staleSample = sample{kind: chunkenc.ValFloat, f: math.Float64frombits(value.StaleNaN)}

// held is a sample with its histogram if it is one, and the replica's own sample before.
type held struct {
	sample
	h   *histogram.Histogram
	fh  *histogram.FloatHistogram
	own sample // kind ValNone if none is known
}

func (h held) isStale() bool { return h.kind == chunkenc.ValFloat && value.IsStaleNaN(h.f) }

// recorder is a Source over an iterator: it holds what has been read and may still be asked for.
type recorder struct {
	it    chunkenc.Iterator
	first bool // it is never asked for anything earlier than before
	times []int64
	buf   []held
	marks []int64
	begun bool
	ended bool
}

func (r *recorder) reset(it chunkenc.Iterator, first bool) {
	clear(r.buf) // Lets histograms go.
	*r = recorder{it: it, first: first, times: r.times[:0], buf: r.buf[:0], marks: r.marks[:0]}
}

// Around implements Source.
func (r *recorder) Around(mint, maxt int64, context bool, beyond int64) (Window[held], error) {
	r.forget(mint, beyond)
	if from := Add(mint, -2*beyond); !r.ended && (!r.begun || len(r.times) > 0 && r.times[len(r.times)-1] < from) && from > math.MinInt64 {
		// Nobody will ask for what lies in between, nor for what came before.
		r.times, r.buf, r.marks = r.times[:0], r.buf[:0], r.marks[:0]
		r.take(r.it.Seek(from))
	}
	for !r.ended && (len(r.times) == 0 || r.times[len(r.times)-1] <= maxt) {
		r.take(r.it.Next())
	}
	if context {
		_, j := span(r.times, mint, maxt)
		for !r.ended && len(r.times) < j+Context && r.times[len(r.times)-1] <= Add(maxt, beyond) {
			r.take(r.it.Next())
		}
	}
	return Window[held]{Times: r.times, Values: r.buf, Marks: r.marks}, r.it.Err()
}

// recorderAhead is how many samples are merged at once.
const recorderAhead = 32

// Ahead implements Source.
func (r *recorder) Ahead(t int64) int64 {
	i := sort.Search(len(r.times), func(k int) bool { return r.times[k] > t })
	for !r.ended && len(r.times) < i+recorderAhead {
		r.take(r.it.Next())
	}
	if i = min(i+recorderAhead, len(r.times)) - 1; i < 0 || r.times[i] <= t {
		if n := len(r.marks); n > 0 && r.marks[n-1] > t {
			return r.marks[n-1]
		}
		return math.MaxInt64
	}
	return r.times[i]
}

// take keeps the sample that the iterator stands on; what is out of order is passed over.
func (r *recorder) take(kind chunkenc.ValueType) {
	r.begun = true
	var s held
	s.kind = kind
	var stale bool
	switch kind {
	case chunkenc.ValFloat:
		s.t, s.f = r.it.At()
		stale = value.IsStaleNaN(s.f)
	case chunkenc.ValHistogram:
		s.t, s.h = r.it.AtHistogram(nil)
		s.f = float64(s.h.Count)
		stale = value.IsStaleNaN(s.h.Sum)
	case chunkenc.ValFloatHistogram:
		s.t, s.fh = r.it.AtFloatHistogram(nil)
		s.f = s.fh.Count
		stale = value.IsStaleNaN(s.fh.Sum)
	default:
		r.ended = true
		return
	}
	if stale {
		if n := len(r.marks); n == 0 || r.marks[n-1] < s.t {
			r.marks = append(r.marks, s.t)
		}
		return
	}
	n := len(r.times)
	if n > 0 && s.t <= r.times[n-1] {
		return
	}
	if n > 0 {
		s.own = r.buf[n-1].sample
	}
	r.times = append(r.times, s.t)
	r.buf = append(r.buf, s)
}

// forget lets go of what lies further back than anybody asks for again.
func (r *recorder) forget(mint, beyond int64) {
	i, _ := span(r.times, mint, mint)
	if i -= Context; !r.first {
		k, _ := span(r.times, Add(mint, -2*beyond), mint)
		i = min(i, k)
	}
	// Moving what stays costs as much as what is dropped saves only if little is dropped.
	if i <= len(r.times)/2 {
		return
	}
	n := copy(r.times, r.times[i:])
	r.times = r.times[:n]
	copy(r.buf, r.buf[i:])
	clear(r.buf[n:])
	r.buf = r.buf[:n]
	m := 0
	for m < len(r.marks) && r.marks[m] < r.times[0] {
		m++
	}
	r.marks = append(r.marks[:0], r.marks[m:]...)
}
