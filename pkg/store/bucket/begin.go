package bucket

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

// open opens a cursor in final order over each block, several at a time. The cursors release the blocks; after an error
// open does.
func (s *Store) open(ctx context.Context, req *store.SeriesRequest, ts []target, acc *account, mem *share, tenant string) ([]store.Cursor, error) {
	start := time.Now()
	cs := make([]*cursor, len(ts))
	opts := make([]store.RelabelOptions, len(ts))
	for i, t := range ts {
		opts[i] = store.RelabelOptions{External: t.block.labels, Drop: req.WithoutReplicaLabels}
		cs[i] = s.newCursor(ctx, req, t.block, acc, tenant, len(ts), mem)
		cs[i].reader.shard = shardOf(req, opts[i])
	}
	sorted, err := s.begin(ctx, cs, func(i int) []*labels.Matcher { return ts[i].matchers }, func(i int) bool {
		opts[i].MayClash = ts[i].block.mayClash(req.WithoutReplicaLabels)
		return opts[i].MayClash
	})
	if err != nil {
		for _, c := range cs {
			err = errors.Join(err, c.Close())
		}
		return nil, err
	}
	out := make([]store.Cursor, len(cs))
	for i, c := range cs {
		opts[i].Budget = sorted
		out[i] = store.Relabel(c, opts[i])
	}
	s.metrics.getAll.WithLabelValues(tenant).Observe(time.Since(start).Seconds())
	return out, nil
}

// begin finds the series of cursors over blocks, takes the memory for reading them, and reads the first windows. What
// goes wrong with one block is for its cursor to tell; an error is about the request: it is refused, or its context has
// ended. sorts tells whether all series of a block will be held; the budget that is returned is for these.
//
// A request is refused soon or not at all: it takes the memory for finding series at once or within memoryWait. The
// memory for reading is waited for as long as its caller likes, because those before it come to an end.
func (s *Store) begin(ctx context.Context, cs []*cursor, matchers func(i int) []*labels.Matcher, sorts func(i int) bool) (*store.Budget, error) {
	if len(cs) == 0 {
		return nil, nil
	}
	deadline, mem := time.Now().Add(memoryWait), cs[0].share
	each(cs, openConcurrency, func(i int, c *cursor) {
		if !c.openHeader() {
			return
		}
		c.recall(matchers(i))
	})
	oneByOne, err := s.prepare(ctx, cs, matchers, sorts, mem, deadline)
	if err != nil {
		return nil, err
	}
	// Where the plan tells how many series there are, at least, what is too many to be sorted is refused before any list
	// is read.
	planned := int64(0)
	for i, c := range cs {
		if n := c.looking.least; n > 0 && !c.ended && sorts(i) {
			planned += n * c.block.seriesBytes(c.req)
		}
	}
	if mem.max > 0 && planned > mem.max {
		return nil, mem.find(ctx, planned, toSortWhat, deadline)
	}
	width := openConcurrency
	if oneByOne {
		width = 1
	}
	each(cs, width, func(_ int, c *cursor) { c.find() })
	mem.finding.settle()

	toSort, toRead := int64(0), int64(0)
	for i, c := range cs {
		if c.ended || c.err != nil {
			continue
		}
		toRead += c.memory()
		if sorts(i) {
			toSort += int64(c.reader.refs.n) * c.block.seriesBytes(c.req)
		}
	}
	var sorted *store.Budget
	if toSort > 0 && mem.max > 0 {
		toSort += toSort/sortSlack + slabBytesMin
		if err := mem.find(ctx, toSort, toSortWhat, deadline); err != nil {
			return nil, err
		}
		// It is accounted for by the one who sorts.
		if err := mem.finding.Reserve(toSort); err != nil {
			return nil, err
		}
		mem.sorting = toSort
		sorted = store.NewBudget("memory for sorting series", toSort)
	}
	if n := mem.windows.from.max; n > 0 {
		toRead = min(toRead, n/admittedMin)
	}
	if err := mem.windows.take(ctx, toRead); err != nil {
		return nil, err
	}
	each(cs, openConcurrency, func(_ int, c *cursor) { c.first() })
	return sorted, nil
}

