package fanout

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/store"
)

// LabelNames implements store.Store.
func (s *Store) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	q := question{req.MinTime, req.MaxTime, req.Matchers, req.StoreMatchers, math.MaxInt64}
	return s.list(ctx, q, req.PartialResponse, req.WithoutReplicaLabels, req.Limit, "get label names", func(ctx context.Context, t *target) ([]string, store.Warnings, error) {
		own := *req
		own.Matchers, own.StoreMatchers = t.matchers, nil
		return t.store.LabelNames(ctx, &own)
	})
}

// LabelValues implements store.Store.
func (s *Store) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	if req.Label == "" {
		return nil, nil, store.Errorf(store.KindBadRequest, "label name is empty")
	}
	q := question{req.MinTime, req.MaxTime, req.Matchers, req.StoreMatchers, math.MaxInt64}
	return s.list(ctx, q, req.PartialResponse, req.WithoutReplicaLabels, req.Limit, "get label values", func(ctx context.Context, t *target) ([]string, store.Warnings, error) {
		own := *req
		own.Matchers, own.StoreMatchers = t.matchers, nil
		return t.store.LabelValues(ctx, &own)
	})
}

// list answers a label call. Without any Store the answer is empty even if it should be all or nothing:
// clients fill menus with it.
func (s *Store) list(ctx context.Context, q question, pr store.PartialResponse, without []string, limit int, what string, ask ask) ([]string, store.Warnings, error) {
	var ok bool
	if q.matchers, ok = store.MatchExternal(s.cfg.SelectorLabels, q.matchers); !ok {
		return nil, nil, nil
	}
	stores := s.stores()
	j := jury{of: s, q: &q, without: without}
	if len(stores) == 0 {
		gaps, _ := j.sentence(s.absent(q))
		return nil, append(gaps, errNoStores), nil
	}
	g := &gathering{of: s, q: &q, targets: s.pick(stores, q), what: what, ask: ask}
	for i := range g.targets {
		if t := &g.targets[i]; t.desc.OnlyBlocks {
			t.needs = s.needsOf(&t.desc, &q)
		}
	}
	all, warnings, losses, err := g.run(ctx, pr)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range g.whole() {
		j.hear(t, t.needsFor(&q, s))
	}
	gaps, infos := j.sentence(append(s.absent(q), losses...))
	if pr == store.Abort && len(gaps) > 0 {
		return nil, nil, &store.Error{Kind: store.KindAborted, Err: gaps[0]}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, slices.Concat(gaps, infos, warnings), nil
}

// ask is a label call to one target.
type ask func(context.Context, *target) ([]string, store.Warnings, error)

// reply is what one Store says to a label call.
type reply struct {
	list     []string
	warnings store.Warnings
	err      error // why there is none
	done     bool
	cancel   context.CancelCauseFunc
}

// gathering asks all targets at once and joins their lists.
type gathering struct {
	of      *Store
	q       *question
	targets []target
	what    string
	ask     ask

	mu      sync.Mutex
	replies []reply
}

// errNeedless ends a call whose answer others have given.
var errNeedless = store.Errorf(store.KindUnavailable, "slower than others that hold the same")

// run returns the lists and warnings, in the order of the targets, and what was lost.
func (g *gathering) run(ctx context.Context, pr store.PartialResponse) (all []string, warnings store.Warnings, losses []loss, err error) {
	g.replies = make([]reply, len(g.targets))
	p := patience{timeout: g.of.cfg.ResponseTimeout, start: time.Now()}
	p.deadline, _ = ctx.Deadline()
	var eg errgroup.Group
	eg.SetLimit(g.of.cfg.OpenMax)
	calls := make([]context.Context, len(g.targets))
	for i := range g.targets {
		calls[i], g.replies[i].cancel = context.WithCancelCause(ctx)
	}
	for i := range g.targets {
		eg.Go(func() error {
			defer g.replies[i].cancel(errClosed)
			g.call(calls[i], i, p)
			return nil
		})
	}
	_ = eg.Wait()
	if ctx.Err() != nil {
		return nil, nil, nil, context.Cause(ctx)
	}
	causes := make([]error, len(g.replies))
	for i := range g.replies {
		causes[i] = g.replies[i].err
	}
	if err := allBad(causes); err != nil {
		return nil, nil, nil, err
	}
	for i := range g.replies {
		r, t := &g.replies[i], &g.targets[i]
		cause := r.err
		if doubts := r.warnings.Doubts(); cause == nil && pr == store.Abort && len(doubts) > 0 {
			cause = doubts[0]
		}
		if cause != nil {
			losses = append(losses, loss{t, cause, fmt.Errorf("%s: %w", g.what, cause)})
		}
		if cause == nil || pr != store.Abort {
			all, warnings = append(all, r.list...), append(warnings, r.warnings...)
		}
	}
	return all, warnings, losses, nil
}

// call asks one target; a group is asked again when it fails at once.
func (g *gathering) call(own context.Context, i int, p patience) {
	r, t := &g.replies[i], &g.targets[i]
	limit, late := p.allowed(time.Now(), 0)
	timer := time.AfterFunc(limit, func() { r.cancel(late) })
	defer timer.Stop()
	tries := 1
	if t.desc.Group {
		tries += groupTries
	}
	var got reply
	for range tries {
		if err := g.of.guard(func() { got.list, got.warnings, got.err = g.ask(own, t) }); err != nil {
			got.err = err
		}
		if got.err == nil || own.Err() != nil || store.KindOf(got.err) != store.KindUnavailable {
			break
		}
	}
	if got.err != nil && own.Err() != nil {
		got.err = context.Cause(own)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r.list, r.warnings, r.err, r.done = got.list, got.warnings, got.err, true
	g.spare()
}

// spare ends the calls to Stores whose blocks are served by Stores that have answered. The caller holds mu.
func (g *gathering) spare() {
	var had held
	for i := range g.replies {
		r, t := &g.replies[i], &g.targets[i]
		if r.done || !t.desc.OnlyBlocks {
			continue
		}
		if had == nil {
			had = held{}
			for k := range g.replies {
				if g.replies[k].whole() {
					had.add(g.targets[k].needs.list)
				}
			}
		}
		if had.hasAll(t.needs.list) {
			r.cancel(errNeedless)
		}
	}
}

// whole tells whether a Store has answered with all it has.
func (r *reply) whole() bool { return r.done && r.err == nil && len(r.warnings.Doubts()) == 0 }

// whole returns the targets that have answered with all they have.
func (g *gathering) whole() (ts []*target) {
	for i := range g.replies {
		if g.replies[i].whole() {
			ts = append(ts, &g.targets[i])
		}
	}
	return ts
}
