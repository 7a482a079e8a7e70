package bucket

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

// cursor walks over the series of one block, in the order of their stored labels. While one window is handed out, a
// goroutine reads the next. Memory is taken from the budget for both and given back in Close.
type cursor struct {
	ctx     context.Context
	cancel  context.CancelFunc
	block   *loaded
	req     *store.SeriesRequest
	metrics *metrics
	tenant  string
	share   *share
	mem     *hold // what is held of posting lists
	reader  windowReader

	asked    question // nothing, unless answers to questions are kept
	recalled bool     // its answer was
	looking  lookup   // between prepare and find
	planned  *hold    // what it takes

	windows [2]window
	now     int           // the window that is handed out
	reading chan struct{} // closed when the other one has been read; nil: nobody reads it
	begun   bool          // the other one has been read once
	at      int           // the current one of its series

	cur store.Series
	// Somebody keeps a series of this window, so of this batch: their memory must not be used again.
	kept bool

	err    error
	gaps   store.Warnings
	bad    badData
	ended  bool
	closed bool
}

// newCursor makes a cursor that has not been opened: see begin.
func (s *Store) newCursor(ctx context.Context, req *store.SeriesRequest, b *loaded, acc *account, tenant string, blocks int, mem *share) *cursor {
	c := s.newHeaderCursor(ctx, req, b, tenant)
	c.share, c.mem, c.planned = mem, &hold{budget: &mem.finding}, &hold{budget: &mem.finding}
	c.ctx, c.cancel = context.WithCancel(ctx)
	r := &c.reader
	r.block, r.req, r.acc = b, req, acc
	r.windowBytes = windowBytes(blocks, s.cfg.MemoryBytesMax)
	r.batchMax = min(s.cfg.SeriesBatchSize, max(1, int(r.windowBytes/batchSeriesBytes)))
	r.symbols.header = b.header.Symbols()
	r.entries = &arena{budget: &mem.windows}
	for i := range c.windows {
		c.windows[i].data = &arena{budget: &mem.windows}
		r.batches[i].mem = &hold{budget: &mem.windows}
	}
	return c
}

// newHeaderCursor makes one that is only good for looking into the index header.
func (s *Store) newHeaderCursor(ctx context.Context, req *store.SeriesRequest, b *loaded, tenant string) *cursor {
	return &cursor{ctx: ctx, block: b, req: req, metrics: s.metrics, tenant: tenant, at: -1}
}

// badData is what turned out to be damaged, one by one.
type badData struct {
	count      int
	first      error
	part       damagedPart // that the first is of
	mint, maxt int64
}

func (d *badData) add(part damagedPart, err error, mint, maxt int64) {
	if d.count == 0 {
		d.first, d.part, d.mint, d.maxt = err, part, mint, maxt
	}
	d.count++
	d.mint, d.maxt = min(d.mint, mint), max(d.maxt, maxt)
}

// join adds what another one has noted.
func (d *badData) join(o badData) {
	if o.count == 0 {
		return
	}
	d.add(o.part, o.first, o.mint, o.maxt)
	d.count += o.count - 1
}

// openHeader opens the index header of the block; false if it can't be read, or the block is left alone for now.
func (c *cursor) openHeader() bool {
	err := c.block.leftAlone()
	if err != nil {
		c.missing(err)
		return false
	}
	if err = c.block.header.Open(c.ctx); err != nil {
		c.fail(damagedHeader, fmt.Errorf("open index header: %w", err))
		return false
	}
	c.block.healed()
	return true
}

// recall looks for the series in the index cache.
func (c *cursor) recall(ms []*labels.Matcher) {
	if !c.block.cache.keeps(expandedItem) {
		return
	}
	c.asked = c.block.question(ms)
	var err error
	if c.reader.refs, c.recalled, err = c.block.cachedExpanded(c.ctx, c.asked, c.mem, c.reader.acc); err != nil {
		c.fail(damagedPostings, fmt.Errorf("expanded matching posting: %w", err))
	}
}

// prepare looks into the index header for what it takes to find the series that match; ms are the matchers on stored
// labels. See plan for enough.
func (c *cursor) prepare(ms []*labels.Matcher, enough int64) {
	if c.recalled {
		return
	}
	var err error
	if c.looking, err = c.block.lookup(c.ctx, ms, enough, c.planned, c.share); err != nil {
		c.fail(damagedHeader, fmt.Errorf("expanded matching posting: %w", err))
	}
}

// find finds the series of the block that match.
func (c *cursor) find() {
	defer c.planned.free()
	if c.ended || c.err != nil {
		return
	}
	r := &c.reader
	var err error
	if !c.recalled {
		r.filter = c.looking.unread
		if r.refs, err = c.block.expand(c.ctx, c.looking, c.mem, r.acc); err != nil {
			c.fail(damagedPostings, fmt.Errorf("expanded matching posting: %w", err))
			return
		}
		// A single list is kept as it is.
		if c.asked.text != "" && len(r.filter) == 0 && c.looking.lists() > 1 {
			c.block.keepExpanded(c.asked, r.refs, r.acc)
		}
	}
	c.looking = lookup{}
	if r.refs.n == 0 {
		c.ended = true
		c.metrics.emptyPostings.WithLabelValues(c.tenant).Inc()
	}
}

