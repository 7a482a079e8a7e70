package bucket

import (
	"cmp"
	"slices"
)

const (
	// Gaps between wanted pieces are read along, the smallest first, as long as all of them together take no more than
	// one in gapPart of the wanted bytes.
	gapPart = 6
	// A read is cut into no more requests than this: further gaps are read along until it is so. As many run at a time
	// that one takes no longer than some kilobytes more would.
	runsMax = 4096
	// A run is no longer than this, so that long ones are read in parallel, unless a single piece is.
	runBytesMax = 8 << 20
)

// piece is a wanted piece of an object: where it starts and how long it is at most, or is thought to be.
type piece struct{ off, length int64 }

// run is the pieces [from, to) that are read with one request, which ends at end.
type run struct {
	from, to int
	end      int64
}

// dense tells whether a run is read in one piece, with what lies between.
func (r run) dense(pieces []piece) bool {
	wanted := int64(0)
	for _, p := range pieces[r.from:r.to] {
		wanted += p.length
	}
	return r.end-pieces[r.from].off <= wanted+wanted/2+passBytes
}

// runs cuts pieces, sorted by offset, into runs. Gaps up to gapMax are read along in any case.
func runs(pieces []piece, gapMax int64) []run {
	if len(pieces) == 0 {
		return nil
	}
	// gap is what lies between a piece and the one before it.
	type gap struct {
		before int
		bytes  int64
	}
	var gaps []gap
	wanted, end := pieces[0].length, pieces[0].off+pieces[0].length
	for i, p := range pieces[1:] {
		if p.off > end {
			gaps = append(gaps, gap{i + 1, p.off - end})
		}
		wanted += max(0, p.off+p.length-max(end, p.off))
		end = max(end, p.off+p.length)
	}
	slices.SortFunc(gaps, func(x, y gap) int { return cmp.Or(cmp.Compare(x.bytes, y.bytes), cmp.Compare(x.before, y.before)) })
	joined, read := 0, int64(0)
	for joined < len(gaps) && (gaps[joined].bytes <= gapMax || read+gaps[joined].bytes <= wanted/gapPart || len(gaps)-joined >= runsMax) {
		read += gaps[joined].bytes
		joined++
	}
	cuts := gaps[joined:]
	slices.SortFunc(cuts, func(x, y gap) int { return cmp.Compare(x.before, y.before) })

	var out []run
	cur := run{from: 0, to: 1, end: pieces[0].off + pieces[0].length}
	for i := 1; i < len(pieces); i++ {
		p := pieces[i]
		cut := len(cuts) > 0 && cuts[0].before == i
		if cut {
			cuts = cuts[1:]
		}
		if cut || p.off >= cur.end && p.off+p.length-pieces[cur.from].off > runBytesMax {
			out = append(out, cur)
			cur = run{from: i, end: p.off}
		}
		cur.to, cur.end = i+1, max(cur.end, p.off+p.length)
	}
	return append(out, cur)
}
