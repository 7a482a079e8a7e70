package bucket

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

const (
	// Series are read in batches that start small, so that a short answer is quick, and double up to the configured
	// size, or until their entries take a window.
	seriesBatchFirst = 256
	// A window is what a request has in memory of the chunks of one block at a time, and again of its index entries. A
	// request over many blocks shares this much among them, so that its need does not grow with the time it covers.
	windowBytesAll = 64 << 20
	windowBytesMin = 256 << 10
	windowBytesMax = 4 << 20
)

// windowBytes returns the size of the windows of a request over so many blocks.
func windowBytes(blocks int) int64 {
	return min(max(windowBytesAll/int64(max(blocks, 1)), windowBytesMin), windowBytesMax)
}

// cursor walks over the series of one block, in the order of their stored labels.
//
// It reads ahead in two steps: the index entries of a batch of series, which tell the labels and where the chunks are;
// and the chunks of a window of that batch. Memory is taken from the budget for both and given back in Close.
type cursor struct {
	ctx     context.Context
	block   *loaded
	req     *store.SeriesRequest
	acc     *account
	metrics *metrics
	tenant  string
	shard   func(stored labels.Labels) bool // nil selects all

	batchMax    int
	windowBytes int64
	batch       int
	refs        []uint32 // of the matching series that are not read yet
	mem         *hold    // refs
	symbols     symbolTable
	entry       seriesEntry

	series    []batchSeries // of the batch
	chunks    []store.Chunk // of all series of the batch
	chunkRefs []uint64
	want      []wantedChunk
	at        int // the current one of series
	window    int // series before this one have their chunks
	batchMem  *hold
	entries   *arena
	data      *arena
	last      labels.Labels

	cur store.Series
	// Somebody keeps a series of this window, of this batch: its memory must not be used again.
	keptWindow, keptBatch bool

	err    error
	gaps   store.Warnings
	bad    badData
	closed bool

	seriesRefetched, chunksRefetched counter
}

// batchSeries is a series of a batch; its chunks are chunks[from:to].
type batchSeries struct {
	labels   labels.Labels
	from, to int
}

// badData is what turned out to be damaged, one by one.
type badData struct {
	count      int
	first      error
	mint, maxt int64
}

func (d *badData) add(err error, mint, maxt int64) {
	if d.count == 0 {
		d.first, d.mint, d.maxt = err, mint, maxt
	}
	d.count++
	d.mint, d.maxt = min(d.mint, mint), max(d.maxt, maxt)
}

// open finds the series of the block that match; ms are the matchers on stored labels. It also reads the first batch,
// so that several blocks can be opened in parallel.
func (c *cursor) open(ms []*labels.Matcher) {
	c.at = -1
	c.batch = min(seriesBatchFirst, c.batchMax)
	if n := c.req.Limit; n > 0 && c.shard == nil {
		c.batch = min(c.batch, n)
	}
	c.symbols.header = c.block.header
	var err error
	if c.refs, err = c.block.expand(c.ctx, ms, c.mem, c.acc); err != nil {
		c.fail(fmt.Errorf("expanded matching posting: %w", err))
		return
	}
	if len(c.refs) == 0 {
		c.metrics.emptyPostings.WithLabelValues(c.tenant).Inc()
		return
	}
	c.fill()
}

// Next implements store.Cursor.
func (c *cursor) Next() bool {
	if c.err != nil || c.closed {
		return false
	}
	for {
		if c.ctx.Err() != nil {
			c.err = context.Cause(c.ctx)
			return false
		}
		c.at++
		if c.at >= c.window && !c.fill() {
			return false
		}
		s := c.series[c.at]
		if s.from == s.to && !c.req.SkipChunks {
			continue // all of its chunks are damaged
		}
		c.cur = store.Series{Labels: s.labels, Chunks: c.chunks[s.from:s.to:s.to]}
		return true
	}
}

// fill reads the window that starts where the last one ended, in the next batch if need be. It reports false at the end
// and at an error.
func (c *cursor) fill() bool {
	for c.window >= len(c.series) {
		if len(c.refs) == 0 || c.err != nil {
			return false
		}
		if err := c.readSeries(); err != nil {
			c.fail(fmt.Errorf("preload series: %w", err))
			return false
		}
	}
	if c.req.SkipChunks {
		c.window = len(c.series)
		return true
	}
	if err := c.readChunks(); err != nil {
		c.fail(fmt.Errorf("load chunks: %w", err))
		return false
	}
	return true
}

