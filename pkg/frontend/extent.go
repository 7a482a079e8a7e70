package frontend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/koios-metrics/koios/pkg/frontend/matrix"
)

// extent is what is known of a query from start to end, in ms, both of them steps and inclusive.
type extent struct {
	start, end int64
	answer     *matrix.Answer
}

// annotated extents are used whole or not at all, since nobody knows which of their steps an annotation is about.
func (e *extent) annotated() bool { return len(e.answer.Warnings)+len(e.answer.Infos) > 0 }

// entryVersion is the first byte of an entry; another one is an entry of another program.
const entryVersion = 2

// entryHead is the version and the xxhash64 of what follows, big endian.
const entryHead = 1 + 8

// errEntry is wrapped by errors about entries that can't be read.
var errEntry = errors.New("not an entry of the results cache")

// encodeExtents makes an entry: its head, and for each extent its start, end and length, and its answer as matrix keeps
// it.
func encodeExtents(es []extent) []byte {
	size := entryHead
	for i := range es {
		size += 3*binary.MaxVarintLen64 + es[i].answer.KeepBytes()
	}
	// In memory it stays for long, so it is made once and takes no more than it needs.
	out := make([]byte, entryHead, size)
	out[0] = entryVersion
	for i := range es {
		out = binary.AppendVarint(out, es[i].start)
		out = binary.AppendVarint(out, es[i].end)
		// The length comes before the answer and is known after it: it has a fixed place.
		at := len(out)
		out = es[i].answer.Keep(append(out, 0, 0, 0, 0, 0, 0, 0, 0))
		binary.BigEndian.PutUint64(out[at:], uint64(len(out)-at-8))
	}
	binary.BigEndian.PutUint64(out[1:], xxhash.Sum64(out[entryHead:]))
	return out
}

// decodeExtents reads an entry, whose bytes the extents share. The checksum stands for what is not looked at: the points.
func decodeExtents(b []byte, step int64) ([]extent, error) {
	if len(b) < entryHead || b[0] != entryVersion {
		return nil, fmt.Errorf("%w: unknown version", errEntry)
	}
	if binary.BigEndian.Uint64(b[1:]) != xxhash.Sum64(b[entryHead:]) {
		return nil, fmt.Errorf("%w: damaged", errEntry)
	}
	var es []extent
	for b = b[entryHead:]; len(b) > 0; {
		var e extent
		var n, m int
		e.start, n = binary.Varint(b)
		if n > 0 {
			e.end, m = binary.Varint(b[n:])
		}
		if m <= 0 || len(b) < n+m+8 {
			return nil, fmt.Errorf("%w: cut off", errEntry)
		}
		size := binary.BigEndian.Uint64(b[n+m:])
		b = b[n+m+8:]
		if size > uint64(len(b)) {
			return nil, fmt.Errorf("%w: cut off", errEntry)
		}
		if e.end < e.start || (e.end-e.start)%step != 0 || len(es) > 0 && e.start <= es[len(es)-1].end {
			return nil, fmt.Errorf("%w: an extent from %d to %d at a step of %d", errEntry, e.start, e.end, step)
		}
		var err error
		if e.answer, err = matrix.Kept(b[:size]); err != nil {
			return nil, fmt.Errorf("%w: %w", errEntry, err)
		}
		b = b[size:]
		es = append(es, e)
	}
	return es, nil
}

// span is a time from start to end in ms, both inclusive.
type span struct{ start, end int64 }

// cover chooses the extents that can be used from start to end, cut to it, and the gaps between them.
func cover(es []extent, start, end, step int64) (use []extent, gaps []span) {
	at := start
	for _, e := range es {
		if e.end < at || e.start > end {
			continue
		}
		if e.annotated() && (e.start < at || e.end > end) {
			continue
		}
		from, to := max(e.start, at), min(e.end, end)
		if (from-start)%step != 0 {
			continue // another grid: it has another key, so this is a damaged entry
		}
		if from > at {
			gaps = append(gaps, span{at, from - step})
		}
		use = append(use, extent{from, to, e.answer.Between(from, to)})
		at = to + step
	}
	if at <= end {
		gaps = append(gaps, span{at, end})
	}
	return use, gaps
}

// addExtents adds new extents to old ones. Where two overlap the new one stays, being later; neighbours
// become one.
func addExtents(old, more []extent, step int64) []extent {
	var all []extent
	for _, e := range old {
		if !slices.ContainsFunc(more, func(m extent) bool { return m.start <= e.end && e.start <= m.end }) {
			all = append(all, e)
			continue
		}
		if e.annotated() {
			continue
		}
		// What is left of it on both sides.
		rest := []extent{e}
		for _, m := range more {
			var left []extent
			for _, r := range rest {
				if m.start > r.end || r.start > m.end {
					left = append(left, r)
					continue
				}
				if r.start < m.start {
					left = append(left, extent{r.start, m.start - step, r.answer.Between(r.start, m.start-step)})
				}
				if r.end > m.end {
					left = append(left, extent{m.end + step, r.end, r.answer.Between(m.end+step, r.end)})
				}
			}
			rest = left
		}
		all = append(all, rest...)
	}
	all = append(all, more...)
	slices.SortFunc(all, func(a, b extent) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	merged := all[:0]
	for _, e := range all {
		if n := len(merged); n > 0 && merged[n-1].end+step == e.start && !merged[n-1].annotated() && !e.annotated() {
			merged[n-1] = extent{merged[n-1].start, e.end, matrix.Join(merged[n-1].answer, e.answer)}
			continue
		}
		merged = append(merged, e)
	}
	return merged
}
