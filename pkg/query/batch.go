package query

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/pkg/column"
	"github.com/koios-metrics/koios/pkg/store"
)

const (
	// batchSeriesMax and batchBytesMax bound the series and the bytes of chunks in one batch, except that
	// one series always fits: enough that taking turns costs nothing, little enough to stay in the
	// processor's cache.
	batchSeriesMax = 64
	batchBytesMax  = 256 << 10
	// batchPointsMax bounds the points of a batch's columns: 512 KiB of values.
	batchPointsMax = 64 << 10
)

// batch is some series that a worker has taken from the cursor, and room for working on them. Everything in it
// is reused for the next batch.
type batch struct {
	scan      *scan
	evaluator *column.Evaluator
	seriesMax int
	presence  int64 // see scan.presence
	histogram *histogram.FloatHistogram

	arena  []byte // the bytes of all chunks
	chunks []store.Chunk
	aggrs  []store.Aggregates
	series []series

	columns []column.Column
	some    []bool // of each series, whether the function has any values
	keys    []byte
	keyEnds []int

	it      iterator
	merged  merged
	buffer  xor.Samples // what samples lie in
	samples xor.Samples // of the current series

	longest  int // the most samples decoded of a series
	reserved int64
}

func newBatch(s *scan) *batch {
	return &batch{
		scan:      s,
		evaluator: column.NewEvaluator(s.function, s.steps, s.span),
		seriesMax: min(max(batchPointsMax/max(s.steps.N, 1), 1), batchSeriesMax),
		presence:  s.presence(),
	}
}

// ensure charges what the batch holds to the budget.
func (b *batch) ensure(n int64) error {
	if n <= b.reserved {
		return nil
	}
	if err := b.scan.q.reserve(n - b.reserved); err != nil {
		return err
	}
	b.reserved = n
	return nil
}

func (b *batch) release() { b.scan.q.release(b.reserved) }

// fill takes series from the cursor, which the caller has locked, and copies them, since they are lent.
func (b *batch) fill() error {
	s := b.scan
	b.arena, b.series, b.chunks, b.aggrs = b.arena[:0], b.series[:0], b.chunks[:0], b.aggrs[:0]
	var size, samplesMax int64
	for {
		if !s.pending && !s.cursor.Next() {
			s.ended = true
			return s.cursor.Err()
		}
		s.pending = true
		in := s.cursor.At()
		last := len(b.series) - 1
		same := last >= 0 && labels.Equal(b.series[last].labels, in.Labels)
		if !same && (len(b.series) >= b.seriesMax || len(b.arena) >= batchBytesMax) {
			return nil
		}
		size += in.Size()
		decoded := int64(0)
		for i := range in.Chunks {
			decoded += chunkSamples(&in.Chunks[i])
		}
		samplesMax = max(samplesMax, decoded)
		if err := b.ensure(size + 2*16*samplesMax + int64(len(b.series)+1)*column.Bytes(s.steps.N)); err != nil {
			return err
		}
		first := len(b.chunks)
		for i := range in.Chunks {
			b.chunks = append(b.chunks, b.copyChunk(&in.Chunks[i]))
		}
		s.pending = false
		added := b.chunks[first:len(b.chunks):len(b.chunks)]
		if same {
			last := &b.series[last]
			last.chunks = store.SortChunks(append(last.chunks[:len(last.chunks):len(last.chunks)], added...))
			continue
		}
		b.series = append(b.series, series{labels: in.Labels, chunks: added, reading: &s.reading})
	}
}

// chunkSamples is the number of samples that a chunk says it has.
func chunkSamples(c *store.Chunk) int64 {
	n := samples(&c.Raw)
	if a := c.Aggrs; a != nil {
		n = max(n, samples(&a.Count), samples(&a.Sum), samples(&a.Min), samples(&a.Max), samples(&a.Counter))
	}
	return int64(n)
}

func (b *batch) copyChunk(c *store.Chunk) store.Chunk {
	out := *c
	out.Raw.Data = b.copyBytes(c.Raw.Data)
	if c.Aggrs != nil {
		out.Aggrs = b.copyAggregates(*c.Aggrs)
	}
	return out
}