// first reads the first window.
func (c *cursor) first() {
	if c.ended || c.err != nil {
		return
	}
	r := &c.reader
	r.batchSize = min(seriesBatchFirst, r.batchMax, max(1, int(r.windowBytes/c.block.batchBytes(c.req))))
	if n := c.req.Limit; n > 0 && r.shard == nil {
		r.batchSize = min(r.batchSize, n)
	}
	r.symbols.expect(r.refs.n)
	r.read(c.ctx, &c.windows[c.now])
	c.take()
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
		w := &c.windows[c.now]
		c.at++
		if c.at == 1 && c.reading == nil && !c.ended {
			c.ahead()
		}
		for c.at >= len(w.series) {
			if c.ended || c.err != nil {
				if c.reading == nil {
					c.free()
				}
				return false
			}
			c.turn()
			w, c.at = &c.windows[c.now], 0
		}
		s := w.series[c.at]
		if s.from == s.to && !c.req.SkipChunks {
			continue // all of its chunks are damaged
		}
		c.cur = store.Series{Labels: s.labels, Chunks: w.batch.chunks[s.from:s.to:s.to]}
		return true
	}
}

// turn makes the next window the current one.
func (c *cursor) turn() {
	if c.kept {
		c.leave()
	}
	if c.reading == nil {
		c.ahead()
	}
	<-c.reading
	c.reading = nil
	c.now = 1 - c.now
	c.take()
}

// leave leaves what the current window is in to those who keep series of it. The arrays of a batch are given up with the
// first of its windows that somebody keeps.
func (c *cursor) leave() {
	w := &c.windows[c.now]
	w.data.leave()
	if w.batch != nil {
		w.batch.given = true
	}
	c.kept = false
}

// take looks at the window that has become the current one, and has the next one read.
func (c *cursor) take() {
	w := &c.windows[c.now]
	c.bad.join(w.bad)
	if w.bad.count > 0 {
		c.block.damaged(w.bad.part, w.bad.first)
	}
	switch {
	case w.err != nil:
		w.series = nil
		c.fail(w.part, w.err)
	case w.last:
		c.ended = true
	case c.reader.refs.n > 0 || w.batch.at < len(w.batch.series):
		// Nobody may come to the second series of a block for long, while others are read. From then on it is this
		// block's turn.
		if c.begun || len(w.series) <= 1 {
			c.ahead()
		}
	default:
		c.ended = true
	}
}

// ahead starts to read the other window.
func (c *cursor) ahead() {
	done, w := make(chan struct{}), &c.windows[1-c.now]
	c.reading, c.begun = done, true
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				// One request must not take the process with it.
				w.err = fmt.Errorf("BUG: read block %s: %v\n%s", c.block.meta.ULID, p, debug.Stack())
			}
		}()
		c.reader.read(c.ctx, w)
	}()
}

// free gives back what reading takes, when nobody reads.
func (c *cursor) free() {
	if c.kept {
		c.leave()
	}
	for i := range c.windows {
		c.windows[i].data.free()
		c.windows[i].series, c.windows[i].batch = nil, nil
	}
	c.mem.free()
	c.reader.end()
}

// fail ends the cursor, and notes it where it is the block's fault.
func (c *cursor) fail(part damagedPart, err error) {
	if c.ctx.Err() == nil {
		c.block.damaged(part, err)
	}
	c.missing(err)
}

// missing ends the cursor. Where the request allows it, what is missing becomes a gap.
func (c *cursor) missing(err error) {
	c.ended = true
	switch {
	case c.ctx.Err() != nil:
		c.err = context.Cause(c.ctx)
	case store.KindOf(err) == store.KindLimit || errors.Is(err, errNoAggregate):
		c.err = fmt.Errorf("block %s: %w", c.block.meta.ULID, err)
	case c.req.PartialResponse == store.Abort:
		c.err = store.Errorf(store.KindAborted, "block %s: %w", c.block.meta.ULID, err)
	default:
		c.gaps = append(c.gaps, c.gap(err, c.block.meta.MinTime, c.block.meta.MaxTime))
	}
}

func (c *cursor) gap(err error, mint, maxt int64) error {
	return &store.Gap{Store: "block " + c.block.meta.ULID.String(), LabelSets: []labels.Labels{c.block.labels}, MinTime: mint, MaxTime: maxt, Err: err}
}

// At implements store.Cursor.
func (c *cursor) At() *store.Series { return &c.cur }

// Keep implements store.Keeper. The series brings its whole window along: from the next window on that is the keeper's
// to account for, and the cursor takes new memory. The last one of a window, which is kept only because nobody knows what
// comes next, is copied.
func (c *cursor) Keep() *store.Series {
	if !c.kept && c.at+1 == len(c.windows[c.now].series) {
		return c.cur.Clone()
	}
	c.kept = true
	s := c.cur
	return &s
}

// Extended implements store.Looker.
func (c *cursor) Extended(name string) bool {
	w := &c.windows[c.now]
	if c.at+1 < len(w.series) {
		return store.ExtendsBefore(c.cur.Labels, w.series[c.at+1].labels, name)
	}
	return !c.ended
}

// Whole implements store.Whole: series that are not in order are taken for damage.
func (c *cursor) Whole() bool { return true }

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
	defer c.block.release()
	if c.share == nil {
		return nil
	}
	c.cancel()
	if c.reading != nil {
		<-c.reading
	}
	c.planned.free()
	c.free()
	r := &c.reader
	c.metrics.seriesRefetches.WithLabelValues(c.tenant).Add(float64(r.seriesRefetched.n.Load()))
	c.metrics.chunkRefetches.WithLabelValues(c.tenant).Add(float64(r.chunksRefetched.n.Load()))
	return nil
}
