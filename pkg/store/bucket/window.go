package bucket

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

const (
	// Series are read in batches that start small, so that a short answer is quick, and double up to the configured
	// size, or until their entries take a window.
	seriesBatchFirst = 256
	// A window is what a request has in memory of the chunks of one block at a time, twice, for the next one is read
	// while one is handed out; and again of its index entries. A request over many blocks shares this much among them,
	// so that its need does not grow with the time it covers.
	windowBytesAll = 4 << 20
	windowBytesMin = 64 << 10
	windowBytesMax = 2 << 20
	// No chunk is thought to be longer, whatever the distance to the next one.
	chunkDistanceMax = 1 << 20
)

// Of the memory of all requests, the windows of one take no more than one in so many bytes.
const windowPart = 32

// A series of a batch takes so much with its labels and what is noted of its chunks.
const batchSeriesBytes = 400

// A chunk of a series takes so much beside its data: the chunk, its reference, its length, and what is noted while it is
// read.
const chunkNoteBytes = 80 + 8 + 8 + 48

// windowBytes returns the size of the windows of a request over so many blocks, where all requests have memoryMax bytes;
// 0 is no bound.
func windowBytes(blocks int, memoryMax int64) int64 {
	all := int64(windowBytesAll)
	if memoryMax > 0 {
		all = min(all, memoryMax/windowPart)
	}
	return min(max(all/int64(max(blocks, 1)), windowBytesMin), windowBytesMax)
}

// window is some series of a batch whose chunks have been read.
type window struct {
	batch  *batch
	series []batchSeries
	data   *arena
	bad    badData
	err    error
	part   damagedPart // that err is about
	last   bool        // there is nothing behind it
}

// batch is some series whose index entries have been read. Two of them take turns.
type batch struct {
	*batchArrays
	mem   *hold
	at    int  // series before this one have been handed out in windows
	given bool // somebody keeps series of it: chunks must not be used again
}

// batchSeries is a series of a batch; its chunks are chunks[from:to].
type batchSeries struct {
	labels   labels.Labels
	from, to int
}

// windowReader reads the matching series of a block in the order of their stored labels, window by window: first the
// index entries of a batch of series, which tell the labels and where the chunks are; then the chunks of a window of
// that batch. It belongs to one goroutine at a time.
type windowReader struct {
	block  *loaded
	req    *store.SeriesRequest
	acc    *account
	shard  func(stored labels.Labels) bool // nil selects all
	filter []*labels.Matcher               // whose posting lists were left unread

	batchMax    int
	windowBytes int64
	batchSize   int
	refs        refs // of the matching series that are not read yet
	symbols     symbolTable
	last        labels.Labels
	entries     *arena
	*scratch

	batches [2]batch
	cur     int // the batch that windows are cut from

	seriesRefetched, chunksRefetched counter
}

// read fills w with the next window. Whoever has the window before may use it meanwhile, but none before that.
func (r *windowReader) read(ctx context.Context, w *window) {
	*w = window{data: w.data}
	r.begin()
	for b := &r.batches[r.cur]; b.at >= len(b.series); {
		if r.refs.n == 0 {
			w.last = true
			return
		}
		// The current batch may still be in use; the other one is not.
		next := &r.batches[1-r.cur]
		if err := r.readSeries(ctx, next, &w.bad); err != nil {
			w.err, w.part = fmt.Errorf("preload series: %w", err), damagedSeries
			return
		}
		if len(next.series) > 0 {
			r.cur, b = 1-r.cur, next
		}
	}
	b := &r.batches[r.cur]
	w.batch = b
	if r.req.SkipChunks {
		w.series, b.at = b.series[b.at:], len(b.series)
		return
	}
	if err := r.readChunks(ctx, w); err != nil {
		w.err, w.part = fmt.Errorf("load chunks: %w", err), damagedChunks
	}
}

