package bucket

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"

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

// cachedExpanded returns the references that are kept for a question, as expand does. What comes from outside is charged
// to mem; what is in memory here stays the cache's.
func (b *loaded) cachedExpanded(ctx context.Context, q question, mem *hold, acc *account) (_ refs, found bool, err error) {
	defer func() {
		n := 0
		if found {
			n = 1
		}
		b.cache.count(expandedItem, acc.tenant, 1, n)
	}()
	f := b.cache.fetch(ctx, []cacheKey{q.key}, acc.tenant)[0]
	if f.data == nil {
		return refs{}, false, nil
	}
	start, m := time.Now(), b.cache.metrics
	n, deltas, ok := cutExpanded(f.data, q.text)
	damaged := ok && f.remote && !ascending(n, deltas)
	m.packed.WithLabelValues(unpacking, acc.tenant).Inc()
	m.packSeconds.WithLabelValues(unpacking, acc.tenant).Add(time.Since(start).Seconds())
	if damaged {
		m.packFailures.WithLabelValues(unpacking, acc.tenant).Inc()
	}
	if !ok || damaged || f.remote && mem.reserve(int64(len(f.data))) != nil {
		return refs{}, false, nil
	}
	return refs{b: deltas, n: n}, true, acc.addSeries(n)
}

// keepExpanded keeps the answer to a question.
func (b *loaded) keepExpanded(q question, r refs, acc *account) {
	size := 2*binary.MaxVarintLen64 + len(q.text) + len(r.b)
	if !b.cache.wants(expandedItem, size) {
		return
	}
	start, m := time.Now(), b.cache.metrics
	data := binary.AppendUvarint(make([]byte, 0, size), uint64(len(q.text)))
	data = append(data, q.text...)
	data = binary.AppendUvarint(data, uint64(r.n))
	data = append(data, r.b...)
	m.packed.WithLabelValues(packing, acc.tenant).Inc()
	m.packSeconds.WithLabelValues(packing, acc.tenant).Add(time.Since(start).Seconds())
	m.plainBytes.WithLabelValues(acc.tenant).Add(float64(r.n * postingBytes))
	m.packedBytes.WithLabelValues(acc.tenant).Add(float64(len(r.b)))
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

// ascending tells whether there are so many references, each more than the one before, and nothing else.
func ascending(n int, deltas []byte) bool {
	last := uint64(0)
	for range n {
		d, k := binary.Uvarint(deltas)
		if k <= 0 || d == 0 || d > 1<<32-1-last {
			return false
		}
		last, deltas = last+d, deltas[k:]
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
