package bucket

import (
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

// What is used while a request is read goes to the next one, unless it has room for more than so many series or chunks:
// that was an exception.
const scratchKept = 8 << 10

// scratch is the room in which a batch of series and its chunks are read. All of it is used again.
type scratch struct {
	taken    []uint32 // references of the batch
	pieces   []piece
	contents [][]byte // of index entries
	raws     [][]byte // index entries, nil if they were not read now
	bad      []error
	missing  []piece // not in the cache
	places   []int   // of missing among pieces
	entry    seriesEntry
	want     []wantedChunk
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// expect makes room for the entries of n series.
func (s *scratch) expect(n int) {
	s.pieces, s.contents, s.raws, s.bad = emptied(s.pieces, n), emptied(s.contents, n), emptied(s.raws, n), emptied(s.bad, n)
	s.missing, s.places = slices.Grow(s.missing[:0], n), slices.Grow(s.places[:0], n)
}

// emptied returns n zeroes, in the same memory if there is enough.
func emptied[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

func (s *scratch) free() {
	if cap(s.pieces) > scratchKept || cap(s.want) > scratchKept {
		return
	}
	clear(s.contents)
	clear(s.raws)
	clear(s.bad)
	clear(s.want[:cap(s.want)])
	scratches.Put(s)
}

// batchArrays holds the series of a batch.
type batchArrays struct {
	series    []batchSeries
	chunks    []store.Chunk // of all series
	chunkRefs []uint64
	lengths   []int64 // of the chunks, 0 if unknown
}

var batches = sync.Pool{New: func() any { return new(batchArrays) }}

// expect empties the arrays and makes room for as many series and chunks.
func (a *batchArrays) expect(series, chunks int) {
	clear(a.series)
	clear(a.chunks)
	a.series = slices.Grow(a.series[:0], series)
	a.chunks, a.chunkRefs, a.lengths = slices.Grow(a.chunks[:0], chunks), slices.Grow(a.chunkRefs[:0], chunks), slices.Grow(a.lengths[:0], chunks)
}

func (a *batchArrays) free() {
	if cap(a.series) > scratchKept || cap(a.chunks) > scratchKept {
		return
	}
	a.expect(0, 0)
	batches.Put(a)
}

// begin takes the room for reading, at the first window.
func (r *windowReader) begin() {
	if r.scratch != nil {
		return
	}
	r.scratch = scratches.Get().(*scratch)
	for i := range r.batches {
		r.batches[i].batchArrays = batches.Get().(*batchArrays)
	}
}

// end gives it back. What somebody keeps of a batch stays his.
func (r *windowReader) end() {
	r.entries.free()
	for i := range r.batches {
		b := &r.batches[i]
		b.mem.free()
		if b.batchArrays != nil && !b.given {
			b.free()
		}
		b.batchArrays = nil
	}
	if r.scratch != nil {
		r.free()
		r.scratch = nil
	}
	r.refs, r.last = refs{}, labels.EmptyLabels()
}