// readSeries reads the next batch of index entries. Series without a chunk in the time range are left out.
func (r *windowReader) readSeries(ctx context.Context, to *batch, damaged *badData) error {
	r.taken = r.refs.take(r.taken[:0], r.batchSize)
	refs := r.taken
	n := len(refs)
	r.expect(n)
	to.mem.free()
	if to.given {
		to.batchArrays, to.given = new(batchArrays), false
	}
	to.at = 0
	to.expect(n, int(min(int64(n)*r.block.chunksInRange(r.req), r.windowBytes/chunkNoteBytes)))

	// A piece, twice, with its place; what it needs, the slices of its entry, an error; a page.
	if err := to.mem.reserve(int64(n) * (16 + 16 + 8 + 8 + 24 + 24 + 16 + 72)); err != nil {
		return err
	}
	step := r.block.refStep() // entries begin at its multiples
	guess := (r.block.seriesLengths.guess() + step - 1) / step * step
	pieces, contents, raws, bad := r.pieces, r.contents, r.raws, r.bad
	for i, ref := range refs {
		pieces[i] = piece{off: int64(ref) * step, length: guess}
		if i+1 < n {
			pieces[i].length = min(guess, int64(refs[i+1]-ref)*step)
		} else if next, ok := r.refs.peek(); ok {
			pieces[i].length = min(guess, int64(next-ref)*step)
		}
	}
	pages, err := r.block.cachedEntries(ctx, pieces, contents, to.mem, r.acc)
	if err != nil {
		return context.Cause(ctx)
	}
	missing, places := r.missing[:0], r.places[:0]
	for i, p := range pieces {
		if contents[i] == nil {
			missing = append(missing, p)
			places = append(places, i)
		}
	}
	r.missing, r.places = missing, places
	o := r.block.object(seriesData, r.acc)
	each := func(j int, b []byte) (int64, error) {
		i, next := places[j], int64(0)
		if i+1 < n {
			next = pieces[i+1].off
		}
		content, need, err := o.entry(b, pieces[i].off, next, 4)
		if need > 0 {
			r.seriesRefetched.inc()
			return need, nil
		}
		if errors.Is(err, errCorrupt) {
			bad[i], err = err, nil
		} else if err == nil {
			_, k := binary.Uvarint(b)
			raws[i] = b[:k+len(content)+4]
		}
		contents[i] = content
		return 0, err
	}
	if len(missing) > 0 {
		if err := o.read(ctx, missing, r.entries, each); err != nil {
			return err
		}
	}
	r.block.keepEntries(pages, pieces, raws, r.acc)
	var bytes int64
	for i, b := range contents {
		bytes += int64(len(b))
		if bad[i] == nil {
			bad[i] = r.addSeries(to, b)
		}
		if err := bad[i]; err != nil {
			if !errors.Is(err, errCorrupt) {
				return err
			}
			damaged.add(damagedSeries, err, r.block.meta.MinTime, r.block.meta.MaxTime)
			if r.req.PartialResponse == store.Abort {
				return err
			}
		}
	}
	// An entry's length takes a byte or two, its checksum four; then comes the next multiple of the step.
	r.block.seriesLengths.learn(n, func(i int) int64 { return int64(len(contents[i])) + 2 + 4 })
	r.acc.touch(seriesData, n, len(missing), bytes)
	r.entries.free() // until the next batch
	held := max(bytes, to.mem.reserved) / int64(n)
	r.batchSize = max(1, min(2*n, r.batchMax, int(r.windowBytes/max(held, 1))))
	return nil
}