// A series that is held takes so much without its chunks, its final labels included.
const heldSeriesBytes = 300

// A chunk of a block whose meta.json tells no sizes is thought to take so much.
const usualChunkBytes = 1 << 10

const toSortWhat = "to sort series, because a stored label is removed or replaced"

// What series that are to be sorted take is thought to be one in so many bytes more.
const sortSlack = 8

// prepare plans, with other requests in line, and takes the memory that the plans need. Where that is too much for all
// blocks together they are to be done one by one.
func (s *Store) prepare(ctx context.Context, cs []*cursor, matchers func(i int) []*labels.Matcher, sorts func(i int) bool, mem *share, deadline time.Time) (oneByOne bool, err error) {
	waiting := ctx
	if mem.max > 0 { // where memory has no bound nothing is refused
		var cancel context.CancelFunc
		waiting, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	select {
	case s.lanes <- struct{}{}:
		defer func() { <-s.lanes }()
	case <-waiting.Done():
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, store.Errorf(store.KindLimit, "%s: requests that look for series keep all processors busy; ask again later", memoryName)
	}
	var all, most, lasting int64
	for i, c := range cs {
		if c.ended || c.err != nil {
			continue
		}
		enough := int64(0)
		if mem.max > 0 && sorts(i) {
			enough = mem.max/c.block.seriesBytes(c.req) + 1
		}
		c.prepare(matchers(i), enough)
		last, pass := c.looking.memory()
		lasting, all, most = lasting+last+c.planned.reserved+c.mem.reserved, all+pass, max(most, pass)
	}
	if mem.max > 0 && lasting+all > mem.max/findingAtOncePart {
		return true, mem.find(ctx, lasting+most, "for posting lists", deadline)
	}
	return false, mem.find(ctx, lasting+all, "for posting lists", deadline)
}

// Posting lists of all blocks are read side by side if they take no more than one in so many bytes of what a request
// may have for finding series.
const findingAtOncePart = 4

// each calls f for several cursors at a time. A panic fails its cursor: one request must not take the process with it.
func each(cs []*cursor, width int, f func(i int, c *cursor)) {
	var next atomic.Int64
	call := func(i int, c *cursor) {
		defer func() {
			if p := recover(); p != nil {
				c.missing(fmt.Errorf("BUG: read block %s: %v\n%s", c.block.meta.ULID, p, debug.Stack()))
			}
		}()
		f(i, c)
	}
	work := func() {
		for i := next.Add(1) - 1; i < int64(len(cs)); i = next.Add(1) - 1 {
			call(int(i), cs[i])
		}
	}
	var others sync.WaitGroup
	for range min(width, len(cs)) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// memory is what the cursor will hold of series and chunks at most, in bytes.
func (c *cursor) memory() int64 {
	few := int64(c.reader.refs.n)*(c.block.batchBytes(c.req)+2*c.block.seriesBytes(c.req)) + windowsPerBlock*slabBytesMin
	return min(few, windowsPerBlock*c.reader.windowBytes)
}

// chunksInRange is how many chunks of a series a request reads, as far as meta.json tells.
func (b *loaded) chunksInRange(req *store.SeriesRequest) int64 {
	st, length := b.meta.Stats, b.meta.MaxTime-b.meta.MinTime
	if req.SkipChunks || st.NumSeries == 0 || length <= 0 {
		return 0
	}
	all := int64((st.NumChunks + st.NumSeries - 1) / st.NumSeries)
	part := min(b.meta.MaxTime, req.MaxTime) - max(b.meta.MinTime, req.MinTime)
	return min(all, int64(float64(all)*float64(max(part, 0))/float64(length))+2)
}

// seriesBytes is what a series takes that is held with its chunks, batchBytes what one of a batch takes without them.
func (b *loaded) seriesBytes(req *store.SeriesRequest) int64 {
	chunk := b.chunkMean()
	if chunk == 0 {
		chunk = min(b.chunkLengths.guess(), usualChunkBytes)
	}
	return heldSeriesBytes + b.chunksInRange(req)*(chunk+chunkNoteBytes)
}

func (b *loaded) batchBytes(req *store.SeriesRequest) int64 {
	return batchSeriesBytes + b.chunksInRange(req)*chunkNoteBytes
}
