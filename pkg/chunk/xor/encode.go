package xor

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// SamplesMax is how many samples a chunk can count.
const SamplesMax = math.MaxUint16

// Encode appends an XOR chunk with the samples to dst: the bytes that Prometheus's appender writes, a payload without
// length, encoding byte and checksum. Times must not descend. More than SamplesMax samples are a bug of the caller and panic.
func Encode(dst []byte, times []int64, values []float64) []byte {
	values = values[:len(times)]
	if len(times) > SamplesMax {
		panic("BUG: more samples than an XOR chunk can count")
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(times)))
	if len(times) == 0 {
		return dst
	}
	e := encoder{b: dst, t: times[0], v: math.Float64bits(values[0]), leading: noWindow}
	e.b = binary.AppendVarint(e.b, e.t)
	e.b = binary.BigEndian.AppendUint64(e.b, e.v)
	if len(times) > 1 {
		e.distance = times[1] - times[0]
		e.b = binary.AppendUvarint(e.b, uint64(e.distance))
		e.t = times[1]
		e.value(0, 0, math.Float64bits(values[1]))
		e.rest(times[2:], values[2:])
	}
	return e.close()
}

// noWindow is what leading is before the first window: more than any.
const noWindow = 0xff

// encoder is where encoding stands between two samples.
type encoder struct {
	b        []byte
	acc      uint64 // bits that wait for the rest of their eight bytes, the last written lowest
	fill     uint   // how many
	t        int64
	distance int64
	v        uint64
	// The window of the last value that opened one.
	leading, trailing uint
}

func (e *encoder) rest(times []int64, values []float64) {
	values = values[:len(times)]
	for i, t := range times {
		distance := t - e.t
		change := distance - e.distance
		e.t, e.distance = t, distance
		v := math.Float64bits(values[i])
		switch {
		case change == 0:
			if v == e.v {
				e.put(0, 2)
				continue
			}
			e.value(0, 1, v)
		case fits(change, 14):
			e.value(0b10<<14|uint64(change)&(1<<14-1), 2+14, v)
		case fits(change, 17):
			e.value(0b110<<17|uint64(change)&(1<<17-1), 3+17, v)
		case fits(change, 20):
			e.value(0b1110<<20|uint64(change)&(1<<20-1), 4+20, v)
		default:
			e.put(0b1111, 4)
			e.put(uint64(change), 64)
			e.value(0, 0, v)
		}
	}
}

// fits tells whether a change of the distance is written with n bits: one more at the top and one less at the
// bottom than in two's complement.
func fits(x int64, n uint) bool { return -(1<<(n-1))+1 <= x && x <= 1<<(n-1) }

// value writes n bits, 24 at most, and a value behind them.
func (e *encoder) value(before uint64, n uint, v uint64) {
	x := v ^ e.v
	if x == 0 {
		e.put(before<<1, n+1)
		return
	}
	e.v = v
	leading := min(uint(bits.LeadingZeros64(x)), 31)
	trailing := uint(bits.TrailingZeros64(x))
	if e.leading != noWindow && leading >= e.leading && trailing >= e.trailing {
		width := 64 - e.leading - e.trailing
		x >>= e.trailing
		before, n = before<<2|0b10, n+2
		if n+width <= 64 {
			e.put(before<<width|x, n+width)
			return
		}
		e.put(before, n)
		e.put(x, width)
		return
	}
	e.leading, e.trailing = leading, trailing
	width := 64 - leading - trailing
	// A width of 64 is written as 0: there is none of that.
	before = before<<13 | 0b11<<11 | uint64(leading)<<6 | uint64(width&63)
	e.put(before, n+13)
	e.put(x>>trailing, width)
}

// put writes the n lower bits of x; those above are zero.
func (e *encoder) put(x uint64, n uint) {
	free := 64 - e.fill
	if n < free {
		e.acc = e.acc<<n | x
		e.fill += n
		return
	}
	n -= free
	e.b = binary.BigEndian.AppendUint64(e.b, e.acc<<free|x>>n)
	// What of x is written already is shifted out before it is looked at again.
	e.acc, e.fill = x, n
}

// close writes the bits that wait, with zeros behind them.
func (e *encoder) close() []byte {
	acc := e.acc << (64 - e.fill)
	for ; e.fill > 0; e.fill -= min(8, e.fill) {
		e.b = append(e.b, byte(acc>>56))
		acc <<= 8
	}
	return e.b
}
