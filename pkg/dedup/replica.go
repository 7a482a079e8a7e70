package dedup

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// sample is what matters of a sample of any kind; the zero kind is none. It holds no pointers, so that
// copying one is cheap.
type sample struct {
	t    int64
	f    float64 // value of a float, count of a histogram
	kind chunkenc.ValueType
	// gauge is true of a histogram that says so.
	gauge bool
}

// held is a sample with its histogram if it is one.
type held struct {
	sample
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// replica is one input and what has been read of it and is still needed.
type replica struct {
	it    chunkenc.Iterator
	times []int64 // of buf, apart because the rules look at nothing else
	buf   []held  // in order of time, without staleness markers
	marks []int64 // the times of staleness markers
	ended bool

	next   int // index in buf of the first sample that may still become the base
	lo, hi int // of the window that is learned from
}

func (r *replica) reset(it chunkenc.Iterator) {
	clear(r.buf) // Lets histograms go.
	*r = replica{it: it, times: r.times[:0], buf: r.buf[:0], marks: r.marks[:0]}
}

// readTo reads until a sample at or after t is known, or the end.
func (r *replica) readTo(t int64) {
	for !r.ended && (len(r.times) == 0 || r.times[len(r.times)-1] < t) {
		r.read()
	}
}

// read takes one sample from the iterator; what is out of order is passed over.
func (r *replica) read() {
	var s held
	s.kind = r.it.Next()
	var stale bool
	switch s.kind {
	case chunkenc.ValFloat:
		s.t, s.f = r.it.At()
		stale = value.IsStaleNaN(s.f)
	case chunkenc.ValHistogram:
		s.t, s.h = r.it.AtHistogram(nil)
		s.f, s.gauge = float64(s.h.Count), s.h.CounterResetHint == histogram.GaugeType
		stale = value.IsStaleNaN(s.h.Sum)
	case chunkenc.ValFloatHistogram:
		s.t, s.fh = r.it.AtFloatHistogram(nil)
		s.f, s.gauge = s.fh.Count, s.fh.CounterResetHint == histogram.GaugeType
		stale = value.IsStaleNaN(s.fh.Sum)
	default:
		r.ended = true
		return
	}
	if stale {
		r.marks = append(r.marks, s.t)
		return
	}
	if n := len(r.times); n > 0 && s.t <= r.times[n-1] {
		return
	}
	r.times = append(r.times, s.t)
	r.buf = append(r.buf, s)
}

// forget lets go of what lies before t, but for the last samples that a window may need.
func (r *replica) forget(t int64) {
	i := r.next
	for i > 0 && r.times[i-1] > t {
		i--
	}
	// Moving what stays costs as much as what is dropped saves only if little is dropped.
	if i -= windowMax + 1; i < 4*windowMax {
		return
	}
	n := copy(r.times, r.times[i:])
	r.times = r.times[:n]
	copy(r.buf, r.buf[i:])
	clear(r.buf[n:])
	r.buf = r.buf[:n]
	r.next -= i
	m := 0
	for m < len(r.marks) && r.marks[m] < r.times[0] {
		m++
	}
	r.marks = append(r.marks[:0], r.marks[m:]...)
}

// at returns the index of the first sample at or after t, looking around the index near.
func (r *replica) at(t int64, near int) int {
	i := min(near, len(r.times))
	for i > 0 && r.times[i-1] >= t {
		i--
	}
	for i < len(r.times) && r.times[i] < t {
		i++
	}
	return i
}

// fell tells whether the replica itself has seen its value fall on the way from the time t to its i-th sample.
func (r *replica) fell(i int, t int64) bool {
	for ; i > 0; i-- {
		a, b := &r.buf[i-1], &r.buf[i]
		if a.kind == b.kind && b.f < a.f {
			return true
		}
		if a.t <= t {
			break
		}
	}
	return false
}

// compare orders samples of one time by what they hold: kind, then value; NaN is the least.
func compare(a, b *sample) int {
	switch {
	case a.kind != b.kind:
		return int(a.kind) - int(b.kind)
	case a.f > b.f, math.IsNaN(b.f) && !math.IsNaN(a.f):
		return 1
	case a.f < b.f, math.IsNaN(a.f) && !math.IsNaN(b.f):
		return -1
	}
	return 0
}

// add returns t + d, no further than the ends of time.
func add(t, d int64) int64 {
	if d > 0 && t > math.MaxInt64-d {
		return math.MaxInt64
	}
	if d < 0 && t < math.MinInt64-d {
		return math.MinInt64
	}
	return t + d
}
