package fanout

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-kit/log/level"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/store"
)

// run is one Series request.
type run struct {
	of       *Store
	req      *store.SeriesRequest
	q        question
	abort    bool
	size     int // of the request, for the pace
	ctx      context.Context
	cancel   context.CancelCauseFunc
	patience patience

	parts  []*part
	all    []*target // asked or standing by
	absent []loss
	twins  []pair // parts that look like replicas

	merging atomic.Bool
	inVain  atomic.Int64 // how many waits of the merge were in vain
}

// open opens a part for each target, in parallel, and merges them.
func (s *Store) open(ctx context.Context, req *store.SeriesRequest, q question, targets []target, absent []loss) (store.Cursor, error) {
	r := &run{of: s, req: req, q: q, abort: req.PartialResponse == store.Abort, absent: absent, size: size(q.minTime, q.maxTime)}
	r.patience = patience{timeout: s.cfg.ResponseTimeout, start: time.Now()}
	r.patience.deadline, _ = ctx.Deadline()
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	for _, o := range s.plan(targets, &q) {
		r.parts = append(r.parts, r.newPart(o))
		r.all = append(r.all, o.target)
		for _, sb := range o.standbys {
			r.all = append(r.all, sb.target)
		}
	}
	r.twins = r.pairs()
	if r.abort {
		for i := range absent {
			if err := r.certain(&absent[i]); err != nil {
				r.cancel(errClosed)
				return nil, err
			}
		}
	}
	var g errgroup.Group
	g.SetLimit(s.cfg.OpenMax)
	for _, p := range r.parts {
		g.Go(func() error {
			p.open()
			if p.err != nil && !bad(p.cause()) {
				r.cancel(p.err) // the request has failed: nobody needs the others
			}
			return nil
		})
	}
	_ = g.Wait()
	r.merging.Store(true)

	cursors := make([]store.Cursor, len(r.parts))
	for i, p := range r.parts {
		cursors[i] = p
	}
	m := &merged{run: r, Cursor: store.Limit(store.Merge(cursors), req.Limit)}
	if err := r.failure(ctx); err != nil {
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

// overtaken blames a Store that another one was faster than.
func (s *Store) overtaken(t *target) {
	s.pace.blame(t.desc.Name, troubleOvertaken)
	s.metrics.overtaken.Inc()
}

// failure is why a request has failed already when its parts have been opened.
func (r *run) failure(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	causes := make([]error, len(r.parts))
	for i, p := range r.parts {
		causes[i] = p.cause()
	}
	if err := allBad(causes); err != nil {
		return err
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	for _, p := range r.parts {
		if p.err != nil {
			return p.err
		}
	}
	return nil
}

// cause is why the part's Store failed, nil if it did not.
func (p *part) cause() error {
	if p.lost == nil {
		return nil
	}
	return p.lost.cause
}

func bad(err error) bool { return err != nil && store.KindOf(err) == store.KindBadRequest }

// allBad returns an error if every Store refuses the request: then it is the request that is bad, whatever
// it says about partial answers. A Store that refuses alone is a Store that fails.
func allBad(causes []error) error {
	if len(causes) == 0 || slices.ContainsFunc(causes, func(err error) bool { return !bad(err) }) {
		return nil
	}
	return causes[0]
}

// merged is the whole answer. At its end it is judged by what was lost; its Close ends what the parts still
// do.
type merged struct {
	store.Cursor
	run     *run
	ended   bool
	verdict store.Warnings
	err     error
}

func (m *merged) Next() bool {
	if m.ended {
		return false
	}
	if m.Cursor.Next() {
		return true
	}
	m.ended = true
	if m.Cursor.Err() != nil {
		return false
	}
	m.run.learn()
	gaps, infos := m.run.judge(m.run.losses(), true)
	if m.run.abort && len(gaps) > 0 {
		m.err = &store.Error{Kind: store.KindAborted, Err: gaps[0]}
		return false
	}
	m.verdict = slices.Concat(gaps, infos)
	return false
}

func (m *merged) Err() error {
	if m.err != nil {
		return m.err
	}
	return m.Cursor.Err()
}

// Warnings returns, before the end, what is lost for certain.
func (m *merged) Warnings() store.Warnings {
	if m.ended {
		return slices.Concat(m.verdict, m.Cursor.Warnings())
	}
	gaps, _ := m.run.judge(m.run.losses(), false)
	return slices.Concat(gaps, m.Cursor.Warnings())
}

func (m *merged) Keep() *store.Series { return store.Keep(m.Cursor) }

func (m *merged) Close() error {
	m.run.cancel(errClosed)
	return m.Cursor.Close()
}
