package query

import (
	"fmt"
	"math"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/dedup"
)

// merged merges the replicas of a series of floats. Its parts are kept for the next series.
type merged struct {
	*dedup.Merger[float64]
	replicas replicas
	sources  []floats
	inputs   []dedup.Source[float64]
}

func (m *merged) reset(s *series) {
	if m.Merger == nil {
		m.Merger = dedup.NewFloats()
	}
	m.replicas.split(s.chunks, s.reading.merge.Mode)
	for len(m.sources) < len(m.replicas.all) {
		m.sources = append(m.sources, floats{})
	}
	m.inputs = m.inputs[:0]
	for i := range m.replicas.all {
		m.sources[i].reset(s.reading, s.chunks, m.replicas.all[i].chunks)
		m.inputs = append(m.inputs, &m.sources[i])
	}
	m.Reset(m.inputs, max(s.reading.reach, dedup.Reach(0)))
}

// size is the memory in bytes of the arrays that samples are decoded into.
func (m *merged) size() (n int64) {
	for i := range m.sources {
		f := &m.sources[i]
		n += int64(cap(f.held.Times)+cap(f.count.Times)+cap(f.other.Times)) * sampleBytes
	}
	return n + int64(m.Held())*sampleBytes
}

// sampleBytes is what a time and a value take.
const sampleBytes = 16

// floatIterator walks over the merged samples of a series of floats. It merges one stretch after the other, about
// as long as a chunk, since some engines hold an iterator for each of their series.
type floatIterator struct {
	series *series
	merged merged
	times  []int64
	values []float64
	next   int   // index behind the current sample
	until  int64 // everything up to this time was merged
	ended  bool
	err    error

	reserved int64 // bytes of the budget, for as long as the select's querier is open
}

func (it *floatIterator) reset(s *series) {
	it.series = s
	it.merged.reset(s)
	it.times, it.values, it.next = nil, nil, 0
	it.until, it.ended, it.err = dedup.Add(s.reading.mint, -1), false, nil
}

// Next implements chunkenc.Iterator.
func (it *floatIterator) Next() chunkenc.ValueType {
	if it.next < len(it.times) {
		it.next++
		return chunkenc.ValFloat
	}
	return it.more()
}

// more moves to the first sample of the next stretch that has one.
func (it *floatIterator) more() chunkenc.ValueType {
	for !it.ended {
		from := dedup.Add(it.until, 1)
		it.until = min(it.merged.Ahead(it.until), it.series.reading.maxt)
		it.times, it.values, it.err = it.merged.Between(from, it.until)
		if it.err == nil {
			it.err = it.reserve()
		}
		it.next = 1
		it.ended = it.err != nil || it.until >= it.series.reading.maxt || it.until == math.MaxInt64
		if it.err == nil && len(it.times) > 0 {
			return chunkenc.ValFloat
		}
	}
	it.next = len(it.times) + 1
	return chunkenc.ValNone
}

// reserve charges the arrays to the budget where they have grown.
func (it *floatIterator) reserve() error {
	n := it.merged.size()
	reserve := it.series.reading.reserve
	if n <= it.reserved || reserve == nil {
		return nil
	}
	if err := reserve(n - it.reserved); err != nil {
		return fmt.Errorf("keep decoded samples: %w", err)
	}
	it.reserved = n
	return nil
}

// Seek moves to the first sample at or after t, and stays if the current one is.
//
//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (it *floatIterator) Seek(t int64) chunkenc.ValueType {
	if it.next > len(it.times) {
		return chunkenc.ValNone
	}
	from := max(it.next-1, 0) // the current sample, or the first
	if n := len(it.times); n == 0 || it.times[n-1] < t {
		if t > dedup.Add(it.until, 1) && !it.ended {
			it.until = t - 1
			if it.until >= it.series.reading.maxt {
				it.ended = true
			}
		}
		for it.next = len(it.times); ; {
			switch kind := it.more(); {
			case kind == chunkenc.ValNone:
				return kind
			case it.times[len(it.times)-1] >= t:
				it.next = 1 + sort.Search(len(it.times), func(i int) bool { return it.times[i] >= t })
				return kind
			}
		}
	}
	if it.times[from] < t {
		// A reader that steps through a range seeks to something near: look at 1, 2, 4 … samples ahead, and
		// only then in between.
		ahead := 1
		for from+ahead < len(it.times) && it.times[from+ahead] < t {
			from += ahead
			ahead *= 2
		}
		between := it.times[from+1 : min(from+ahead, len(it.times))]
		from += 1 + sort.Search(len(between), func(i int) bool { return between[i] >= t })
	}
	it.next = from + 1
	return chunkenc.ValFloat
}

// At implements chunkenc.Iterator.
func (it *floatIterator) At() (int64, float64) {
	if i := it.next - 1; uint(i) < uint(len(it.times)) && i < len(it.values) {
		return it.times[i], it.values[i]
	}
	return 0, 0 // It stands on nothing.
}

// AtT implements chunkenc.Iterator.
func (it *floatIterator) AtT() int64 {
	t, _ := it.At()
	return t
}

// AtHistogram is never called: Next and Seek never announce a histogram.
func (it *floatIterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("BUG: query: histogram asked of float samples")
}

// AtFloatHistogram is never called: Next and Seek never announce a histogram.
func (it *floatIterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	panic("BUG: query: float histogram asked of float samples")
}

// Err implements chunkenc.Iterator.
func (it *floatIterator) Err() error {
	if it.err != nil {
		return it.series.unreadable(it.err)
	}
	return nil
}
