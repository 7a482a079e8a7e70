package remote

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/go-kit/log/level"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/wire"
)

// cursor receives the frames of a Series answer as it is moved. The chunks it lends are slices of the
// buffer that gRPC received.
type cursor struct {
	ctx    context.Context
	cancel context.CancelFunc
	peer   *Store
	stream grpc.ClientStream
	abort  bool

	// checked is true when the series are handed out as they come, in the order that they ought to have;
	// false when somebody above puts them right.
	checked bool
	without []string // the replica labels that ought to be gone
	last    labels.Labels
	any     bool // last is set

	frame    wire.Incoming
	at       int // in the series of frame
	ended    bool
	warnings store.Warnings
	err      error
}

func (c *cursor) Next() bool {
	if c.ended {
		return false
	}
	if c.ctx.Err() != nil { // a batch would otherwise go on to its end
		c.ended = true
		c.err = c.peer.error(c.ctx, "receive series from %s", nil)
		return false
	}
	for c.at+1 >= len(c.frame.Series()) {
		if !c.receive() {
			c.ended = true
			return false
		}
	}
	c.at++
	if c.checked && !c.check() {
		c.ended = true
		return false
	}
	return true
}

// receive gets the next frame; false at the end or at an error.
func (c *cursor) receive() bool {
	c.at = -1
	switch err := c.stream.RecvMsg(&c.frame); {
	case errors.Is(err, io.EOF):
		return false
	case err != nil:
		c.err = c.peer.error(c.ctx, "receive series from %s", err)
		return false
	}
	if text, ok := c.frame.Warning(); ok {
		w := store.ReadWarning(text)
		if c.abort && !store.IsInfo(w) {
			c.err = c.peer.refused(text)
			return false
		}
		c.warnings = append(c.warnings, w)
	}
	return true
}

// check looks at the current series and at the one before. A peer that is caught is not trusted again:
// what was handed out can't be taken back, but from the next request on its answers are put right here.
func (c *cursor) check() bool {
	now := c.At().Labels
	switch {
	case store.HasAny(now, c.without):
		return c.caught("sent series %.500s, which still has one of the replica labels %v", now, c.without)
	case c.any && labels.Compare(c.last, now) > 0:
		return c.caught("sent series %.500s after %.500s", now, c.last)
	}
	c.last, c.any = now, true
	return true
}

// caught ends the cursor, says how the peer broke its word, and remembers it.
func (c *cursor) caught(format string, args ...any) bool {
	what := fmt.Sprintf(format, args...)
	c.err = store.Errorf(store.KindInternal, "%s %s: its answers will be sorted here from now on; ask again", c.peer.config.Name, what)
	if !c.peer.unordered.Swap(true) {
		level.Warn(c.peer.config.Logger).Log("msg", "a store does not keep the order of series; its answers are held and sorted here from now on", "store", c.peer.config.Name, "it", what)
	}
	return false
}

func (c *cursor) At() *store.Series        { return &c.frame.Series()[c.at] }
func (c *cursor) Err() error               { return c.err }
func (c *cursor) Warnings() store.Warnings { return c.warnings }

// Keep implements store.Keeper: it copies the bytes of all chunks into one piece of the right size. The
// received buffer is not kept, as it may be much larger.
func (c *cursor) Keep() *store.Series {
	from := c.At()
	size := 0
	for i := range from.Chunks {
		from.Chunks[i].Payloads(func(_ store.Aggr, p *store.Payload) { size += len(p.Data) })
	}
	data := make([]byte, 0, size)
	to := &store.Series{Labels: from.Labels, Chunks: append([]store.Chunk(nil), from.Chunks...)}
	for i := range to.Chunks {
		ch := &to.Chunks[i]
		if ch.Aggrs != nil {
			a := *ch.Aggrs
			ch.Aggrs = &a
		}
		ch.Payloads(func(_ store.Aggr, p *store.Payload) {
			start := len(data)
			data = append(data, p.Data...)
			p.Data = data[start:len(data):len(data)]
		})
	}
	return to
}

// Close ends the call, if it is still going on, which makes the peer stop.
func (c *cursor) Close() error {
	c.ended = true
	c.cancel()
	c.frame.Release()
	return nil
}
