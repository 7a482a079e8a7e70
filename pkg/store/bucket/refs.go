package bucket

import (
	"encoding/binary"
	"slices"
)

// refs is references of series in ascending order, a byte or two each: what each is greater by than the one before.
type refs struct {
	b    []byte
	n    int
	last uint32 // the one that was appended, or taken, last
	mem  *hold  // is charged with the memory that b takes; nil: nothing is
}

// append adds a reference greater than all others.
func (r *refs) append(ref uint32) error {
	if cap(r.b)-len(r.b) < binary.MaxVarintLen32 {
		grow := max(cap(r.b), 256)
		if err := r.mem.reserve(int64(grow)); err != nil {
			return err
		}
		r.b = slices.Grow(r.b, grow)[:len(r.b):max(len(r.b)+grow, binary.MaxVarintLen32)]
	}
	r.b = binary.AppendUvarint(r.b, uint64(ref-r.last))
	r.n, r.last = r.n+1, ref
	return nil
}

// rewound returns the references for taking them, from the first on.
func (r refs) rewound() refs { return refs{b: r.b, n: r.n} }

// take moves the next n references, or as many as there are, to the end of to.
func (r *refs) take(to []uint32, n int) []uint32 {
	for range min(n, r.n) {
		to = append(to, r.next())
	}
	return to
}

func (r *refs) next() uint32 {
	d, k := binary.Uvarint(r.b)
	r.b, r.n, r.last = r.b[k:], r.n-1, r.last+uint32(d)
	return r.last
}

// peek returns the next reference; false if there is none.
func (r *refs) peek() (uint32, bool) {
	if r.n == 0 {
		return 0, false
	}
	d, _ := binary.Uvarint(r.b)
	return r.last + uint32(d), true
}
