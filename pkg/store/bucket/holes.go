package bucket

import (
	"fmt"
	"math"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
)

// hole is a block that is in the bucket and not served, because something is wrong with it.
type hole struct {
	SetAside
	labels labels.Labels
	// servedAt is the resolution in ms up to which others have to be read for its data, which are made from the same
	// sources; notServed if nobody has them all.
	servedAt int64
}

const notServed = math.MaxInt64

// gapsNamed is how many blocks that are set aside an answer names one by one.
const gapsNamed = 10

// setAside notes the blocks that a look at the bucket could not make use of. What they hold is described as if it were
// served, so that whoever wants it is told that it is missing; the proof of what is served does not name them.
func (s *blockSet) setAside(aside []SetAside) {
	s.aside = aside
	for _, a := range aside {
		if a.Meta == nil {
			continue // when it is from is not known
		}
		h := hole{SetAside: a, labels: a.Meta.Labels(), servedAt: notServed}
		if i := slices.IndexFunc(s.groups, func(g *blockGroup) bool { return labels.Equal(g.labels, h.labels) }); i >= 0 {
			h.servedAt = s.groups[i].serves(a.Meta)
		}
		s.holes = append(s.holes, h)
		if h.servedAt == notServed {
			s.describe(&h)
		}
	}
}

// describe adds a block that is not served to the description.
func (s *blockSet) describe(h *hole) {
	d, m := &s.desc, h.Meta
	d.MinTime, d.MaxTime = min(d.MinTime, m.MinTime), max(d.MaxTime, m.MaxTime)
	if i, found := slices.BinarySearchFunc(d.LabelSets, h.labels, labels.Compare); !found {
		d.LabelSets = slices.Insert(d.LabelSets, i, h.labels)
	}
	if !h.labels.IsEmpty() {
		d.TSDBs = append(d.TSDBs, store.TSDB{Labels: h.labels, MinTime: m.MinTime, MaxTime: m.MaxTime})
	}
}

// serves returns up to which resolution in ms the group's blocks have to be read for what another block of its labels
// holds; notServed if they do not hold all of it.
func (g *blockGroup) serves(m *block.Meta) int64 {
	missing := map[ulid.ULID]bool{}
	for _, id := range sourcesOf(m) {
		missing[id] = true
	}
	for _, l := range slices.Backward(g.tiers) {
		for _, b := range l.blocks {
			for _, id := range sourcesOf(b.meta) {
				delete(missing, id)
			}
		}
		if len(missing) == 0 {
			return l.resolution
		}
	}
	return notServed
}

// sourcesOf returns what a block was made from. One that names no sources is its own.
func sourcesOf(m *block.Meta) []ulid.ULID {
	if len(m.Compaction.Sources) == 0 {
		return []ulid.ULID{m.ULID}
	}
	return m.Compaction.Sources
}

// gaps returns what a request misses, or fails it where it wants all or nothing. coarser is whether it takes blocks
// coarser than it asks for.
func (s *blockSet) gaps(req *store.SeriesRequest, coarser bool) (ws store.Warnings, _ error) {
	var more *store.Gap
	n := 0
	for i := range s.holes {
		h := &s.holes[i]
		m := h.Meta
		if m.MaxTime <= req.MinTime || m.MinTime > req.MaxTime || !matchesBlock(req.BlockMatchers, m.ULID) {
			continue
		}
		if !coarser && m.Resolution() > req.MaxResolution || h.servedAt <= req.MaxResolution || coarser && h.servedAt != notServed {
			continue // it would not be read, or others are
		}
		if _, ok := store.MatchExternal(h.labels, req.Matchers); !ok {
			continue
		}
		gap := &store.Gap{
			Store: "block " + m.ULID.String(), LabelSets: []labels.Labels{h.labels}, MinTime: m.MinTime, MaxTime: m.MaxTime,
			Err: fmt.Errorf("the block is set aside: %w", h.Cause),
		}
		if req.PartialResponse == store.Abort {
			return nil, &store.Error{Kind: store.KindAborted, Err: gap}
		}
		if n++; n <= gapsNamed {
			ws = append(ws, gap)
			continue
		}
		if more == nil {
			more = gap
			ws = append(ws, more)
		}
		more.Store = fmt.Sprintf("%d more blocks", n-gapsNamed)
		more.MinTime, more.MaxTime = min(more.MinTime, m.MinTime), max(more.MaxTime, m.MaxTime)
		if !slices.ContainsFunc(more.LabelSets, func(ls labels.Labels) bool { return labels.Equal(ls, h.labels) }) {
			more.LabelSets = append(more.LabelSets, h.labels)
		}
	}
	return ws, nil
}
