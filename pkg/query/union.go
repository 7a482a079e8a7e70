package query

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// union walks over what several stores hold of one replica: every sample once, in order of time.
//
// What a histogram says about resets since the one before holds for its own stream. It is handed on where that one
// is what was handed out before, in whichever stream it stood.
type union struct {
	streams []unionStream
	at      int // index of the stream that the current sample is taken from, -1 before the first and after the last
	last    int64
	sought  bool // the current sample was sought: nobody has seen the one before
	own     int64
	err     error
}

type unionStream struct {
	chunkenc.Iterator
	kind   chunkenc.ValueType
	before int64 // time of its sample before the one that it stands on, math.MinInt64 if that was not looked at
}

func newUnion(its []chunkenc.Iterator) *union {
	u := &union{at: -1, last: math.MinInt64, streams: make([]unionStream, len(its))}
	for i, it := range its {
		u.streams[i] = unionStream{Iterator: it, before: math.MinInt64}
	}
	return u
}

// Next implements chunkenc.Iterator.
func (u *union) Next() chunkenc.ValueType {
	if u.at < 0 && u.last != math.MinInt64 {
		return chunkenc.ValNone
	}
	for i := range u.streams {
		s := &u.streams[i]
		switch {
		case u.at < 0:
			s.kind = s.Next()
		case s.kind != chunkenc.ValNone && s.AtT() <= u.last:
			s.before = s.AtT()
			s.kind = s.Next()
		}
	}
	return u.choose(false)
}

// Seek implements chunkenc.Iterator.
//
//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (u *union) Seek(t int64) chunkenc.ValueType {
	if u.at >= 0 && u.last >= t {
		return u.streams[u.at].kind
	}
	if u.at < 0 && u.last != math.MinInt64 {
		return chunkenc.ValNone
	}
	for i := range u.streams {
		s := &u.streams[i]
		if u.at < 0 || s.kind != chunkenc.ValNone && s.AtT() < t {
			s.kind, s.before = s.Seek(t), math.MinInt64
		}
	}
	return u.choose(true)
}

// choose takes the earliest sample, of equal ones that which follows the one handed out before.
func (u *union) choose(sought bool) chunkenc.ValueType {
	best, t := -1, int64(math.MaxInt64)
	for i := range u.streams {
		s := &u.streams[i]
		if s.kind == chunkenc.ValNone {
			if err := s.Err(); err != nil {
				u.at, u.last, u.err = -1, math.MaxInt64, err
				return chunkenc.ValNone
			}
			continue
		}
		if at := s.AtT(); best < 0 || at < t || at == t && s.before == u.last && u.streams[best].before != u.last {
			best, t = i, at
		}
	}
	u.sought, u.own, u.at = sought, u.last, best
	if best < 0 {
		u.last = math.MaxInt64
		return chunkenc.ValNone
	}
	u.last = t
	return u.streams[best].kind
}

// follows tells whether the current sample's own predecessor is the one handed out before it.
func (u *union) follows() bool { return u.sought || u.streams[u.at].before == u.own }

// At implements chunkenc.Iterator.
func (u *union) At() (int64, float64) { return u.streams[u.at].At() }

// AtHistogram implements chunkenc.Iterator.
func (u *union) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	t, h := u.streams[u.at].AtHistogram(h)
	if !u.follows() && h.CounterResetHint != histogram.GaugeType {
		h.CounterResetHint = histogram.UnknownCounterReset
	}
	return t, h
}

// AtFloatHistogram implements chunkenc.Iterator.
func (u *union) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t, fh := u.streams[u.at].AtFloatHistogram(fh)
	if !u.follows() && fh.CounterResetHint != histogram.GaugeType {
		fh.CounterResetHint = histogram.UnknownCounterReset
	}
	return t, fh
}

// AtT implements chunkenc.Iterator.
func (u *union) AtT() int64 { return u.last }

// Err implements chunkenc.Iterator.
func (u *union) Err() error { return u.err }
