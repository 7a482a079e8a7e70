package fanout

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-kit/log/level"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/store"
)

// open opens a part for each target, in parallel, and merges them. The warnings go with the answer.
func (s *Store) open(ctx context.Context, req *store.SeriesRequest, targets []target, warnings store.Warnings) (store.Cursor, error) {
	whole, cancel := context.WithCancelCause(ctx)
	parts := make([]*part, len(targets))
	var g errgroup.Group
	g.SetLimit(s.cfg.OpenMax)
	for i := range targets {
		parts[i] = s.newPart(whole, req, &targets[i])
		g.Go(func() error {
			if err := s.guard(func() { parts[i].open(req) }); err != nil {
				parts[i].fail("open", err)
			}
			if err := parts[i].err; err != nil && store.KindOf(parts[i].cause) != store.KindBadRequest {
				cancel(err) // the request has failed: nobody needs the others
			}
			return nil
		})
	}
	_ = g.Wait()

	m := &merged{cancel: cancel, warnings: warnings}
	cursors := make([]store.Cursor, len(parts))
	for i, p := range parts {
		cursors[i] = p
	}
	m.Cursor = store.Limit(store.Merge(cursors), req.Limit)
	if err := failure(ctx, whole, parts); err != nil {
		_ = m.Close()
		return nil, err
	}
	return m, nil
}

// guard turns a panic in a goroutine of ours, which would end the process, into an error: one broken Store
// costs only itself.
func (s *Store) guard(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			level.Error(s.logger).Log("msg", "a store panicked", "panic", r, "stack", debug.Stack())
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	f()
	return nil
}

// failure is why a request has failed already when its parts have been opened.
func failure(ctx, whole context.Context, parts []*part) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	causes := make([]error, len(parts))
	for i, p := range parts {
		causes[i] = p.cause
	}
	if err := allBad(causes); err != nil {
		return err
	}
	if whole.Err() != nil {
		return context.Cause(whole)
	}
	for _, p := range parts {
		if p.err != nil {
			return p.err
		}
	}
	return nil
}

// allBad returns an error if every Store refuses the request: then it is the request that is bad, whatever
// it says about partial answers. A Store that refuses alone is a Store that fails.
func allBad(causes []error) error {
	for _, err := range causes {
		if err == nil || store.KindOf(err) != store.KindBadRequest {
			return nil
		}
	}
	if len(causes) == 0 {
		return nil
	}
	return causes[0]
}

func errLate(d time.Duration) error {
	return store.Errorf(store.KindUnavailable, "nothing received for %s", d)
}

// merged is the whole answer. Its Close ends what the parts still do.
type merged struct {
	store.Cursor
	cancel   context.CancelCauseFunc
	warnings store.Warnings // besides those of the parts
}

func (m *merged) Warnings() store.Warnings {
	return slices.Concat(m.warnings, m.Cursor.Warnings())
}

func (m *merged) Keep() *store.Series { return store.Keep(m.Cursor) }

func (m *merged) Close() error {
	m.cancel(errClosed)
	return m.Cursor.Close()
}

var errClosed = errors.New("cursor closed")

// part is the cursor over one Store. It turns the Store's failure into a warning, or into the failure of
// the request.
type part struct {
	of      *Store
	target  *target
	minTime int64
	maxTime int64
	abort   bool

	request context.Context // the request's
	ctx     context.Context // this Store's, which its lateness ends
	cancel  context.CancelCauseFunc
	dog     *watchdog

	cur      store.Cursor // nil if it could not be opened
	primed   bool         // the first series has been asked for ahead of Next
	first    bool         // …and this is what came of it
	seen     bool         // a series has come
	ended    bool
	cause    error // why the Store failed
	err      error // why the request failed
	warnings store.Warnings
}

func (s *Store) newPart(ctx context.Context, req *store.SeriesRequest, t *target) *part {
	p := &part{of: s, target: t, minTime: req.MinTime, maxTime: req.MaxTime, abort: req.PartialResponse == store.Abort, request: ctx}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	return p
}

// open opens the Store and awaits its first series.
func (p *part) open(req *store.SeriesRequest) {
	timeout := p.of.cfg.ResponseTimeout
	p.dog = newWatchdog(timeout, func() { p.cancel(errLate(timeout)) })
	defer p.dog.end()
	own := *req
	own.Matchers, own.StoreMatchers = p.target.matchers, nil
	cur, err := p.target.store.Series(p.ctx, &own)
	if err != nil {
		p.fail("open", err)
		return
	}
	p.cur = cur
	p.primed, p.first = true, p.pull()
}

// Next implements store.Cursor.
func (p *part) Next() bool {
	if p.primed {
		p.primed = false
		return p.first
	}
	if p.ended {
		return false
	}
	p.dog.begin()
	ok := p.pull()
	p.dog.end()
	return ok
}

// pull moves the Store's cursor.
func (p *part) pull() bool {
	if p.cur.Next() {
		p.seen = true
		return true
	}
	p.ended = true
	p.warnings = p.cur.Warnings()
	switch err := p.cur.Err(); {
	case err != nil:
		p.fail("read", err)
	case p.abort && len(p.warnings) > 0:
		p.err = &store.Error{Kind: store.KindAborted, Err: p.warnings[0]}
	case !p.seen && len(p.warnings) == 0:
		p.of.metrics.emptyStreams.Inc()
	}
	return false
}

// fail records that the Store is of no more use.
func (p *part) fail(what string, err error) {
	p.ended = true
	if p.request.Err() != nil {
		p.err = context.Cause(p.request)
		return
	}
	if cause := context.Cause(p.ctx); cause != nil {
		err = cause // more telling than the cancellation that the Store saw
	}
	p.cause = err
	gap := p.target.gap(p.minTime, p.maxTime, fmt.Errorf("%s series: %w", what, err))
	level.Debug(p.of.logger).Log("msg", "a store does not answer a request", "store", gap.Store, "err", gap.Err)
	if p.abort {
		p.err = &store.Error{Kind: store.KindAborted, Err: gap}
		return
	}
	p.warnings = append(p.warnings, gap)
}

// gap names what is missing without the target.
func (t *target) gap(mint, maxt int64, err error) *store.Gap {
	return &store.Gap{
		Store: t.desc.Name, LabelSets: t.sets,
		MinTime: max(mint, t.desc.MinTime), MaxTime: min(maxt, t.desc.MaxTime),
		Err: err,
	}
}

func (p *part) At() *store.Series   { return p.cur.At() }
func (p *part) Keep() *store.Series { return store.Keep(p.cur) }
func (p *part) Err() error          { return p.err }

func (p *part) Warnings() store.Warnings {
	if !p.ended {
		return p.cur.Warnings() // the reader has seen enough before the end
	}
	return p.warnings
}

func (p *part) Close() error {
	p.dog.stop()
	p.cancel(errClosed)
	if p.cur == nil {
		return nil
	}
	return p.cur.Close()
}
