package bucket

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"
)

// Index entries of series are kept by pages: those that begin in the same few bytes of the index, as far as they were
// read, are one thing to keep. A page is made of
//
//	where the entry begins in the page, uvarint | the entry as it stands in the index: length, content, checksum
//
// for each entry, in order. So a thousand neighbours cost a dozen look-ups and not a thousand.
const pageBytes = 16 << 10

type page []byte

// next cuts the first entry off a page. It is not ok if there is none, or what is there is none.
func (p page) next() (at int64, raw []byte, rest page, ok bool) {
	off, k := binary.Uvarint(p)
	if k <= 0 || off >= pageBytes {
		return 0, nil, nil, false
	}
	b := p[k:]
	length, n := binary.Uvarint(b)
	if n <= 0 || length > entryBytesMax || int64(len(b)) < int64(n)+int64(length)+4 {
		return 0, nil, nil, false
	}
	end := n + int(length) + 4
	return int64(off), b[:end:end], b[end:], true
}

// contentOf returns what an entry is about, and whether it is well if that is to be checked.
func contentOf(raw []byte, check bool) ([]byte, bool) {
	_, n := binary.Uvarint(raw)
	content, sum := raw[n:len(raw)-4:len(raw)-4], raw[len(raw)-4:]
	return content, !check || crc32.Checksum(content, castagnoli) == binary.BigEndian.Uint32(sum)
}

// entryPages are the pages of a batch of series.
type entryPages struct {
	keys []cacheKey
	had  []fetched
}

// cachedEntries fills in the contents of entries that are kept. Pieces are sorted by offset.
func (b *loaded) cachedEntries(ctx context.Context, pieces []piece, contents [][]byte, mem *hold, acc *account) (entryPages, error) {
	var ps entryPages
	if !b.cache.keeps(seriesItem) {
		return ps, nil
	}
	for _, p := range pieces {
		at := uint64(p.off / pageBytes)
		if n := len(ps.keys); n == 0 || ps.keys[n-1].at != at {
			ps.keys = append(ps.keys, cacheKey{seriesItem, b.meta.ULID, at})
		}
	}
	ps.had = b.cache.fetch(ctx, ps.keys, acc.tenant)
	found, i := 0, 0
	for k, f := range ps.had {
		if f.remote && mem.reserve(int64(len(f.data))) != nil {
			ps.had[k] = fetched{} // no room for what can be read again
			f.data = nil
		}
		start := int64(ps.keys[k].at) * pageBytes
		for rest := page(f.data); i < len(pieces) && pieces[i].off < start+pageBytes; {
			at, raw, after, ok := rest.next()
			if !ok {
				if len(rest) > 0 {
					ps.had[k] = fetched{} // it is no page of ours
				}
				break
			}
			rest = after
			for i < len(pieces) && pieces[i].off < start+at {
				i++
			}
			if i < len(pieces) && pieces[i].off == start+at {
				if content, ok := contentOf(raw, f.remote); ok {
					contents[i] = content
					found++
				}
				i++
			}
		}
		for i < len(pieces) && pieces[i].off < start+pageBytes {
			i++
		}
	}
	b.cache.count(seriesItem, acc.tenant, len(pieces), found)
	return ps, ctx.Err()
}

// keepEntries keeps entries that were read with those of their pages that were known. raws[i] is the entry of
// pieces[i], nil if it was not read or is not well.
func (b *loaded) keepEntries(ps entryPages, pieces []piece, raws [][]byte, acc *account) {
	to := 0
	for k, key := range ps.keys {
		from, start := to, int64(key.at)*pageBytes
		for to < len(pieces) && pieces[to].off < start+pageBytes {
			to++
		}
		if !slices.ContainsFunc(raws[from:to], func(raw []byte) bool { return raw != nil }) {
			continue
		}
		size := len(ps.had[k].data)
		for i := from; i < to; i++ {
			if raws[i] != nil {
				size += uvarintLen(uint64(pieces[i].off-start)) + len(raws[i])
			}
		}
		if !b.cache.wants(seriesItem, size) {
			continue
		}
		data := make([]byte, 0, size)
		add := func(at int64, raw []byte) {
			data = append(binary.AppendUvarint(data, uint64(at)), raw...)
		}
		i := from
		// until adds what was read before a place; an entry that was known but not well is read anew.
		until := func(at int64) (same bool) {
			for ; i < to && pieces[i].off-start <= at; i++ {
				if raws[i] != nil {
					add(pieces[i].off-start, raws[i])
					same = same || pieces[i].off-start == at
				}
			}
			return same
		}
		for rest := page(ps.had[k].data); ; {
			at, raw, after, ok := rest.next()
			if !ok {
				break
			}
			if !until(at) {
				add(at, raw)
			}
			rest = after
		}
		until(pageBytes)
		b.cache.keep(key, data, acc.tenant)
	}
}
