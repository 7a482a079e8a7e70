package bucket

import (
	"context"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// SetAside is a block of the bucket that is not served though no filter took it out.
type SetAside struct {
	ID ulid.ULID
	// Meta is nil if the metadata could not be read.
	Meta  *block.Meta
	Cause error
}

// setAside lists the blocks that a look at the bucket could not make use of, sorted by id.
func setAside(v block.View, notLoaded map[ulid.ULID]error) (out []SetAside) {
	for id, err := range notLoaded {
		out = append(out, SetAside{id, v.Metas[id], err})
	}
	for id, err := range v.Partial {
		out = append(out, SetAside{id, nil, err})
	}
	for id, err := range v.Failed {
		if v.Metas[id] == nil {
			out = append(out, SetAside{id, nil, err})
		}
	}
	slices.SortFunc(out, func(a, b SetAside) int { return a.ID.Compare(b.ID) })
	return out
}

// SetAside returns the blocks that the last look at the bucket set aside, with the cause. They are tried again at each
// look.
func (s *Store) SetAside() []SetAside { return s.blocks.Load().aside }

// CloseIdle closes index headers that nobody uses, until the context ends.
func (s *Store) CloseIdle(ctx context.Context) error { return s.headers.Run(ctx) }
