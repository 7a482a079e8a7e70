package bucket

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// The series that matchers select in a block are kept as
//
//	the length of the matchers' text, uvarint | that text | number of series, uvarint | for each, by how much its
//	reference is more than the one before, uvarint
//
// The text says what was asked: two that share a hash are not taken for each other.

// question is what a set of matchers asks of a block.
type question struct {
	key  cacheKey
	text string
}

func (b *loaded) question(ms []*labels.Matcher) question {
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = m.String() // quoted, so that no line ends within
	}
	slices.Sort(texts)
	text := strings.Join(slices.Compact(texts), "\n")
	return question{cacheKey{expandedItem, b.meta.ULID, xxhash.Sum64String(text)}, text}
}

// cachedExpanded returns the references that are kept for a question, as expand does.
func (b *loaded) cachedExpanded(ctx context.Context, q question, mem *hold, acc *account) (refs []uint32, found bool, err error) {
	defer func() {
		n := 0
		if found {
			n = 1
		}
		b.cache.count(expandedItem, acc.tenant, 1, n)
	}()
	f := b.cache.fetch(ctx, []cacheKey{q.key}, acc.tenant)[0]
	if f.data == nil {
		return nil, false, nil
	}
	if f.remote {
		scratch := &hold{budget: mem.budget}
		defer scratch.free()
		if scratch.reserve(int64(len(f.data))) != nil {
			return nil, false, nil
		}
	}
	n, deltas, ok := cutExpanded(f.data, q.text)
	if !ok {
		return nil, false, nil
	}
	acc.memory.weigh(q.text, int64(n)*4)
	if err := mem.reserve(int64(n) * 4); err != nil {
		return nil, false, err
	}
	refs = make([]uint32, n)
	if !decodeRefs(refs, deltas) {
		mem.budget.Release(int64(n) * 4)
		mem.reserved -= int64(n) * 4
		return nil, false, nil
	}
	if n == 0 {
		refs = nil
	}
	return refs, true, acc.addSeries(n)
}

// keepExpanded keeps the answer to a question.
func (b *loaded) keepExpanded(q question, refs []uint32, acc *account) {
	size := 2*binary.MaxVarintLen64 + len(q.text)
	last := uint32(0)
	for _, ref := range refs {
		size += uvarintLen(uint64(ref - last))
		last = ref
	}
	if !b.cache.wants(expandedItem, size) {
		return
	}
	data := binary.AppendUvarint(make([]byte, 0, size), uint64(len(q.text)))
	data = append(data, q.text...)
	data = binary.AppendUvarint(data, uint64(len(refs)))
	last = 0
	for _, ref := range refs {
		data = binary.AppendUvarint(data, uint64(ref-last))
		last = ref
	}
	b.cache.keep(q.key, data, acc.tenant)
}

// cutExpanded returns the number of references and where they are, unless the data is of another question.
func cutExpanded(data []byte, text string) (n int, deltas []byte, ok bool) {
	length, k := binary.Uvarint(data)
	if k <= 0 || length != uint64(len(text)) || uint64(len(data)-k) < length || string(data[k:k+len(text)]) != text {
		return 0, nil, false
	}
	data = data[k+len(text):]
	count, k := binary.Uvarint(data)
	if k <= 0 || count > uint64(len(data)-k) { // each takes a byte at least
		return 0, nil, false
	}
	return int(count), data[k:], true
}

// decodeRefs tells whether there are as many references as are wanted, each more than the one before.
func decodeRefs(refs []uint32, deltas []byte) bool {
	last := uint64(0)
	for i := range refs {
		d, k := binary.Uvarint(deltas)
		if k <= 0 || d == 0 || d > 1<<32-1-last {
			return false
		}
		last += d
		refs[i], deltas = uint32(last), deltas[k:]
	}
	return len(deltas) == 0
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
