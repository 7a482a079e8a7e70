package prom

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

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
	ws, err := s.walk(ctx, q, func(ls labels.Labels) error {
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
	cur := &inMemory{SliceCursor: store.NewSliceCursor(found, ws...), ctx: ctx, budget: budget, reserved: reserved}
	return store.Relabel(cur, store.RelabelOptions{External: q.external, Drop: q.drop, MayClash: clash, Budget: budget}), nil
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
