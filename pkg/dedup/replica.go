package dedup

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// sample is what matters of a sample of any kind; the zero kind is none. It holds no pointers, so that
// copying one, which happens several times a sample, is cheap.
type sample struct {
	t    int64
	f    float64 // value of a float, count of a histogram
	kind chunkenc.ValueType
	// stale is true of a staleness marker; gauge of a histogram that says so.
	stale, gauge bool
}

// held is a sample that was read in advance, with its histogram if it is one.
type held struct {
	sample
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// lookahead is how many samples of each replica are read before the first is handed out, to know
// the interval from the start.
const lookahead = distances + 1

// replica is one input: the sample it stands on, which has not been handed out, and the one before.
type replica struct {
	it    chunkenc.Iterator
	ahead []held // read in advance, for learning
	pos   int    // of the current sample in ahead; len(ahead) is the iterator's own

	cur  sample // kind ValNone: at its end
	prev sample // the replica's own sample before cur, kind ValNone if unknown
	// staleAt is the time of the first marker that was passed on the way to cur.
	staleAt  int64
	hasStale bool
	// copies the stream that is handed out (see the package comment).
	copies bool

	scratch  *histogram.Histogram
	scratchF *histogram.FloatHistogram
}

func (r *replica) reset(it chunkenc.Iterator) {
	*r = replica{it: it, ahead: r.ahead[:0], pos: -1, scratch: r.scratch, scratchF: r.scratchF}
}

// learn reads the first samples and adds their distances.
func (r *replica) learn() (known interval) {
	for len(r.ahead) < lookahead {
		var s held
		if s.sample = r.read(r.it.Next()); s.kind == chunkenc.ValNone {
			break
		}
		// What read has put into the scratch space is kept.
		switch s.kind {
		case chunkenc.ValHistogram:
			s.h, r.scratch = r.scratch, nil
		case chunkenc.ValFloatHistogram:
			s.fh, r.scratchF = r.scratchF, nil
		}
		r.ahead = append(r.ahead, s)
		if n := len(r.ahead); n > 1 && s.t > r.ahead[n-2].t {
			known.add(s.t - r.ahead[n-2].t)
		}
	}
	return known
}

// next moves to the next sample that is later than the current one; input out of order is passed over.
func (r *replica) next() {
	r.prev = r.cur
	for {
		if r.pos < len(r.ahead) {
			r.stepAhead()
		} else {
			r.cur = r.read(r.it.Next())
		}
		if r.cur.t > r.prev.t || r.cur.kind == chunkenc.ValNone || r.prev.kind == chunkenc.ValNone {
			return
		}
	}
}

// stepAhead goes one further in what was read in advance, and from its end to the iterator.
func (r *replica) stepAhead() {
	switch r.pos++; {
	case r.pos < len(r.ahead):
		r.cur = r.ahead[r.pos].sample
	case r.pos < lookahead: // The end was seen.
		r.cur = sample{}
	default:
		r.cur = r.read(r.it.Next())
	}
}

// current returns the histograms of the current sample if it was read in advance.
func (r *replica) current() (h *histogram.Histogram, fh *histogram.FloatHistogram) {
	if r.pos < len(r.ahead) {
		return r.ahead[r.pos].h, r.ahead[r.pos].fh
	}
	return nil, nil
}

// seek moves to the first sample at or after t, perhaps in a leap that leaves prev unknown.
func (r *replica) seek(t int64) {
	for r.cur.kind != chunkenc.ValNone && r.cur.t < t {
		if r.pos < len(r.ahead) {
			r.next()
			continue
		}
		r.prev = sample{}
		r.cur = r.read(r.it.Seek(t))
		return
	}
}

// read describes the sample that the iterator stands on; a histogram is left in the scratch space.
func (r *replica) read(kind chunkenc.ValueType) (s sample) {
	s.kind = kind
	switch kind {
	case chunkenc.ValFloat:
		s.t, s.f = r.it.At()
		s.stale = value.IsStaleNaN(s.f)
	case chunkenc.ValHistogram:
		if r.scratch == nil {
			r.scratch = &histogram.Histogram{}
		}
		s.t, r.scratch = r.it.AtHistogram(r.scratch)
		h := r.scratch
		s.f, s.stale, s.gauge = float64(h.Count), value.IsStaleNaN(h.Sum), h.CounterResetHint == histogram.GaugeType
	case chunkenc.ValFloatHistogram:
		if r.scratchF == nil {
			r.scratchF = &histogram.FloatHistogram{}
		}
		s.t, r.scratchF = r.it.AtFloatHistogram(r.scratchF)
		h := r.scratchF
		s.f, s.stale, s.gauge = h.Count, value.IsStaleNaN(h.Sum), h.CounterResetHint == histogram.GaugeType
	}
	return s
}

// alive passes markers, noting the first one after t, and moves to a sample that is none.
func (r *replica) alive(t int64) {
	if r.hasStale && r.staleAt <= t {
		r.hasStale = false
	}
	for r.cur.stale {
		if !r.hasStale && r.cur.t > t {
			r.staleAt, r.hasStale = r.cur.t, true
		}
		r.next()
	}
}

func (r *replica) done() bool { return r.cur.kind == chunkenc.ValNone }

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