func (b *batch) copyAggregates(a store.Aggregates) *store.Aggregates {
	for _, p := range []*store.Payload{&a.Count, &a.Sum, &a.Min, &a.Max, &a.Counter} {
		p.Data = b.copyBytes(p.Data)
	}
	b.aggrs = append(b.aggrs, a)
	return &b.aggrs[len(b.aggrs)-1]
}

func (b *batch) copyBytes(data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	// Where the arena grows, the slices handed out before keep the old one.
	start := len(b.arena)
	b.arena = append(b.arena, data...)
	return b.arena[start:len(b.arena):len(b.arena)]
}

// evaluate decodes the series and makes their columns and group keys.
func (b *batch) evaluate() error {
	for len(b.columns) < len(b.series) {
		b.columns = append(b.columns, column.Column{})
	}
	b.keys, b.keyEnds, b.some = b.keys[:0], b.keyEnds[:0], b.some[:0]
	for i := range b.series {
		se := &b.series[i]
		b.scan.q.fetched.add(se)
		if err := b.decode(se); err != nil {
			return err
		}
		b.longest = max(b.longest, b.samples.Len())
		b.evaluator.Eval(b.samples.Times, b.samples.Values, &b.columns[i])
		b.some = append(b.some, b.columns[i].Count() > 0)
		applyAll(b.scan.then, &b.columns[i])
		start := len(b.keys)
		key := b.scan.by.key(b.keys[start:], b.scan.outputLabels(se.labels))
		b.keys = append(b.keys[:start], key...)
		b.keyEnds = append(b.keyEnds, len(b.keys))
	}
	return nil
}

// key is the group key of the i-th series.
func (b *batch) key(i int) []byte {
	start := 0
	if i > 0 {
		start = b.keyEnds[i-1]
	}
	return b.keys[start:b.keyEnds[i]]
}

// decode reads the samples of a series into the arrays. Staleness markers are left out for range functions.
func (b *batch) decode(se *series) (err error) {
	if se.reading.areFloats(se.chunks) {
		err = b.decodeFloats(se)
	} else {
		err = b.decodeAny(se)
	}
	if err == nil && b.scan.function.Name != "" {
		dropMarkers(&b.samples)
	}
	return err
}

// decodeFloats reads a series of floats.
func (b *batch) decodeFloats(se *series) (err error) {
	r := se.reading
	b.merged.reset(se)
	if b.presence > 0 {
		w, err := b.merged.sources[0].Around(r.mint, r.maxt, false, 0)
		if err == nil && len(w.Marks) == 0 {
			b.samples = xor.Samples{Times: w.Times, Values: w.Values}.Between(r.mint, r.maxt)
			if steady(b.samples.Times, r.mint, r.maxt, b.presence) {
				return nil
			}
		}
	}
	b.samples.Times, b.samples.Values, err = b.merged.Between(r.mint, r.maxt)
	if err != nil {
		return se.unreadable(err)
	}
	return nil
}

// decodeAny reads any series.
func (b *batch) decodeAny(se *series) error {
	b.it.reset(se)
	last := int64(math.MinInt64)
	b.buffer.Reset()
	s := &b.buffer
	for kind := b.it.Next(); kind != chunkenc.ValNone; kind = b.it.Next() {
		var (
			t int64
			v float64
		)
		switch {
		case kind == chunkenc.ValFloat:
			t, v = b.it.At()
		case b.presence > 0: // That it is there is all that counts, unless it marks the end of a series.
			t, b.histogram = b.it.AtFloatHistogram(b.histogram)
			v = b.histogram.Sum
		default:
			return errHistograms
		}
		if t <= last {
			continue
		}
		last = t
		s.Times, s.Values = append(s.Times, t), append(s.Values, v)
	}
	b.samples = *s
	return b.it.Err()
}

// dropMarkers removes staleness markers.
func dropMarkers(s *xor.Samples) {
	first := slices.IndexFunc(s.Values, value.IsStaleNaN)
	if first < 0 {
		return
	}
	n := first
	for i := first + 1; i < s.Len(); i++ {
		if !value.IsStaleNaN(s.Values[i]) {
			s.Times[n], s.Values[n] = s.Times[i], s.Values[i]
			n++
		}
	}
	s.Times, s.Values = s.Times[:n], s.Values[:n]
}
