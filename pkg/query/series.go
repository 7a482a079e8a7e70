package query

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
)

// series is one series of a select: its labels and encoded chunks, in order.
type series struct {
	labels  labels.Labels
	chunks  []store.Chunk
	reading *reading
}

// Labels implements storage.Series.
func (s *series) Labels() labels.Labels { return s.labels }

// Iterator implements storage.Series. It may be called in parallel; nothing is decoded until the iterator
// is moved.
func (s *series) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	if s.reading.areFloats(s.chunks) {
		it, ok := reuse.(*floatIterator)
		if !ok {
			it = &floatIterator{}
		}
		it.reset(s)
		return it
	}
	it, ok := reuse.(*iterator)
	if !ok {
		it = &iterator{}
	}
	it.reset(s)
	return it
}

// unreadable names the series, so that a chunk that can't be read is found.
func (s *series) unreadable(err error) error {
	mint, maxt := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range s.chunks {
		mint, maxt = min(mint, s.chunks[i].MinTime), max(maxt, s.chunks[i].MaxTime)
	}
	return fmt.Errorf("decode chunks of series %s between %s and %s: %w", s.labels, store.FormatTime(mint), store.FormatTime(maxt), err)
}

// iterator walks over the merged samples of a series, whatever they are. Its parts are kept for the next series.
type iterator struct {
	chunkenc.Iterator
	series *series

	trimmed  trimmed
	replicas replicas
	streams  []*totals
	inputs   []chunkenc.Iterator
	merged   chunkenc.Iterator // as package dedup made it
}

func (it *iterator) reset(s *series) {
	it.series = s
	asTotals := s.reading.totals(s.chunks)
	opts := s.reading.merge
	opts.Reach = s.reading.reach
	it.replicas.split(s.chunks, opts.Mode)
	it.inputs = it.inputs[:0]
	n := 0 // of streams
	for i := range it.replicas.all {
		r := &it.replicas.all[i]
		mint, maxt := s.reading.around(s.chunks, r.chunks)
		var parts []chunkenc.Iterator
		for _, lane := range sublanes(s.chunks, r.chunks) {
			parts = append(parts, it.stream(n, s, lane.chunks, mint, maxt, asTotals))
			n++
		}
		if asTotals || len(parts) == 1 {
			it.inputs = append(it.inputs, parts...)
		} else {
			it.inputs = append(it.inputs, newUnion(parts))
		}
	}
	if asTotals {
		// Each stream's totals start from another value, so they are only good for their growth.
		opts.Mode, opts.Totals = dedup.Stay, true
	}
	merged := dedup.Merge(it.merged, it.inputs, opts)
	if len(it.inputs) > 1 {
		it.merged = merged
	}
	it.trimmed = trimmed{Iterator: merged, mint: s.reading.mint, maxt: s.reading.maxt}
	it.Iterator = &it.trimmed
}

// trimmed leaves out what is before mint and after maxt.
type trimmed struct {
	chunkenc.Iterator
	mint, maxt   int64
	begun, ended bool
}

func (t *trimmed) Next() chunkenc.ValueType {
	if !t.begun {
		return t.Seek(t.mint)
	}
	if t.ended {
		return chunkenc.ValNone
	}
	return t.take(t.Iterator.Next())
}

//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (t *trimmed) Seek(to int64) chunkenc.ValueType {
	t.begun = true
	if t.ended {
		return chunkenc.ValNone
	}
	return t.take(t.Iterator.Seek(max(to, t.mint)))
}

func (t *trimmed) take(kind chunkenc.ValueType) chunkenc.ValueType {
	if kind != chunkenc.ValNone && t.AtT() > t.maxt {
		t.ended = true
		return chunkenc.ValNone
	}
	return kind
}

// stream sets up the i-th stream, from mint to maxt.
func (it *iterator) stream(i int, s *series, chunks []int32, mint, maxt int64, asTotals bool) chunkenc.Iterator {
	for len(it.streams) <= i {
		it.streams = append(it.streams, &totals{})
	}
	t := it.streams[i]
	t.stream.reset(s.reading, mint, maxt, s.chunks, chunks)
	t.reset()
	if asTotals {
		return t
	}
	return &t.stream
}

// Err implements chunkenc.Iterator.
func (it *iterator) Err() error {
	if err := it.Iterator.Err(); err != nil {
		return it.series.unreadable(err)
	}
	return nil
}
