package query

import "math"

// bucketsOfHistogram adds up the lengths of all spans in the layout at the head of a histogram chunk: zero
// threshold, schema, positive and negative spans. ok is false when the bytes end first.
func bucketsOfHistogram(b []byte) (n uint64, ok bool) {
	r := bitReader{b: b}
	if r.bits(8) == 255 { // The zero threshold follows in full.
		r.bits(64)
	}
	r.varbit() // schema
	for range 2 {
		for spans := r.varbit(); spans > 0 && !r.ended; spans-- {
			n += r.varbit() & math.MaxUint32
			r.varbit() // offset
		}
	}
	return n, !r.ended
}

// bitReader reads the bits of a chunk, most significant first.
type bitReader struct {
	b     []byte
	pos   int // in bits
	ended bool
}

func (r *bitReader) bits(n int) (v uint64) {
	if r.pos+n > len(r.b)*8 {
		r.ended = true
		return 0
	}
	for range n {
		bit := r.b[r.pos/8] >> (7 - r.pos%8) & 1
		v = v<<1 | uint64(bit)
		r.pos++
	}
	return v
}

// varbit reads an integer in the chunk format's variable encoding: the number of leading ones (eight at
// most) chooses how many bits follow.
func (r *bitReader) varbit() uint64 {
	ones := 0
	for ones < 8 && r.bits(1) == 1 {
		ones++
	}
	return r.bits([]int{0, 3, 6, 9, 12, 18, 25, 56, 64}[ones])
}
