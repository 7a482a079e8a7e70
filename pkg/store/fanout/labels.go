package fanout

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/store"
)

// LabelNames implements store.Store.
func (s *Store) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	q := question{req.MinTime, req.MaxTime, req.Matchers, req.StoreMatchers}
	return s.list(ctx, q, req.PartialResponse, req.Limit, "get label names", func(ctx context.Context, t *target) ([]string, store.Warnings, error) {
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
	q := question{req.MinTime, req.MaxTime, req.Matchers, req.StoreMatchers}
	return s.list(ctx, q, req.PartialResponse, req.Limit, "get label values", func(ctx context.Context, t *target) ([]string, store.Warnings, error) {
		own := *req
		own.Matchers, own.StoreMatchers = t.matchers, nil
		return t.store.LabelValues(ctx, &own)
	})
}

// list answers a label call. Without any Store the answer is empty even if it should be all or nothing:
// clients fill menus with it.
func (s *Store) list(ctx context.Context, q question, pr store.PartialResponse, limit int, what string,
	ask func(context.Context, *target) ([]string, store.Warnings, error)) ([]string, store.Warnings, error) {
	var ok bool
	if q.matchers, ok = store.MatchExternal(s.cfg.SelectorLabels, q.matchers); !ok {
		return nil, nil, nil
	}
	stores := s.stores()
	absent := s.absent(q, pr)
	if len(stores) == 0 {
		return nil, append(absent, errNoStores), nil
	}
	all, warnings, err := gather(ctx, s, s.pick(stores, q), q, pr, what, ask)
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, append(absent, warnings...), nil
}

// reply is what one Store says to a label call.
type reply struct {
	list     []string
	warnings store.Warnings
	cause    error // why there is none
	err      error // what that makes of the request
}

// gather asks all targets at once and joins their lists. The warnings come in the order of the targets.
func gather(ctx context.Context, s *Store, targets []target, q question, pr store.PartialResponse, what string,
	ask func(context.Context, *target) ([]string, store.Warnings, error)) ([]string, store.Warnings, error) {
	whole, cancel := context.WithCancelCause(ctx)
	defer cancel(errClosed)
	replies := make([]reply, len(targets))
	var g errgroup.Group
	g.SetLimit(s.cfg.OpenMax)
	for i := range targets {
		g.Go(func() error {
			r, t := &replies[i], &targets[i]
			own, stop := s.withTimeout(whole)
			defer stop()
			if err := s.guard(func() { r.list, r.warnings, r.cause = ask(own, t) }); err != nil {
				r.cause = err
			}
			if r.cause != nil {
				if own.Err() != nil {
					r.cause = context.Cause(own)
				}
				r.warnings = append(r.warnings, t.gap(q.minTime, q.maxTime, fmt.Errorf("%s: %w", what, r.cause)))
			}
			if pr != store.Abort || len(r.warnings) == 0 {
				return nil
			}
			r.err = &store.Error{Kind: store.KindAborted, Err: r.warnings[len(r.warnings)-1]}
			if store.KindOf(r.cause) != store.KindBadRequest {
				cancel(r.err)
			}
			return nil
		})
	}
	_ = g.Wait()
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	causes := make([]error, len(replies))
	for i := range replies {
		causes[i] = replies[i].cause
	}
	if err := allBad(causes); err != nil {
		return nil, nil, err
	}
	if whole.Err() != nil {
		return nil, nil, context.Cause(whole)
	}
	var all []string
	var warnings store.Warnings
	for _, r := range replies {
		if r.err != nil {
			return nil, nil, r.err
		}
		all, warnings = append(all, r.list...), append(warnings, r.warnings...)
	}
	return all, warnings, nil
}

func (s *Store) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.cfg.ResponseTimeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, s.cfg.ResponseTimeout, errLate(s.cfg.ResponseTimeout))
}
