package tsdb

import (
	"context"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/koios-metrics/koios/pkg/store"
)

// cursor walks over the series of a querier in the order of stored labels. Chunks of blocks are the
// mapped files themselves; those that the head still writes to were copied by the TSDB.
type cursor struct {
	ctx        context.Context
	name       string
	q          storage.ChunkQuerier
	set        storage.ChunkSeriesSet
	mint, maxt int64
	skipChunks bool

	it     chunks.Iterator
	out    store.Series
	ahead  bool // set stands on the next series already
	more   bool // …if there is one
	err    error
	closed bool
}

func (c *cursor) Next() bool {
	if c.err != nil || c.closed {
		return false
	}
	for {
		if c.ctx.Err() != nil {
			c.fail(nil)
			return false
		}
		if !c.look() {
			if err := c.set.Err(); err != nil {
				c.fail(err)
			}
			return false
		}
		c.ahead = false
		sr := c.set.At()
		c.out.Labels = sr.Labels()
		if c.skipChunks {
			return true
		}
		if err := c.readChunks(sr); err != nil {
			c.fail(err)
			return false
		}
		if len(c.out.Chunks) > 0 {
			return true
		}
	}
}

// look makes sure that the set stands on the next series; false if there is none. The chunks of the
// current one stay valid: they are mapped or copied until the querier is closed.
func (c *cursor) look() bool {
	if !c.ahead {
		c.ahead, c.more = true, c.set.Next()
	}
	return c.more
}

// Extended implements store.Looker.
func (c *cursor) Extended(name string) bool {
	return c.look() && store.ExtendsBefore(c.out.Labels, c.set.At().Labels(), name)
}

func (c *cursor) readChunks(sr storage.ChunkSeries) error {
	c.out.Chunks = c.out.Chunks[:0]
	c.it = sr.Iterator(c.it)
	for c.it.Next() {
		m := c.it.At()
		// The index states no end of a chunk that the head still writes to; now it is known.
		if !store.Overlaps(m.MinTime, m.MaxTime, c.mint, c.maxt) {
			continue
		}
		c.out.Chunks = append(c.out.Chunks, store.Chunk{
			MinTime: m.MinTime,
			MaxTime: m.MaxTime,
			Raw:     store.Payload{Encoding: m.Chunk.Encoding(), Data: m.Chunk.Bytes()},
		})
	}
	return c.it.Err()
}

func (c *cursor) fail(err error) { c.err = wrap(c.ctx, "read series", c.name, err) }

func (c *cursor) At() *store.Series { return &c.out }
func (c *cursor) Err() error        { return c.err }

func (c *cursor) Warnings() store.Warnings { return warnings(c.set.Warnings()) }

// Close gives back the blocks and the head, which can't be truncated while they are read.
func (c *cursor) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	if err := c.q.Close(); err != nil {
		return store.Errorf(store.KindInternal, "close querier of %s: %w", c.name, err)
	}
	return nil
}

func warnings(as annotations.Annotations) store.Warnings {
	if len(as) == 0 {
		return nil
	}
	return as.AsErrors()
}
