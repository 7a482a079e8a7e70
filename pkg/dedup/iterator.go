package dedup

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// stay is the iterator of mode Stay: it lets a Merger merge one stretch after the other.
type stay struct {
	opts      Options
	merger    *Merger[held]
	recorders []recorder
	sources   []Source[held]

	items []held // merged, of the current stretch
	times []int64
	at    int
	until int64 // everything up to this time has been merged
	begun bool
	ended bool

	last     held   // as handed out
	raw      sample // the same as it was recorded
	total    float64
	shift    float64
	hasTotal bool
	joined   bool // last follows the replica's own sample before
	err      error
}

func (s *stay) reset(replicas []chunkenc.Iterator, opts Options) {
	if opts.Reach == 0 {
		opts.Reach = Reach(0)
	}
	old := s.recorders[:cap(s.recorders)]
	for len(old) < len(replicas) {
		old = append(old, recorder{})
	}
	*s = stay{opts: opts, merger: s.merger, recorders: old[:len(replicas)], sources: s.sources[:0], until: math.MinInt64}
	for i, it := range replicas {
		s.recorders[i].reset(it, i == 0)
		s.sources = append(s.sources, &s.recorders[i])
	}
	s.merger.Reset(s.sources, opts.Reach)
}

// Next moves to the next merged sample.
func (s *stay) Next() chunkenc.ValueType {
	for s.at == len(s.items) {
		if !s.more() {
			s.last.kind = chunkenc.ValNone
			return chunkenc.ValNone
		}
	}
	s.hand(&s.items[s.at], s.times[s.at])
	s.at++
	return s.last.kind
}

// more merges another stretch; false at the end.
func (s *stay) more() bool {
	if s.ended {
		return false
	}
	until := s.merger.Ahead(s.until)
	s.times, s.items, s.err = s.merger.Between(Add(s.until, 1), until)
	s.at, s.until = 0, until
	s.ended = s.err != nil || until == math.MaxInt64
	return s.err == nil
}

// hand makes an item the current sample.
func (s *stay) hand(it *held, t int64) {
	s.joined = s.begun && it.own.kind != chunkenc.ValNone && it.own == s.raw
	since := s.raw.t
	s.last, s.begun = *it, true
	s.last.t = t // A marker does not know its own.
	if it.isStale() {
		return
	}
	s.raw = s.last.sample
	if !s.opts.Totals || it.kind != chunkenc.ValFloat {
		return
	}
	if !s.joined && s.hasTotal {
		s.shift = s.total - it.f
		if it.own.kind == it.kind && it.f > it.own.f {
			// Its growth since the sample handed out before, or that part of its growth since its own.
			s.shift += (it.f - it.own.f) * min(1, float64(t-since)/float64(t-it.own.t))
		}
	}
	s.last.f += s.shift
	s.total, s.hasTotal = s.last.f, true
}

// Seek moves to the first merged sample at or after t.
//
//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (s *stay) Seek(t int64) chunkenc.ValueType {
	if s.begun && s.last.kind != chunkenc.ValNone && s.last.t >= t {
		return s.last.kind
	}
	if !s.opts.Totals && !s.ended && t > s.until && t != math.MinInt64 {
		// What lies before need not be merged.
		s.items, s.times, s.at = nil, nil, 0
		s.until = t - 1
	}
	for {
		if kind := s.Next(); kind == chunkenc.ValNone || s.last.t >= t {
			return kind
		}
	}
}

// At returns the current float sample.
func (s *stay) At() (int64, float64) { return s.last.t, s.last.f }

// AtHistogram returns the current histogram; h may be reused.
func (s *stay) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	if h == nil {
		h = &histogram.Histogram{}
	}
	s.last.h.CopyTo(h)
	h.CounterResetHint = s.hint(h.CounterResetHint)
	return s.last.t, h
}

// AtFloatHistogram returns the current histogram of either kind as a float histogram; fh may be reused.
func (s *stay) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	switch {
	case s.last.h != nil:
		fh = s.last.h.ToFloat(fh)
	case fh == nil:
		fh = s.last.fh.Copy()
	default:
		s.last.fh.CopyTo(fh)
	}
	fh.CounterResetHint = s.hint(fh.CounterResetHint)
	return s.last.t, fh
}

// hint takes back what a replica says about resets since its own previous sample where that is not the
// sample handed out before.
func (s *stay) hint(h histogram.CounterResetHint) histogram.CounterResetHint {
	if !s.joined && h != histogram.GaugeType {
		return histogram.UnknownCounterReset
	}
	return h
}

// AtT returns the time of the current sample.
func (s *stay) AtT() int64 { return s.last.t }

// Err returns what ended the stream early.
func (s *stay) Err() error { return s.err }
