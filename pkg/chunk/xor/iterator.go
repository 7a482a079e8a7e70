package xor

import (
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Iterator walks over samples in arrays, where a chunkenc.Iterator is wanted. The zero Iterator has no
// samples. It is for one goroutine.
type Iterator struct {
	samples Samples
	next    int // the index behind the current sample; past the length when exhausted
	current int // index of the current sample; the last one when exhausted
	err     error

	own Samples // the arrays of Open
}

var _ chunkenc.Iterator = (*Iterator)(nil)

// Reset places the iterator before the first of the samples, which it borrows until the next Reset or Open.
// Err will report err: what Decode returned for the samples, which may be some and an error.
func (it *Iterator) Reset(s Samples, err error) {
	it.samples, it.err = s, err
	it.next, it.current = 0, 0
}

// Open decodes an XOR chunk into arrays that the iterator keeps for reuse, and places itself before the
// first sample. The data is not kept. As in Prometheus's iterator, a fault shows after the samples before it.
func (it *Iterator) Open(data []byte) {
	it.own.Reset()
	err := Decode(&it.own, data)
	it.Reset(it.own, err)
}

// Next moves to the next sample.
func (it *Iterator) Next() chunkenc.ValueType {
	if it.next >= len(it.samples.Times) {
		return it.exhaust()
	}
	it.current = it.next
	it.next++
	return chunkenc.ValFloat
}

// Seek moves forward to the first sample at or after t, and stays if the current one is.
//
//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (it *Iterator) Seek(t int64) chunkenc.ValueType {
	times := it.samples.Times
	if it.next > len(times) {
		return chunkenc.ValNone
	}
	from := max(it.next-1, 0) // the current sample, or the first
	if from < len(times) && times[from] < t {
		// A reader that steps through a range seeks to something near: look at 1, 2, 4 … samples ahead, and
		// only then in between.
		ahead := 1
		for from+ahead < len(times) && times[from+ahead] < t {
			from += ahead
			ahead *= 2
		}
		between := times[from+1 : min(from+ahead, len(times))]
		from += 1 + sort.Search(len(between), func(i int) bool { return between[i] >= t })
	}
	it.next = from
	return it.Next()
}

func (it *Iterator) exhaust() chunkenc.ValueType {
	it.next = len(it.samples.Times) + 1
	return chunkenc.ValNone
}

// At returns the current sample: its time in ms and its value.
func (it *Iterator) At() (int64, float64) {
	if it.current >= len(it.samples.Times) {
		return 0, 0
	}
	return it.samples.Times[it.current], it.samples.Values[it.current]
}

// AtT returns the time of the current sample in ms.
func (it *Iterator) AtT() int64 {
	if it.current >= len(it.samples.Times) {
		return 0
	}
	return it.samples.Times[it.current]
}

// AtHistogram is for other chunks: Next and Seek never announce a histogram.
func (it *Iterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("BUG: histogram asked of float samples")
}

// AtFloatHistogram is for other chunks: Next and Seek never announce a histogram.
func (it *Iterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	panic("BUG: float histogram asked of float samples")
}

// Err returns the error that the samples end with.
func (it *Iterator) Err() error { return it.err }
