package bucket

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/koios-metrics/koios/pkg/block/indexheader"
)

// group is what one matcher asks of the posting lists: the series in any of them are those it selects (add), or those
// it rejects.
type group struct {
	add     bool
	lists   []indexheader.Range
	matcher *labels.Matcher // nil: all series
}

const (
	// A range is two offsets.
	rangeBytes = 16
	// How many label values are looked at between two looks at the context and the budget.
	scanStep = 4096
)

// plan finds the posting lists that matchers need. It reads the index header only. No groups means that nothing can
// match.
func plan(ctx context.Context, h *indexheader.Reader, ms []*labels.Matcher, mem *hold) ([]group, error) {
	var groups []group
	added := false
	for _, m := range ms {
		// A matcher that matches the empty value selects the series without the label too, which no list names. So
		// it is turned around: it rejects the series whose value it does not match.
		g := group{add: !m.Matches(""), matcher: m}
		want := func(v string) bool { return m.Matches(v) == g.add }
		if m.Value == ".*" && m.Type == labels.MatchRegexp {
			continue
		}
		if vs, ok := literals(m); ok {
			slices.Sort(vs)
			for _, v := range slices.Compact(vs) {
				if rg, ok := h.Postings(m.Name, v); ok && v != "" && want(v) {
					g.lists = append(g.lists, rg)
				}
			}
		} else {
			var err error
			n := 0
			h.Values(m.Name, func(v string, rg indexheader.Range) bool {
				if n++; n%scanStep == 0 {
					if err = ctx.Err(); err != nil {
						err = context.Cause(ctx)
						return false
					}
				}
				if v != "" && want(v) {
					if len(g.lists)%scanStep == 0 {
						if err = mem.reserve(scanStep * rangeBytes); err != nil {
							return false
						}
					}
					g.lists = append(g.lists, rg)
				}
				return true
			})
			if err != nil {
				return nil, err
			}
		}
		if len(g.lists) == 0 {
			if g.add {
				return nil, nil
			}
			continue
		}
		added = added || g.add
		groups = append(groups, g)
	}
	if !added {
		all, ok := h.AllPostings()
		if !ok {
			return nil, nil
		}
		groups = append(groups, group{add: true, lists: []indexheader.Range{all}})
	}
	return groups, nil
}

// literals returns the only values for which a matcher does not answer as it does for all others.
func literals(m *labels.Matcher) ([]string, bool) {
	switch m.Type {
	case labels.MatchEqual, labels.MatchNotEqual:
		// name="" and name!="" are about all values.
		return []string{m.Value}, m.Value != ""
	default:
		vs := m.SetMatches()
		// With "" among the alternatives the other values are all but the alternatives.
		return slices.Clone(vs), len(vs) > 0 && !slices.Contains(vs, "")
	}
}

// expand returns the references of the series of a block that match, in order, and nil if there are none. What the
// references take is charged to mem; the lists they come from are held only meanwhile.
func (b *loaded) expand(ctx context.Context, ms []*labels.Matcher, mem *hold, acc *account) (refs []uint32, unread []*labels.Matcher, _ error) {
	if !b.cache.keeps(expandedItem) {
		refs, unread, _, err := b.expandLists(ctx, ms, mem, acc)
		return refs, unread, err
	}
	q := b.question(ms)
	if refs, found, err := b.cachedExpanded(ctx, q, mem, acc); found || err != nil {
		return refs, nil, err
	}
	refs, unread, lists, err := b.expandLists(ctx, ms, mem, acc)
	// A single list is kept as it is.
	if err == nil && len(unread) == 0 && lists > 1 {
		b.keepExpanded(q, refs, acc)
	}
	return refs, unread, err
}

// expandLists is expand by reading posting lists, and returns how many.
func (b *loaded) expandLists(ctx context.Context, ms []*labels.Matcher, mem *hold, acc *account) (_ []uint32, unread []*labels.Matcher, read int, _ error) {
	scratch := &hold{budget: mem.budget}
	defer scratch.free()
	lists := &arena{budget: mem.budget}
	defer lists.free()

	groups, err := plan(ctx, b.header, ms, scratch)
	if err != nil || len(groups) == 0 {
		return nil, nil, 0, err
	}
	for i := range groups {
		if g := &groups[i]; g.matcher != nil {
			acc.memory.weigh(g.matcher.String(), g.bytes())
		}
	}
	groups, unread = b.lazily(groups)
	data, err := b.fetchPostings(ctx, groups, lists, scratch, acc)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("fetch and expand postings: %w", err)
	}
	var selected, rejected []index.Postings
	for _, g := range groups {
		read += len(g.lists)
		ps := make([]index.Postings, len(g.lists))
		for i, rg := range g.lists {
			if ps[i], err = decodePostings(data.of(rg)); err != nil {
				return nil, nil, 0, fmt.Errorf("fetch and expand postings: %s: list at %d: %w", b.object(postingsData, acc).name, rg.Start, err)
			}
		}
		if p := index.Merge(ctx, ps...); g.add {
			selected = append(selected, p)
		} else {
			rejected = append(rejected, p)
		}
	}
	p := index.Intersect(selected...)
	if len(rejected) > 0 {
		p = index.Without(p, index.Merge(ctx, rejected...))
	}
	var refs []uint32
	for p.Next() {
		if len(refs) == cap(refs) {
			if ctx.Err() != nil {
				return nil, nil, 0, context.Cause(ctx)
			}
			grow := max(cap(refs), 256)
			if err := mem.reserve(int64(grow) * 4); err != nil {
				return nil, nil, 0, err
			}
			refs = slices.Grow(refs, grow)[: len(refs) : len(refs)+grow]
		}
		refs = append(refs, uint32(p.At()))
		if n := len(refs); n%scanStep == 0 {
			if err := acc.addSeries(scanStep); err != nil {
				return nil, nil, 0, err
			}
		}
	}
	if err := p.Err(); err != nil {
		return nil, nil, 0, fmt.Errorf("expand postings: %w", err)
	}
	return refs, unread, read, acc.addSeries(len(refs) % scanStep)
}

