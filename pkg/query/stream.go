package query

import (
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
)

// stream walks over the samples of chunks that do not overlap, one after the other. Samples outside the wanted times, and
// those of a chunk that are not later than the chunk before, are left out.
type stream struct {
	chunkenc.Iterator // over the open chunk

	reading    *reading
	mint, maxt int64 // samples outside are left out
	all        []store.Chunk
	lane       []int32 // nil: all
	next       int     // the chunk to open next

	value, count decoder
	average      average
	last         int64 // the time of the last sample handed out, if it began
	began, ended bool
	err          error
}

func (s *stream) reset(r *reading, mint, maxt int64, all []store.Chunk, lane []int32) {
	s.Iterator = nil
	s.reading, s.mint, s.maxt, s.all, s.lane = r, mint, maxt, all, lane
	s.next, s.last, s.err = 0, math.MinInt64, nil
	s.began, s.ended = false, false
}

// chunk returns the i-th chunk, nil past the end.
func (s *stream) chunk(i int) *store.Chunk {
	switch {
	case s.lane == nil && i < len(s.all):
		return &s.all[i]
	case s.lane != nil && i < len(s.lane):
		return &s.all[s.lane[i]]
	}
	return nil
}

// open opens the next chunk that may have samples from t on and moves to the first of them; false when
// there are no more chunks or one can't be read.
func (s *stream) open(t int64) bool {
	c := s.chunk(s.next)
	for c != nil && c.MaxTime < t {
		s.next++
		c = s.chunk(s.next)
	}
	if c == nil || c.MinTime > s.maxt {
		return false
	}
	s.next++
	value, count, err := s.reading.pick(c)
	if err == nil {
		s.Iterator, err = s.value.open(value)
	}
	if err == nil && count != nil {
		s.average = average{sum: s.Iterator}
		s.average.count, err = s.count.open(count)
		s.Iterator = &s.average
	}
	s.err = err
	return err == nil
}

func (s *stream) Next() chunkenc.ValueType {
	if s.Iterator != nil && s.err == nil {
		if kind := s.Iterator.Next(); kind != chunkenc.ValNone {
			return s.take(kind)
		}
	}
	return s.forward(math.MinInt64)
}

// Seek moves to the first sample at or after t, and nowhere if it stands on one.
//
//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (s *stream) Seek(t int64) chunkenc.ValueType {
	if s.Iterator != nil && s.err == nil {
		// The open chunk may be left without decoding its rest.
		if c := s.chunk(s.next - 1); s.last >= t || c.MaxTime >= t {
			if kind := s.Iterator.Seek(t); kind != chunkenc.ValNone {
				return s.take(kind)
			}
		}
	}
	return s.forward(t)
}

// forward goes to the first sample from t on in the chunks to come.
func (s *stream) forward(t int64) chunkenc.ValueType {
	t = max(t, s.mint)
	if s.began {
		t = max(t, s.last+1)
	}
	for s.err == nil && !s.ended {
		if s.Iterator != nil {
			if s.err = s.Iterator.Err(); s.err != nil {
				break
			}
		}
		if !s.open(t) {
			s.ended = true
			break
		}
		if kind := s.Iterator.Seek(t); kind != chunkenc.ValNone {
			return s.take(kind)
		}
	}
	s.Iterator = nil
	return chunkenc.ValNone
}

// take ends the stream behind the wanted times.
func (s *stream) take(kind chunkenc.ValueType) chunkenc.ValueType {
	t := s.AtT()
	if t > s.maxt {
		s.ended, s.Iterator = true, nil
		return chunkenc.ValNone
	}
	s.last, s.began = t, true
	return kind
}

func (s *stream) Err() error {
	if s.err == nil && s.Iterator != nil {
		return s.Iterator.Err()
	}
	return s.err
}
