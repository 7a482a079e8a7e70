package xor

import (
	"encoding/binary"
	"math"
)

// reference decodes bit by bit, exactly as the package comment describes the format, and never reads a
// bit that isn't there. It stands beside Prometheus's iterator, which does.
func reference(data []byte) (samples []sample, err error) {
	r := &bitReader{data: data}
	defer func() {
		if e := recover(); e != nil {
			err = e.(error) // thrown by bits
		}
	}()
	count := int(r.bits(16))
	var (
		t, distance    int64
		v              uint64
		leading, width = 0, 64
	)
	for i := range count {
		switch i {
		case 0:
			u := r.uvarint()
			t = int64(u>>1) ^ -int64(u&1)
			v = r.bits(64)
			samples = append(samples, sample{t, math.Float64frombits(v)})
			continue
		case 1:
			distance = int64(r.uvarint())
		default:
			distance += r.change()
		}
		if t+distance < t {
			return samples, ErrDisorder
		}
		t += distance
		if r.bits(1) == 1 {
			if r.bits(1) == 1 {
				leading, width = int(r.bits(5)), int(r.bits(6))
				if width == 0 {
					width = 64
				}
				if leading+width > 64 {
					return samples, ErrMalformed
				}
			}
			v ^= r.bits(width) << (64 - leading - width)
		}
		samples = append(samples, sample{t, math.Float64frombits(v)})
	}
	return samples, nil
}

type bitReader struct {
	data []byte
	pos  int
}

func (r *bitReader) bits(n int) (x uint64) {
	for range n {
		if r.pos == len(r.data)*8 {
			panic(ErrShort)
		}
		x = x<<1 | uint64(r.data[r.pos/8]>>(7-r.pos%8)&1)
		r.pos++
	}
	return x
}

func (r *bitReader) uvarint() uint64 {
	x, n := binary.Uvarint(r.data[r.pos/8:])
	switch {
	case n == 0:
		panic(ErrShort)
	case n < 0:
		panic(ErrMalformed)
	}
	r.pos += n * 8
	return x
}

func (r *bitReader) change() int64 {
	for _, n := range []int{0, 14, 17, 20} {
		if r.bits(1) == 0 {
			if n == 0 {
				return 0
			}
			x := int64(r.bits(n))
			if x > 1<<(n-1) {
				x -= 1 << n
			}
			return x
		}
	}
	return int64(r.bits(64))
}
