package query

import (
	"fmt"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/pkg/store"
)

// decoder opens encoded chunks one after the other; each iterator is valid until the next is opened. A chunk of
// floats is decoded at once, into arrays.
// Bytes that are no chunk give an error, at once or from the iterator, and never a panic.
type decoder struct {
	arrays      xor.Iterator
	hist        chunkenc.HistogramChunk
	floatHist   chunkenc.FloatHistogramChunk
	histIt      chunkenc.Iterator
	floatHistIt chunkenc.Iterator
	guarded     guard
}

func (d *decoder) open(p *store.Payload) (chunkenc.Iterator, error) {
	switch p.Encoding {
	case chunkenc.EncXOR:
		d.arrays.Open(p.Data)
		return &d.arrays, nil
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		return d.openHistogram(p)
	}
	return nil, fmt.Errorf("unknown chunk encoding %d", p.Encoding)
}

func (d *decoder) openHistogram(p *store.Payload) (it chunkenc.Iterator, err error) {
	defer func() {
		if e := recover(); e != nil {
			it, err = nil, fmt.Errorf("malformed histogram chunk: %v", e)
		}
	}()
	if len(p.Data) < 3 {
		return nil, fmt.Errorf("histogram chunk of %d bytes is too short", len(p.Data))
	}
	if samples(p) == 0 {
		return chunkenc.NewNopIterator(), nil
	}
	// Buckets are allocated before they are read, so more than the bytes can hold are refused: each
	// takes a bit at least.
	buckets, ok := bucketsOfHistogram(p.Data[3:])
	if !ok || buckets > uint64(len(p.Data))*8 {
		return nil, fmt.Errorf("malformed histogram chunk: %d buckets in %d bytes", buckets, len(p.Data))
	}
	if p.Encoding == chunkenc.EncHistogram {
		d.hist.Reset(p.Data)
		d.histIt = d.hist.Iterator(d.histIt)
		d.guarded = guard{Iterator: d.histIt}
	} else {
		d.floatHist.Reset(p.Data)
		d.floatHistIt = d.floatHist.Iterator(d.floatHistIt)
		d.guarded = guard{Iterator: d.floatHistIt}
	}
	return &d.guarded, nil
}

// guard turns panics of a histogram decoder over malformed bytes into errors. (The decoder of floats has
// none, as its fuzz target shows.)
type guard struct {
	chunkenc.Iterator
	err error
}

func (g *guard) caught(kind *chunkenc.ValueType) {
	if e := recover(); e != nil {
		g.err = fmt.Errorf("malformed histogram chunk: %v", e)
		if kind != nil {
			*kind = chunkenc.ValNone
		}
	}
}

func (g *guard) Next() (kind chunkenc.ValueType) {
	if g.err != nil {
		return chunkenc.ValNone
	}
	defer g.caught(&kind)
	return g.Iterator.Next()
}

//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (g *guard) Seek(t int64) (kind chunkenc.ValueType) {
	if g.err != nil {
		return chunkenc.ValNone
	}
	defer g.caught(&kind)
	return g.Iterator.Seek(t)
}

func (g *guard) AtHistogram(h *histogram.Histogram) (t int64, out *histogram.Histogram) {
	out = &histogram.Histogram{} //nolint:wastedassign // what is returned after a panic
	defer g.caught(nil)
	return g.Iterator.AtHistogram(h)
}

func (g *guard) AtFloatHistogram(h *histogram.FloatHistogram) (t int64, out *histogram.FloatHistogram) {
	out = &histogram.FloatHistogram{} //nolint:wastedassign // what is returned after a panic
	defer g.caught(nil)
	return g.Iterator.AtFloatHistogram(h)
}

func (g *guard) Err() error {
	if g.err != nil {
		return g.err
	}
	return g.Iterator.Err()
}