// readSeries reads the next batch of index entries. Series without a chunk in the time range are left out.
func (c *cursor) readSeries() error {
	n := min(c.batch, len(c.refs))
	refs := c.refs[:n]
	c.refs = c.refs[n:]
	if c.keptBatch {
		c.chunks, c.keptBatch = nil, false
	}
	c.batchMem.free()
	c.entries.reset()
	c.series, c.chunks, c.chunkRefs = c.series[:0], c.chunks[:0], c.chunkRefs[:0]
	c.window, c.at = 0, min(c.at, 0)

	// A piece, the slice of its entry, an error.
	if err := c.batchMem.reserve(int64(n) * (16 + 24 + 16)); err != nil {
		return err
	}
	pieces := make([]piece, n)
	for i, ref := range refs {
		pieces[i] = piece{off: int64(ref) * c.block.refStep, length: c.block.seriesBytesMax}
	}
	contents, bad := make([][]byte, n), make([]error, n)
	err := c.block.object(seriesData, c.acc).read(c.ctx, pieces, func(i int, r *runReader) error {
		content, again, err := r.entry(4, c.entries.alloc)
		if again {
			c.seriesRefetched.inc()
		}
		if errors.Is(err, errCorrupt) {
			bad[i], err = err, nil
		}
		contents[i] = content
		return err
	})
	if err != nil {
		return err
	}
	var bytes int64
	for i, b := range contents {
		bytes += int64(len(b))
		if bad[i] == nil {
			bad[i] = c.addSeries(b)
		}
		if err := bad[i]; err != nil {
			if !errors.Is(err, errCorrupt) {
				return err
			}
			c.bad.add(err, c.block.meta.MinTime, c.block.meta.MaxTime)
			if c.req.PartialResponse == store.Abort {
				return err
			}
		}
	}
	c.acc.touch(seriesData, n, n, bytes)
	c.batch = max(1, min(2*n, c.batchMax, int(c.windowBytes/max(bytes/int64(n), 1))))
	return nil
}

// addSeries decodes an index entry and adds the series to the batch if it is wanted.
func (c *cursor) addSeries(content []byte) error {
	if err := c.entry.decode(content); err != nil {
		return err
	}
	from := len(c.chunks)
	found := false
	for _, ch := range c.entry.chunks {
		if !store.Overlaps(ch.mint, ch.maxt, c.req.MinTime, c.req.MaxTime) {
			continue
		}
		found = true
		if c.req.SkipChunks {
			break
		}
		c.chunks = append(c.chunks, store.Chunk{MinTime: ch.mint, MaxTime: ch.maxt})
		c.chunkRefs = append(c.chunkRefs, ch.ref)
	}
	if !found {
		return nil
	}
	undo := func() { c.chunks, c.chunkRefs = c.chunks[:from], c.chunkRefs[:from] }
	ls, err := c.symbols.labels(c.entry.symbols)
	if err != nil {
		undo()
		return err
	}
	if c.shard != nil && !c.shard(ls) {
		undo()
		return nil
	}
	if labels.Compare(c.last, ls) >= 0 && !c.last.IsEmpty() {
		undo()
		return corruptf("series %s comes after %s", ls, c.last)
	}
	c.last = ls
	n := len(c.chunks) - from
	if err := c.acc.addChunks(n); err != nil {
		return err
	}
	// The labels, the series itself, and for each chunk the chunk, its reference and what is noted while it is read.
	if err := c.batchMem.reserve(int64(ls.ByteSize()) + 48 + int64(n)*(80+8+40)); err != nil {
		return err
	}
	c.series = append(c.series, batchSeries{labels: ls, from: from, to: len(c.chunks)})
	return nil
}

