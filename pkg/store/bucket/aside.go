package bucket

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// SetAside is a block of the bucket that is not served though no filter took it out, or of which a part can't be.
type SetAside struct {
	ID ulid.ULID
	// Meta is nil if the metadata could not be read as far as its labels and times.
	Meta  *block.Meta
	Cause error
}

// notServed lists the blocks that a look at the bucket could not make use of, sorted by id.
func (s *Store) notServed(ctx context.Context, v block.View, notLoaded map[ulid.ULID]error) (out []SetAside) {
	known := s.blocks.Load().aside
	for id, err := range notLoaded {
		out = append(out, SetAside{id, v.Metas[id], err})
		if isDamage(s.bkt, err) && !slices.ContainsFunc(known, func(a SetAside) bool { return a.ID == id }) {
			s.metrics.damaged.WithLabelValues(string(damagedHeader)).Inc()
		}
	}
	// Of metadata that can't be used the labels and times may be known, so whether the block would be served.
	unusable := map[ulid.ULID]*block.Meta{}
	for id, err := range v.Partial {
		if m := block.MetaOf(err); m != nil && m.ULID == id {
			unusable[id] = m
		}
	}
	others := map[ulid.ULID]bool{}
	for _, f := range []block.Filter{block.TimePartition(s.cfg.MinTime, s.cfg.MaxTime), block.LabelShard(s.cfg.Selector)} {
		_ = f.Filter(ctx, unusable, func(id ulid.ULID, _ block.State) { others[id] = true }) // these never fail
	}
	for id, err := range v.Partial {
		if !others[id] {
			out = append(out, SetAside{id, unusable[id], err})
		}
	}
	for id, err := range v.Failed {
		if v.Metas[id] == nil {
			out = append(out, SetAside{id, nil, err})
		}
	}
	slices.SortFunc(out, func(a, b SetAside) int { return a.ID.Compare(b.ID) })
	return out
}

// SetAside returns the blocks that the last look at the bucket set aside, with the cause, and those that turned out to be
// damaged when they were read in the last hour. The former are tried again at each look, the latter after a minute if
// nothing could be read of them.
func (s *Store) SetAside() []SetAside {
	set := s.blocks.Load()
	out := slices.Clone(set.aside)
	for id, b := range set.byID {
		if d := b.damage.Load(); d != nil && time.Since(d.at) < damageListed {
			out = append(out, SetAside{id, b.meta, fmt.Errorf("%s: %w", d.part, d.cause)})
		}
	}
	slices.SortFunc(out, func(a, b SetAside) int { return a.ID.Compare(b.ID) })
	return out
}

// CloseIdle closes index headers that nobody uses, until the context ends.
func (s *Store) CloseIdle(ctx context.Context) error { return s.headers.Run(ctx) }
