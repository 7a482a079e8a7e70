package dedup

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// sample is a sample of any kind; the zero kind is none.
type sample struct {
	t    int64
	kind chunkenc.ValueType
	f    float64 // value of a float, count of a histogram
	// stale is true of a staleness marker; gauge of a histogram that says so.
	stale, gauge bool
	h            *histogram.Histogram
	fh           *histogram.FloatHistogram
}

// lookahead is how many samples of each replica are read before the first is handed out, to know
// the interval from the start.
const lookahead = distances + 1

// replica is one input: the sample it stands on, which has not been handed out, and the one before.
type replica struct {
	it    chunkenc.Iterator
	ahead []sample // read in advance, for learning
	pos   int      // of the current sample in ahead; len(ahead) is the iterator's own

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
		s := r.read(r.it.Next(), true)
		if s.kind == chunkenc.ValNone {
			break
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
		r.step()
		if r.cur.t > r.prev.t || r.cur.kind == chunkenc.ValNone || r.prev.kind == chunkenc.ValNone {
			return
		}
	}
}

func (r *replica) step() {
	switch n := len(r.ahead); {
	case r.pos < n-1:
		r.pos++
		r.cur = r.ahead[r.pos]
	case n < lookahead: // The end was seen.
		r.pos = n
		r.cur = sample{}
	default:
		r.pos = n
		r.cur = r.read(r.it.Next(), false)
	}
}

// seek moves to the first sample at or after t, perhaps in a leap that leaves prev unknown.
func (r *replica) seek(t int64) {
	for r.cur.kind != chunkenc.ValNone && r.cur.t < t {
		if r.pos < len(r.ahead) {
			r.next()
			continue
		}
		r.prev = sample{}
		r.cur = r.read(r.it.Seek(t), false)
		return
	}
}

// read describes the sample that the iterator stands on; kept histograms are copied.
func (r *replica) read(kind chunkenc.ValueType, keep bool) (s sample) {
	s.kind = kind
	switch kind {
	case chunkenc.ValFloat:
		s.t, s.f = r.it.At()
		s.stale = value.IsStaleNaN(s.f)
	case chunkenc.ValHistogram:
		h := r.scratch
		if keep || h == nil {
			h = &histogram.Histogram{}
		}
		s.t, h = r.it.AtHistogram(h)
		s.f, s.stale, s.gauge = float64(h.Count), value.IsStaleNaN(h.Sum), h.CounterResetHint == histogram.GaugeType
		if keep {
			s.h = h
		} else {
			r.scratch = h
		}
	case chunkenc.ValFloatHistogram:
		h := r.scratchF
		if keep || h == nil {
			h = &histogram.FloatHistogram{}
		}
		s.t, h = r.it.AtFloatHistogram(h)
		s.f, s.stale, s.gauge = h.Count, value.IsStaleNaN(h.Sum), h.CounterResetHint == histogram.GaugeType
		if keep {
			s.fh = h
		} else {
			r.scratchF = h
		}
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
