package query

import (
	"math"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/prometheus/prometheus/model/labels"

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

	arena  []byte // the bytes of all chunks
	chunks []store.Chunk
	aggrs  []store.Aggregates
	series []series

	columns []column.Column
	keys    []byte
	keyEnds []int

	it     chunkenc.Iterator
	times  []int64
	values []float64

	longest  int // the most samples decoded of a series
	reserved int64
}

func newBatch(s *scan) *batch {
	return &batch{
		scan:      s,
		evaluator: column.NewEvaluator(s.function, s.steps, s.span),
		seriesMax: min(max(batchPointsMax/max(s.steps.N, 1), 1), batchSeriesMax),
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
	n := 0
	c.Payloads(func(_ store.Aggr, p *store.Payload) { n = max(n, samples(p)) })
	return int64(n)
}

func (b *batch) copyChunk(c *store.Chunk) store.Chunk {
	out := *c
	out.Raw.Data = b.copyBytes(c.Raw.Data)
	if c.Aggrs != nil {
		b.aggrs = append(b.aggrs, *c.Aggrs)
		out.Aggrs = &b.aggrs[len(b.aggrs)-1]
		out.Payloads(func(_ store.Aggr, p *store.Payload) { p.Data = b.copyBytes(p.Data) })
	}
	return out
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
	b.keys, b.keyEnds = b.keys[:0], b.keyEnds[:0]
	for i := range b.series {
		se := &b.series[i]
		b.scan.q.fetched.add(se)
		if err := b.decode(se); err != nil {
			return err
		}
		b.longest = max(b.longest, len(b.times))
		b.evaluator.Eval(b.times, b.values, &b.columns[i])
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
func (b *batch) decode(se *series) error {
	b.times, b.values = b.times[:0], b.values[:0]
	markers := b.scan.function.Name == ""
	b.it = se.Iterator(b.it)
	last := int64(math.MinInt64)
	for kind := b.it.Next(); kind != chunkenc.ValNone; kind = b.it.Next() {
		if kind != chunkenc.ValFloat {
			return errNotStreamed
		}
		t, v := b.it.At()
		if t <= last || !markers && value.IsStaleNaN(v) {
			continue
		}
		last = t
		b.times, b.values = append(b.times, t), append(b.values, v)
	}
	return b.it.Err()
}
