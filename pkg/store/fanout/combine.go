package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/koios-metrics/koios/pkg/store"
)

// combine adds a standby made of several that each hold a part of what the target does: few of them that together
// hold the most. It comes before them, who are left for the case that one of them fails too. That takes some time
// where there are many blocks, so it is done once somebody is needed.
func combine(t *target, standbys []standby) []standby {
	var chosen []*target
	has := held{}
	missing := t.needs.list
	for {
		best, left := -1, missing
		for i, s := range standbys {
			if s.full {
				continue
			}
			if l := has.with(s.target.needs.list).lacks(missing); len(l) < len(left) {
				best, left = i, l
			}
		}
		if best < 0 {
			break
		}
		chosen = append(chosen, standbys[best].target)
		has.add(standbys[best].target.needs.list)
		missing = left
	}
	if len(chosen) < 2 {
		return standbys
	}
	first := slices.IndexFunc(standbys, func(s standby) bool { return !s.full })
	return slices.Insert(slices.Clone(standbys), first, standby{together(chosen), len(missing) == 0})
}

// together makes a target of several.
func together(ts []*target) *target {
	u := &target{store: combined{of: ts}, matchers: ts[0].matchers}
	u.desc.OnlyBlocks = true
	names := make([]string, len(ts))
	for i, t := range ts {
		names[i] = t.desc.Name
		u.sets = append(u.sets, t.sets...)
		u.needs.list = append(u.needs.list, t.needs.list...)
		u.needs.sets = append(u.needs.sets, t.needs.sets...)
	}
	u.desc.Name = strings.Join(names, " with ")
	return u
}

// combined is a Store over the blocks of several, of which it answers Series alone.
type combined struct {
	store.Store
	of []*target
}

// Series implements store.Store: if one of them fails, all do.
func (c combined) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	cursors := make([]store.Cursor, 0, len(c.of))
	for _, t := range c.of {
		own := *req
		own.Matchers = t.matchers
		cur, err := t.store.Series(ctx, &own)
		if err != nil {
			errs := []error{fmt.Errorf("%s: %w", t.desc.Name, err)}
			for _, open := range cursors {
				errs = append(errs, open.Close())
			}
			return nil, errors.Join(errs...)
		}
		cursors = append(cursors, cur)
	}
	return store.Merge(cursors), nil
}
