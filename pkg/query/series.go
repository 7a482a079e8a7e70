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
	it, ok := reuse.(*iterator)
	if !ok {
		it = &iterator{}
	}
	it.reset(s)
	return it
}

// iterator walks over the merged samples of a series. Its parts are kept for the next series.
type iterator struct {
	chunkenc.Iterator
	series *series
	whole  bool // chunks are decoded at once

	trimmed trimmed
	lanes   []lane
	streams []*totals
	inputs  []chunkenc.Iterator
	merged  chunkenc.Iterator // as package dedup made it
}

func (it *iterator) reset(s *series) {
	it.series = s
	asTotals := s.reading.totals(s.chunks)
	if !overlap(s.chunks) {
		it.Iterator = it.stream(0, s, nil, s.reading.mint, s.reading.maxt, asTotals)
		return
	}
	opts := s.reading.merge
	if asTotals {
		// Each lane's totals start from another value, so they are only good for their growth.
		opts.Mode, opts.Totals = dedup.Stay, true
	}
	it.lanes = split(s.chunks, it.lanes)
	it.inputs = it.inputs[:0]
	mint, maxt := s.reading.around(s.chunks)
	for i := range it.lanes {
		it.inputs = append(it.inputs, it.stream(i, s, it.lanes[i].chunks, mint, maxt, asTotals))
	}
	it.merged = dedup.Merge(it.merged, it.inputs, opts)
	it.trimmed = trimmed{Iterator: it.merged, mint: s.reading.mint, maxt: s.reading.maxt}
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
func (it *iterator) stream(i int, s *series, lane []int32, mint, maxt int64, asTotals bool) chunkenc.Iterator {
	for len(it.streams) <= i {
		it.streams = append(it.streams, &totals{})
	}
	t := it.streams[i]
	t.value.whole = it.whole
	t.stream.reset(s.reading, mint, maxt, s.chunks, lane)
	t.reset()
	if asTotals {
		return t
	}
	return &t.stream
}

// Err names the series, so that a chunk that can't be read is found.
func (it *iterator) Err() error {
	err := it.Iterator.Err()
	if err == nil {
		return nil
	}
	mint, maxt := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range it.series.chunks {
		mint, maxt = min(mint, it.series.chunks[i].MinTime), max(maxt, it.series.chunks[i].MaxTime)
	}
	return fmt.Errorf("decode chunks of series %s between %s and %s: %w", it.series.labels, store.FormatTime(mint), store.FormatTime(maxt), err)
}