// addSeries decodes an index entry and adds the series to the batch if it is wanted.
func (r *windowReader) addSeries(to *batch, content []byte) error {
	if err := r.entry.decode(content); err != nil {
		return err
	}
	from := len(to.chunks)
	found := false
	own := int64(0) // the longest chunk of the series whose length is known
	all := r.entry.chunks
	for i, ch := range all {
		length := int64(0)
		if i+1 < len(all) && all[i+1].ref > ch.ref && all[i+1].ref>>32 == ch.ref>>32 {
			length = min(int64(all[i+1].ref-ch.ref), chunkDistanceMax)
			own = max(own, length)
		}
		if !store.Overlaps(ch.mint, ch.maxt, r.req.MinTime, r.req.MaxTime) {
			continue
		}
		found = true
		if r.req.SkipChunks {
			break
		}
		to.chunks = append(to.chunks, store.Chunk{MinTime: ch.mint, MaxTime: ch.maxt})
		to.chunkRefs = append(to.chunkRefs, ch.ref)
		to.lengths = append(to.lengths, length)
	}
	if !found {
		return nil
	}
	undo := func() { to.chunks, to.chunkRefs, to.lengths = to.chunks[:from], to.chunkRefs[:from], to.lengths[:from] }
	ls, err := r.symbols.labels(r.entry.symbols)
	if err != nil {
		undo()
		return err
	}
	if !matches(r.filter, ls) {
		r.block.metrics.lazyOverfetched.Add(float64(len(content)))
		undo()
		return nil
	}
	if r.shard != nil && !r.shard(ls) {
		undo()
		return nil
	}
	if labels.Compare(r.last, ls) >= 0 && !r.last.IsEmpty() {
		undo()
		return corruptf("series %s comes after %s", ls, r.last)
	}
	r.last = ls
	for i := from; i < len(to.lengths); i++ {
		if to.lengths[i] == 0 {
			to.lengths[i] = own // the last one of the block is cut short, if anything
		}
	}
	n := len(to.chunks) - from
	if err := r.acc.addChunks(n); err != nil {
		return err
	}
	if err := to.mem.reserve(int64(ls.ByteSize()) + 48 + int64(n)*chunkNoteBytes); err != nil {
		return err
	}
	to.series = append(to.series, batchSeries{labels: ls, from: from, to: len(to.chunks)})
	return nil
}

func matches(ms []*labels.Matcher, ls labels.Labels) bool {
	for _, m := range ms {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

// readChunks reads the chunks of the next window of the current batch.
func (r *windowReader) readChunks(ctx context.Context, w *window) error {
	w.data.reset()
	b := w.batch
	start, from := b.at, b.series[b.at].from
	end, guess := start, r.block.chunkLengths.guess()
	for size := int64(0); end < len(b.series); end++ {
		for i := b.series[end].from; i < b.series[end].to; i++ {
			if b.lengths[i] > 0 {
				size += b.lengths[i]
			} else {
				size += guess
			}
		}
		if size > r.windowBytes && end > start {
			break
		}
	}
	b.at, w.series = end, b.series[start:end]
	r.want = r.want[:0]
	for i := from; i < b.series[end-1].to; i++ {
		r.want = append(r.want, wantedChunk{ref: b.chunkRefs[i], length: b.lengths[i], to: &b.chunks[i]})
	}
	if err := r.block.readChunks(ctx, r.want, r.req.Aggregates, w.data, r.acc, r.chunksRefetched.inc); err != nil {
		return err
	}
	for i := range r.want {
		c := &r.want[i]
		r.acc.chunkSize(c.size)
		if c.bad != nil {
			w.bad.add(damagedChunks, c.bad, c.to.MinTime, c.to.MaxTime)
		}
	}
	if w.bad.count > 0 {
		if r.req.PartialResponse == store.Abort {
			return w.bad.first
		}
		for i := range w.series {
			b.dropDamaged(&w.series[i])
		}
	}
	return nil
}

// dropDamaged takes the chunks without data out of a series.
func (b *batch) dropDamaged(s *batchSeries) {
	kept := s.from
	for i := s.from; i < s.to; i++ {
		if ch := &b.chunks[i]; ch.Raw.Present() || ch.Aggrs != nil {
			b.chunks[kept] = *ch
			kept++
		}
	}
	s.to = kept
}
