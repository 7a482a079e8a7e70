package bucket

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
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
	lists   lists
	matcher *labels.Matcher // nil: all series
}

const (
	// A range is two offsets.
	rangeBytes = 16
	// How many label values are looked at between two looks at the context and the budget.
	scanStep = 4096
)

// plan finds the posting lists that matchers need. It reads the index header only. No groups means that nothing can
// match. It need not go on once it is sure that there are more series than enough; 0 is no such number.
func plan(ctx context.Context, h *indexheader.Reader, ms []*labels.Matcher, enough int64, mem *hold) ([]group, error) {
	var groups []group
	added := false
	ms = cheapestFirst(h, ms)
	for i, m := range ms {
		most := int64(math.MaxInt64) // of this matcher
		if i+1 == len(ms) && enough > 0 {
			most = enough + leftOut(groups, seriesOf(h))
		}
		// A matcher that matches the empty value selects the series without the label too, which no list names. So
		// it is turned around: it rejects the series whose value it does not match.
		g := group{add: !m.Matches(""), matcher: m}
		want := func(v string) bool { return m.Matches(v) == g.add }
		if vs, ok := literals(m); ok {
			slices.Sort(vs)
			for _, v := range slices.Compact(vs) {
				if rg, ok := h.Postings(m.Name, v); ok && v != "" && want(v) {
					if err := g.lists.add(rg, mem); err != nil {
						return nil, err
					}
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
					if g.add && g.lists.series() > most {
						return false
					}
				}
				if v != "" && want(v) {
					err = g.lists.add(rg, mem)
				}
				return err == nil
			})
			if err != nil {
				return nil, err
			}
		}
		if g.lists.n == 0 {
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
		g := group{add: true}
		if err := g.lists.add(all, mem); err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// seriesOf returns how many series an index has.
func seriesOf(h *indexheader.Reader) int64 {
	rg, _ := h.AllPostings()
	return max(0, rg.Len()-postingListBytes) / postingBytes
}

// leftOut returns how many of all series the groups leave out, those that several leave out counted in each.
func leftOut(groups []group, all int64) (n int64) {
	for i := range groups {
		if g := &groups[i]; g.add {
			n += all - g.lists.series()
		} else {
			n += g.lists.series()
		}
	}
	return n
}

// cheapestFirst leaves out the matchers that match everything, and puts those for which many label values are looked
// through behind the others: what these select may be nothing.
func cheapestFirst(h *indexheader.Reader, ms []*labels.Matcher) []*labels.Matcher {
	type priced struct {
		m     *labels.Matcher
		price int
	}
	all := make([]priced, 0, len(ms))
	for _, m := range ms {
		if m.Value == ".*" && m.Type == labels.MatchRegexp {
			continue
		}
		p := priced{m: m}
		if _, ok := literals(m); !ok {
			p.price = h.CountValues(m.Name)
		}
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b priced) int { return cmp.Compare(a.price, b.price) })
	out := make([]*labels.Matcher, len(all))
	for i, p := range all {
		out[i] = p.m
	}
	return out
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

// lookup is what it takes to find the series of a block that match.
type lookup struct {
	groups []group
	unread []*labels.Matcher // whose lists are left unread
	least  int64             // so many series will match at least
}

// lookup plans to find series. The memory of the plan is charged to mem.
func (b *loaded) lookup(ctx context.Context, ms []*labels.Matcher, enough int64, mem *hold, s *share) (l lookup, err error) {
	groups, err := plan(ctx, b.header, ms, enough, mem)
	if err == nil {
		err = b.header.Err()
	}
	if err != nil {
		return l, err
	}
	for i := range groups {
		if g := &groups[i]; g.matcher != nil {
			s.weigh(g.matcher.String(), g.lists.bytes)
		}
	}
	if len(groups) > 0 {
		all := seriesOf(b.header)
		l.least = max(0, all-leftOut(groups, all))
	}
	l.groups, l.unread = b.lazily(groups)
	return l, nil
}

// lists is how many posting lists are read.
func (l lookup) lists() (n int) {
	for i := range l.groups {
		n += l.groups[i].lists.n
	}
	return n
}

// A reference in a list of refs takes so much, as a rule.
const refBytes = 2

// memory is what expand will take: lasting is the references that it returns, passing what it holds meanwhile.
func (l lookup) memory() (lasting, passing int64) {
	least := int64(-1)
	for i := range l.groups {
		g := &l.groups[i]
		passing += g.lists.memory()
		if n := g.lists.series(); g.add && (least < 0 || n < least) {
			least = n
		}
	}
	return max(least, 0)*refBytes + slabBytesMin, passing
}

// expand returns the references of the series of a block that match. What they take is charged to mem; the lists they
// come from are held only meanwhile.
func (b *loaded) expand(ctx context.Context, l lookup, mem *hold, acc *account) (none refs, _ error) {
	if len(l.groups) == 0 {
		return none, nil
	}
	scratch := &hold{budget: mem.budget}
	defer scratch.free()
	bytes := &arena{budget: mem.budget}
	defer bytes.free()
	data, err := b.fetchPostings(ctx, l.groups, bytes, scratch, acc)
	if err != nil {
		return none, fmt.Errorf("fetch and expand postings: %w", err)
	}
	var selected, rejected []index.Postings
	for i := range l.groups {
		g := &l.groups[i]
		var p index.Postings
		if g.lists.joined {
			if p, err = b.union(ctx, &g.lists, scratch, acc); err != nil {
				return none, fmt.Errorf("fetch and expand postings: %w", err)
			}
		} else {
			ps := make([]index.Postings, len(g.lists.ranges))
			for i, rg := range g.lists.ranges {
				if ps[i], err = decodePostings(data.of(rg)); err != nil {
					return none, fmt.Errorf("fetch and expand postings: %s: list at %d: %w", b.object(postingsData, acc).name, rg.Start, err)
				}
			}
			p = index.Merge(ctx, ps...)
		}
		if g.add {
			selected = append(selected, p)
		} else {
			rejected = append(rejected, p)
		}
	}
	p := index.Intersect(selected...)
	if len(rejected) > 0 {
		p = index.Without(p, index.Merge(ctx, rejected...))
	}
	found := refs{mem: mem}
	for p.Next() {
		if err := found.append(uint32(p.At())); err != nil {
			return none, err
		}
		if n := found.n; n%scanStep == 0 {
			if ctx.Err() != nil {
				return none, context.Cause(ctx)
			}
			if err := acc.addSeries(scanStep); err != nil {
				return none, err
			}
		}
	}
	if err := p.Err(); err != nil {
		return none, fmt.Errorf("expand postings: %w", err)
	}
	return found.rewound(), acc.addSeries(found.n % scanStep)
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

// fetchPostings reads the lists of all groups that are not joined.
func (b *loaded) fetchPostings(ctx context.Context, groups []group, mem *arena, scratch *hold, acc *account) (postingData, error) {
	var pieces []piece
	for _, g := range groups {
		if g.lists.joined {
			continue
		}
		if err := scratch.reserve(int64(len(g.lists.ranges)) * listBytes); err != nil {
			return postingData{}, err
		}
		for _, rg := range g.lists.ranges {
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
