package bucket

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"slices"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/koios-metrics/koios/pkg/block/indexheader"
)

const (
	// A matcher with more posting lists than this has those that lie one behind the other read as one: they are not
	// kept one by one either.
	listsApartMax = 1024
	// So much of them is in memory at a time.
	unionBytes = 4 << 20
)

// lists is the posting lists of a matcher.
type lists struct {
	ranges []indexheader.Range // several lists each, if joined
	n      int                 // how many lists there are
	bytes  int64               // what they take in the index
	joined bool
}

// add adds a list; memory for it is charged to mem.
func (l *lists) add(rg indexheader.Range, mem *hold) error {
	l.n++
	l.bytes += rg.Len()
	if k := len(l.ranges); l.joined && k > 0 && l.ranges[k-1].End == rg.Start {
		l.ranges[k-1].End = rg.End
		return nil
	}
	if len(l.ranges) == listsApartMax && !l.joined {
		l.join()
		l.n--
		l.bytes -= rg.Len()
		return l.add(rg, mem)
	}
	if len(l.ranges)%listsApartMax == 0 {
		if err := mem.reserve(listsApartMax * rangeBytes); err != nil {
			return err
		}
	}
	l.ranges = append(l.ranges, rg)
	return nil
}

// join makes one range of those that touch.
func (l *lists) join() {
	l.joined = true
	k := 0
	for _, rg := range l.ranges[1:] {
		if l.ranges[k].End == rg.Start {
			l.ranges[k].End = rg.End
			continue
		}
		k++
		l.ranges[k] = rg
	}
	l.ranges = l.ranges[:k+1]
}

// series is how many series the lists name, those in several counted in each.
func (l *lists) series() int64 { return max(0, l.bytes-int64(l.n)*postingListBytes) / postingBytes }

// listBytes is what is noted of a list that is read by itself: a piece, its start again, a slice, and an iterator.
const listBytes = 128

// memory is what reading the lists takes.
func (l *lists) memory() int64 {
	if !l.joined {
		return l.bytes + int64(l.n)*listBytes
	}
	// What is read at a time, what is noted of the pieces, and all series twice while slices grow.
	return min(l.bytes, unionBytes) + int64(len(l.ranges))*rangeBytes + l.series()*postingBytes
}

// union reads joined lists and returns the series in any of them.
func (b *loaded) union(ctx context.Context, l *lists, mem *hold, acc *account) (index.Postings, error) {
	if err := mem.reserve(l.series() * postingBytes); err != nil {
		return nil, err
	}
	all := make([]uint32, 0, l.series())
	data := &arena{budget: mem.budget}
	defer data.free()
	o := b.object(postingsData, acc)
	var pieces []piece
	read := func() error {
		found := make([][]byte, len(pieces))
		err := o.read(ctx, pieces, data, func(i int, buf []byte) (int64, error) {
			if n := pieces[i].length; int64(len(buf)) < n {
				return n, nil
			}
			found[i] = buf[:pieces[i].length]
			return 0, nil
		})
		for i := 0; err == nil && i < len(pieces); i++ {
			if all, err = appendLists(all, found[i]); err != nil {
				err = corruptf("%s: lists from %d on: %v", o.name, pieces[i].off, err)
			}
		}
		acc.touch(postingsData, len(pieces), len(pieces), 0)
		pieces = pieces[:0]
		data.reset()
		return err
	}
	size := int64(0)
	for _, rg := range l.ranges {
		if size+rg.Len() > unionBytes && size > 0 {
			if err := read(); err != nil {
				return nil, err
			}
			size = 0
		}
		size += rg.Len()
		pieces = append(pieces, piece{rg.Start, rg.Len()})
	}
	if err := read(); err != nil {
		return nil, err
	}
	acc.touch(postingsData, 0, 0, l.bytes)
	slices.Sort(all)
	return &listed{refs: slices.Compact(all), at: -1}, nil
}

// appendLists appends the series of lists that lie one behind the other.
func appendLists(to []uint32, b []byte) ([]uint32, error) {
	for len(b) > 0 {
		if len(b) < postingListBytes {
			return to, corruptf("%d bytes are no list", len(b))
		}
		n := int64(binary.BigEndian.Uint32(b))
		if n > int64(len(b))-8 || n < 4 || n%postingBytes != 0 {
			return to, corruptf("a list says it has %d bytes, there are %d", n, len(b)-8)
		}
		content := b[4 : 4+n]
		if crc32.Checksum(content, castagnoli) != binary.BigEndian.Uint32(b[4+n:]) {
			return to, corruptf("a list's checksum is wrong")
		}
		if int64(binary.BigEndian.Uint32(content)) != n/postingBytes-1 {
			return to, corruptf("a list of %d bytes counts %d series", n, binary.BigEndian.Uint32(content))
		}
		for content = content[4:]; len(content) > 0; content = content[postingBytes:] {
			to = append(to, binary.BigEndian.Uint32(content))
		}
		b = b[4+n+4:]
	}
	return to, nil
}

// listed is index.Postings over references in order.
type listed struct {
	refs []uint32
	at   int
}

// Next implements index.Postings.
func (l *listed) Next() bool {
	l.at++
	return l.at < len(l.refs)
}

// Seek implements index.Postings.
func (l *listed) Seek(ref storage.SeriesRef) bool {
	at := max(l.at, 0)
	if at < len(l.refs) && storage.SeriesRef(l.refs[at]) < ref {
		// Twice as far each time, and then between the last two.
		step := 1
		for at+step < len(l.refs) && storage.SeriesRef(l.refs[at+step]) < ref {
			at, step = at+step, 2*step
		}
		k, _ := slices.BinarySearchFunc(l.refs[at:min(at+step+1, len(l.refs))], ref, func(r uint32, want storage.SeriesRef) int {
			if storage.SeriesRef(r) < want {
				return -1
			}
			return 1
		})
		at += k
	}
	l.at = at
	return at < len(l.refs)
}

// At implements index.Postings.
func (l *listed) At() storage.SeriesRef { return storage.SeriesRef(l.refs[l.at]) }

// Err implements index.Postings.
func (l *listed) Err() error { return nil }