// postingData is the bytes of posting lists, by where they start in the index.
type postingData struct {
	starts []int64
	bytes  [][]byte
}

func (d postingData) of(rg indexheader.Range) []byte {
	i, _ := slices.BinarySearch(d.starts, rg.Start)
	return d.bytes[i]
}

// fetchPostings reads the lists of all groups.
func (b *loaded) fetchPostings(ctx context.Context, groups []group, mem *arena, scratch *hold, acc *account) (postingData, error) {
	var pieces []piece
	for _, g := range groups {
		// A piece, its start again, a slice, and the iterator over it.
		if err := scratch.reserve(int64(len(g.lists)) * 128); err != nil {
			return postingData{}, err
		}
		for _, rg := range g.lists {
			if rg.Len() < 12 {
				return postingData{}, corruptf("a posting list of %d bytes at %d", rg.Len(), rg.Start)
			}
			pieces = append(pieces, piece{rg.Start, rg.Len()})
		}
	}
	slices.SortFunc(pieces, func(a, b piece) int { return int(min(max(a.off-b.off, -1), 1)) })
	pieces = slices.CompactFunc(pieces, func(a, b piece) bool { return a.off == b.off })
	d := postingData{starts: make([]int64, len(pieces)), bytes: make([][]byte, len(pieces))}
	total := int64(0)
	var missing []piece
	var places []int // of missing among pieces
	keys := make([]cacheKey, len(pieces))
	for i, p := range pieces {
		keys[i] = cacheKey{postingsItem, b.meta.ULID, uint64(p.off)}
	}
	cached := b.cache.fetch(ctx, keys, acc.tenant)
	for i, p := range pieces {
		d.starts[i] = p.off
		total += p.length
		if cached[i].data != nil && (!cached[i].remote || b.admitCached(cached[i].data, p.length, scratch)) {
			d.bytes[i] = cached[i].data
			continue
		}
		missing = append(missing, p)
		places = append(places, i)
	}
	acc.touch(postingsData, len(pieces), len(missing), total)
	b.cache.count(postingsItem, acc.tenant, len(pieces), len(pieces)-len(missing))
	if len(missing) == 0 {
		return d, nil
	}
	err := b.object(postingsData, acc).read(ctx, missing, mem, func(i int, buf []byte) (int64, error) {
		if n := missing[i].length; int64(len(buf)) < n {
			return n, nil
		}
		d.bytes[places[i]] = buf[:missing[i].length:missing[i].length]
		return 0, nil
	})
	if err != nil {
		return d, err
	}
	for i, p := range missing {
		// Only what is well is kept, so that damage is looked at again.
		if buf := d.bytes[places[i]]; b.cache.wants(postingsItem, len(buf)) {
			if _, err := decodePostings(buf); err == nil {
				b.cache.keep(cacheKey{postingsItem, b.meta.ULID, uint64(p.off)}, slices.Clone(buf), acc.tenant)
			}
		}
	}
	return d, nil
}

// admitCached tells whether a list from a cache in another process is what the index has, as far as that can be seen,
// and whether there is memory for it.
func (b *loaded) admitCached(data []byte, length int64, scratch *hold) bool {
	if int64(len(data)) != length || scratch.reserve(length) != nil {
		return false
	}
	_, err := decodePostings(data)
	return err == nil
}

// decodePostings reads a posting list: its length, the number of series, a reference for each, and a checksum.
func decodePostings(b []byte) (index.Postings, error) {
	n := int64(binary.BigEndian.Uint32(b))
	if n > int64(len(b))-8 || n < 4 {
		return nil, corruptf("it says it has %d bytes, there are %d", n, len(b)-8)
	}
	content := b[4 : 4+n]
	if crc32.Checksum(content, castagnoli) != binary.BigEndian.Uint32(b[4+n:]) {
		return nil, corruptf("its checksum is wrong")
	}
	_, p, err := index.DecodePostingsRaw(encoding.Decbuf{B: content})
	if err != nil {
		return nil, corruptf("%v", err)
	}
	return p, nil
}
