package prom

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
)

// labelsOnly reads the labels of series without their chunks, all of them before the first is handed out:
// Prometheus lists them in no order.
func (s *Store) labelsOnly(ctx context.Context, q query) (store.Cursor, error) {
	budget := s.cfg.Budget
	var (
		found    []*store.Series
		reserved int64
		clash    bool
	)
	err := s.walk(ctx, q, func(ls labels.Labels) error {
		sr := &store.Series{Labels: ls}
		n := sr.Size()
		if err := budget.Reserve(n); err != nil {
			return err
		}
		reserved += n
		found = append(found, sr)
		clash = clash || store.HasAny(ls, q.drop)
		q.external.Range(func(l labels.Label) { clash = clash || ls.Has(l.Name) })
		return nil
	})
	if err != nil {
		budget.Release(reserved)
		return nil, err
	}
	slices.SortFunc(found, func(a, b *store.Series) int { return labels.Compare(a.Labels, b.Labels) })
	cur := &inMemory{SliceCursor: store.NewSliceCursor(found), ctx: ctx, budget: budget, reserved: reserved}
	return store.Relabel(cur, store.RelabelOptions{External: q.external, Drop: q.drop, MayClash: clash, Budget: budget}), nil
}

// walk calls each with the stored labels of all series that match, in no order.
func (s *Store) walk(ctx context.Context, q query, each func(labels.Labels) error) error {
	if selective(q.matchers) {
		_, err := s.client.Series(ctx, promapi.Select{Start: q.mint, End: q.maxt, Matchers: q.matchers}, each)
		return err
	}
	// Prometheus refuses to list series by matchers that all accept an absent label, but reads them.
	q.drop = nil
	cur, err := s.readStored(ctx, q)
	if err != nil {
		return err
	}
	defer cur.Close()
	for cur.Next() {
		if err := each(cur.At().Labels); err != nil {
			return err
		}
	}
	return cur.Err()
}

// selective tells whether a matcher refuses the empty string.
func selective(ms []*labels.Matcher) bool {
	return slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") })
}

// inMemory is a cursor over series that a budget was charged with.
type inMemory struct {
	*store.SliceCursor
	ctx      context.Context
	budget   *store.Budget
	reserved int64
}

func (c *inMemory) Next() bool { return c.ctx.Err() == nil && c.SliceCursor.Next() }
func (c *inMemory) Err() error { return context.Cause(c.ctx) }

func (c *inMemory) Close() error {
	c.budget.Release(c.reserved)
	c.reserved = 0
	return nil
}
