package fanout

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

var (
	errClosed    = errors.New("cursor closed")
	errOvertaken = errors.New("another endpoint was faster")
)

// position is how far a part has been handed out. Since the order of series is verified, an endpoint that
// holds the same can go on from there.
type position struct {
	any    bool
	last   labels.Labels
	chunks []chunkKey // handed out under these labels
}

// chunkKey stands for the content of a chunk.
type chunkKey struct {
	mint, maxt int64
	sum        uint64
}

func keyOf(c *store.Chunk) chunkKey {
	key := chunkKey{mint: c.MinTime, maxt: c.MaxTime}
	c.Payloads(func(a store.Aggr, p *store.Payload) { key.sum = key.sum*31 + p.Sum64() + uint64(a) })
	return key
}

// pass takes in a series that is handed out.
func (p *position) pass(se *store.Series) {
	if !p.any || !labels.Equal(p.last, se.Labels) {
		p.any, p.last, p.chunks = true, se.Labels, p.chunks[:0]
	}
	for i := range se.Chunks {
		p.chunks = append(p.chunks, keyOf(&se.Chunks[i]))
	}
}

// rest returns what of a series has not been handed out; nil if nothing. past is true of a series behind the
// position, after which all others are too.
func (p *position) rest(se *store.Series) (left *store.Series, past bool) {
	c := labels.Compare(se.Labels, p.last)
	switch {
	case !p.any || c > 0:
		return se, true
	case c < 0:
		return nil, false
	}
	left = &store.Series{Labels: se.Labels}
	for i := range se.Chunks {
		if !slices.Contains(p.chunks, keyOf(&se.Chunks[i])) {
			left.Chunks = append(left.Chunks, se.Chunks[i])
		}
	}
	if len(left.Chunks) == 0 {
		return nil, false
	}
	return left, false
}

// attempt is one endpoint's try at a part: from the start, or from where another one broke off.
type attempt struct {
	standby
	of     *Store
	req    *store.SeriesRequest
	ctx    context.Context
	cancel context.CancelCauseFunc

	started time.Time
	left    bool      // its warnings are with the part
	from    *position // what to leave out; nil at the start, and once past it
	cur     store.Cursor
	partial *store.Series // the current series, without what was handed out before; nil if it is whole

	// Of attempts in the background, once done is closed: whether there is a first series.
	ok   bool
	done chan struct{}
	err  error // why it failed
}

// next moves to the next series that has not been handed out; the first call opens the Store. A panic of
// the Store is its failure.
func (a *attempt) next() (ok bool) {
	if err := a.of.guard(func() { ok = a.move() }); err != nil {
		a.err, ok = err, false
	}
	return ok
}

func (a *attempt) move() bool {
	if a.cur == nil {
		req := *a.req
		req.Matchers, req.StoreMatchers = a.target.matchers, nil
		cur, err := a.target.store.Series(a.ctx, &req)
		if err != nil {
			a.err = err
			return false
		}
		a.cur = store.InReplica(cur, a.target.replica)
	}
	for a.cur.Next() {
		a.partial = nil
		if a.from == nil {
			return true
		}
		left, past := a.from.rest(a.cur.At())
		if past {
			a.from = nil
			return true
		}
		if left != nil {
			a.partial = left
			return true
		}
	}
	a.err = a.cur.Err()
	return false
}

// failed returns why the attempt failed: what ended it tells more than the cancellation that the Store saw.
func (a *attempt) failed() error {
	if a.err == nil {
		return nil
	}
	if cause := context.Cause(a.ctx); cause != nil {
		return cause
	}
	return a.err
}

// doing is what it was at when it failed.
func (a *attempt) doing() string {
	if a.cur == nil {
		return "open"
	}
	return "read"
}

func (a *attempt) at() *store.Series {
	if a.partial != nil {
		return a.partial
	}
	return a.cur.At()
}

func (a *attempt) keep() *store.Series {
	if a.partial != nil {
		return a.partial.Clone()
	}
	return store.Keep(a.cur)
}

func (a *attempt) warnings() store.Warnings {
	if a.cur == nil || a.left {
		return nil
	}
	return a.cur.Warnings()
}

func (a *attempt) close() error {
	a.cancel(errClosed)
	if a.cur == nil {
		return nil
	}
	return a.cur.Close()
}