// readChunks reads the chunks of the next window of the batch.
func (c *cursor) readChunks() error {
	if c.keptWindow {
		c.data.free()
		c.keptWindow = false
	}
	c.data.reset()
	start, from := c.window, c.series[c.window].from
	end := start
	for size := int64(0); end < len(c.series); end++ {
		for i := c.series[end].from; i < c.series[end].to; i++ {
			size += c.chunkBytes(i)
		}
		if size > c.windowBytes && end > start {
			break
		}
	}
	to := c.series[end-1].to
	c.want = c.want[:0]
	for i := from; i < to; i++ {
		c.want = append(c.want, wantedChunk{ref: c.chunkRefs[i], to: &c.chunks[i]})
	}
	if err := c.block.readChunks(c.ctx, c.want, c.req.Aggregates, c.data, c.acc, c.chunksRefetched.inc); err != nil {
		return err
	}
	damaged := false
	for i := range c.want {
		w := &c.want[i]
		c.metrics.sentChunkSize.WithLabelValues(c.tenant).Observe(float64(w.size))
		if w.bad != nil {
			c.bad.add(w.bad, w.to.MinTime, w.to.MaxTime)
			damaged = true
		}
	}
	if damaged {
		if c.req.PartialResponse == store.Abort {
			return c.bad.first
		}
		for i := start; i < end; i++ {
			c.dropDamaged(&c.series[i])
		}
	}
	c.window = end
	return nil
}

// chunkBytes returns what a chunk takes at most, as far as the place of the next one tells.
func (c *cursor) chunkBytes(i int) int64 {
	n := c.block.chunkBytesMax
	if i+1 < len(c.chunkRefs) {
		if next, ref := c.chunkRefs[i+1], c.chunkRefs[i]; next > ref && next>>32 == ref>>32 {
			n = min(n, int64(next-ref))
		}
	}
	return n
}

// dropDamaged takes the chunks without data out of a series.
func (c *cursor) dropDamaged(s *batchSeries) {
	kept := s.from
	for i := s.from; i < s.to; i++ {
		if ch := &c.chunks[i]; ch.Raw.Present() || ch.Aggrs != nil {
			c.chunks[kept] = *ch
			kept++
		}
	}
	s.to = kept
}

// fail ends the cursor. Where the request allows it, what is missing becomes a gap.
func (c *cursor) fail(err error) {
	switch {
	case c.ctx.Err() != nil:
		c.err = context.Cause(c.ctx)
	case store.KindOf(err) == store.KindLimit || errors.Is(err, errNoAggregate):
		c.err = fmt.Errorf("block %s: %w", c.block.meta.ULID, err)
	case c.req.PartialResponse == store.Abort:
		c.err = store.Errorf(store.KindAborted, "block %s: %w", c.block.meta.ULID, err)
	default:
		c.gaps = append(c.gaps, c.gap(err, c.block.meta.MinTime, c.block.meta.MaxTime))
		c.refs, c.series, c.window = nil, nil, 0
	}
}

func (c *cursor) gap(err error, mint, maxt int64) error {
	return &store.Gap{Store: "block " + c.block.meta.ULID.String(), LabelSets: []labels.Labels{c.block.labels}, MinTime: mint, MaxTime: maxt, Err: err}
}

// At implements store.Cursor.
func (c *cursor) At() *store.Series { return &c.cur }

// Keep implements store.Keeper. The series brings its whole window along: from the next window on that is the keeper's
// to account for, and the cursor takes new memory.
func (c *cursor) Keep() *store.Series {
	c.keptWindow, c.keptBatch = true, true
	s := c.cur
	return &s
}

// Err implements store.Cursor.
func (c *cursor) Err() error { return c.err }

// Warnings implements store.Cursor.
func (c *cursor) Warnings() store.Warnings {
	if c.bad.count == 0 {
		return c.gaps
	}
	err := c.bad.first
	if c.bad.count > 1 {
		err = fmt.Errorf("%d pieces of data passed over, the first: %w", c.bad.count, err)
	}
	return append(c.gaps[:len(c.gaps):len(c.gaps)], c.gap(err, max(c.bad.mint, math.MinInt64), c.bad.maxt))
}

// Close implements store.Cursor.
func (c *cursor) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	c.mem.free()
	c.batchMem.free()
	c.entries.free()
	c.data.free()
	c.series, c.chunks, c.chunkRefs, c.want, c.refs = nil, nil, nil, nil, nil
	c.metrics.seriesRefetches.WithLabelValues(c.tenant).Add(float64(c.seriesRefetched.n.Load()))
	c.metrics.chunkRefetches.WithLabelValues(c.tenant).Add(float64(c.chunksRefetched.n.Load()))
	c.block.release()
	return nil
}
