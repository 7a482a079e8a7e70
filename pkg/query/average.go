package query

import (
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// average walks over the sum and the count of a downsampled chunk together and hands out their quotients.
type average struct {
	sum, count chunkenc.Iterator
	kind       chunkenc.ValueType
	err        error
}

func (a *average) Next() chunkenc.ValueType {
	if a.err != nil {
		return chunkenc.ValNone
	}
	a.kind = a.sum.Next()
	count := a.count.Next()
	if a.kind == chunkenc.ValNone && count == chunkenc.ValNone {
		return chunkenc.ValNone
	}
	if a.kind == chunkenc.ValNone || count != chunkenc.ValFloat || a.sum.AtT() != a.count.AtT() {
		a.err = a.mismatch()
		a.kind = chunkenc.ValNone
	}
	return a.kind
}

func (a *average) mismatch() error {
	if err := a.sum.Err(); err != nil {
		return fmt.Errorf("read sum: %w", err)
	}
	if err := a.count.Err(); err != nil {
		return fmt.Errorf("read count: %w", err)
	}
	return fmt.Errorf("sum and count of a downsampled chunk have different timestamps")
}

//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (a *average) Seek(t int64) chunkenc.ValueType {
	if a.kind != chunkenc.ValNone && a.sum.AtT() >= t {
		return a.kind
	}
	for kind := a.Next(); ; kind = a.Next() {
		if kind == chunkenc.ValNone || a.AtT() >= t {
			return kind
		}
	}
}

func (a *average) At() (int64, float64) {
	t, sum := a.sum.At()
	_, count := a.count.At()
	return t, sum / count
}

// AtHistogram is never called: sums of histograms are float histograms.
func (a *average) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("BUG: query: average of an integer histogram")
}

func (a *average) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if fh == nil {
		// One of our own: what the iterator makes shares its buckets, which hold the state of decoding.
		fh = &histogram.FloatHistogram{}
	}
	t, fh := a.sum.AtFloatHistogram(fh)
	_, count := a.count.At()
	return t, fh.Div(count)
}

func (a *average) AtT() int64 { return a.sum.AtT() }

func (a *average) Err() error {
	if a.err != nil {
		return a.err
	}
	if err := a.sum.Err(); err != nil {
		return err
	}
	return a.count.Err()
}
