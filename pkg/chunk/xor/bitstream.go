package xor

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// bitstream is where decoding stands between two samples: the last sample, and what the next one is
// relative to.
type bitstream struct {
	t        int64
	distance int64  // of t from the time before
	v        uint64 // the last value's bits

	// The window of the last XOR that had one: it begins after so many zeros, and mask is its bits.
	leading, width uint
	mask           uint64

	pos uint // of the next bit
}

const (
	// A sample takes 68 bits of time and 2+5+6+64 of value at most. The last of these are read nine bytes at
	// once, from a bit that is 68+13 after the sample's first. So from the byte in which a sample
	// begins, (7+81)/8 + 9 = 20 bytes are all that is looked at.
	reachBytes = 20
	// The second sample has no bits for its time.
	secondReachBytes = 13/8 + 9
)

// ones are what follows the end of a chunk while its last samples are decoded.
var ones = [2 * reachBytes]byte{
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
}

// rest decodes the samples from the third on and returns how many there are with the first two.
func (b *bitstream) rest(times []int64, values []float64, data []byte) (int, error) {
	// For most of the way all bytes that a sample may take are there.
	n, err := b.samples(times, values, 2, data)
	if n == len(times) || err != nil {
		return n, err
	}
	// The end is copied to where there is room behind it, and followed by ones. These are never taken for
	// samples of two bits, so a sample that is cut off ends past the end.
	tail := ones
	end := uint(copy(tail[:reachBytes], data[b.pos/8:]))
	b.pos %= 8
	// With one byte less than a sample may take no sample begins behind the end.
	n, err = b.samples(times, values, n, tail[:end+reachBytes-1])
	switch {
	case b.pos > end*8 && err == nil:
		return n - 1, ErrShort
	case b.pos > end*8 || n < len(times) && err == nil:
		return n, ErrShort
	}
	return n, err
}

// second decodes the value of the second sample, which begins with a byte.
func (b *bitstream) second(data []byte) error {
	src := data[b.pos/8:]
	var padded [secondReachBytes]byte
	if len(src) < len(padded) {
		copy(padded[:], src)
		src = padded[:]
	}
	w := binary.BigEndian.Uint64(src)
	b.leading, b.width, b.mask = 0, 64, ^uint64(0)
	switch {
	case w>>63 == 0:
		b.pos++
	case w>>62 == 0b10:
		b.v ^= window(src, 2)
		b.pos += 2 + 64
	case len(data) < int(b.pos/8)+2:
		return ErrShort
	case !b.setWindow(w):
		return ErrMalformed
	default:
		b.v ^= window(src, 13) >> (b.leading & 63) & b.mask
		b.pos += 13 + b.width
	}
	if b.pos > uint(len(data))*8 {
		return ErrShort
	}
	return nil
}

// setWindow reads a new window from behind the upper two bits of w.
func (b *bitstream) setWindow(w uint64) bool {
	b.leading = uint(w>>57) & 31
	b.width = (uint(w>>51)-1)&63 + 1
	b.mask = ^uint64(0) << ((64 - b.width) & 63) >> b.leading
	return b.leading+b.width <= 64
}

// samples decodes from the i-th sample on, for as long as a sample can't reach past src. It returns the
// number of the sample that it has come to. After an error pos is behind the faulty bits.
//
// Bits are looked at through a load of eight bytes wherever they are needed. A load depends on nothing but
// the position, so the processor runs ahead with it, while a buffer that is shifted and refilled makes
// each sample wait for the one before.
//
// What is left are branches that the processor guesses wrong: 4.4 ns a sample on scraped counters, of which
// every way is taken, and 1.1 on constants. Choosing between the old and a new window without a branch
// was tried; then the position waits for the load, and scraped counters take half as long again.
func (b *bitstream) samples(times []int64, values []float64, i int, src []byte) (int, error) {
	values = values[:len(times)]
	t, distance, v, pos := b.t, b.distance, b.v, b.pos
	for i < len(times) && pos/8+reachBytes <= uint(len(src)) {
		w := load(src, pos)
		if w>>(64-2*runMin) == 0 {
			// All samples at the same distance with the same value that follow one another are taken at
			// once; the 1 ends the bits that have been loaded.
			n := min(bits.LeadingZeros64(w|1<<6)/2, len(times)-i)
			if uint64(distance) > 1<<56 || t > 1<<62 { // times may run over
				n = 1
			}
			if t+distance < t {
				b.pos = pos
				return i, ErrDisorder
			}
			fill(times[i:i+n], values[i:i+n], t+distance, distance, v)
			i += n
			t = times[i-1]
			pos += uint(n) * 2
			continue
		}
		if w>>63 == 0 {
			pos++
			w <<= 1
		} else {
			switch {
			case w>>62 == 0b10:
				distance += signed(w<<2, 14)
				pos += 2 + 14
			case w>>61 == 0b110:
				distance += signed(w<<3, 17)
				pos += 3 + 17
			case w>>60 == 0b1110:
				distance += signed(w<<4, 20)
				pos += 4 + 20
			default:
				distance += int64(window(src, pos+4))
				pos += 4 + 64
			}
			w = load(src, pos)
		}
		if t+distance < t {
			b.pos = pos
			return i, ErrDisorder
		}
		t += distance
		if w>>63 == 0 {
			pos++
		} else {
			if w>>62 == 0b10 {
				pos += 2
			} else {
				pos += 2 + 5 + 6
				if !b.setWindow(w) {
					b.pos = pos
					return i, ErrMalformed
				}
			}
			if b.width <= 57 {
				p := pos / 8
				x := binary.BigEndian.Uint64(src[p : p+8])
				v ^= bits.RotateLeft64(x, int(pos%8)-int(b.leading)) & b.mask
			} else {
				v ^= window(src, pos) >> (b.leading & 63) & b.mask
			}
			pos += b.width
		}
		times[i], values[i] = t, math.Float64frombits(v)
		i++
	}
	b.t, b.distance, b.v, b.pos = t, distance, v, pos
	return i, nil
}

// runMin is the number of samples of two zeros from which on they are looked for.
const runMin = 4

// fill writes samples at the same distance with the same value.
func fill(times []int64, values []float64, t, distance int64, v uint64) {
	values = values[:len(times)]
	value := math.Float64frombits(v)
	for i := range times {
		times[i], values[i] = t, value
		t += distance
	}
}

// load returns the bits from pos on, 57 of them at least, and zeros behind them.
func load(src []byte, pos uint) uint64 {
	p := pos / 8
	return binary.BigEndian.Uint64(src[p:p+8]) << (pos % 8)
}

// window returns the 64 bits from pos on.
func window(src []byte, pos uint) uint64 {
	b := src[pos/8 : pos/8+9]
	return binary.BigEndian.Uint64(b)<<(pos%8) | uint64(b[8])>>(8-pos%8)
}

// signed reads the number in the upper n bits of w. It goes from -(1<<(n-1))+1 to 1<<(n-1): one more
// at the top and one less at the bottom than in two's complement.
func signed(w uint64, n uint) int64 {
	return (int64(w-1<<(64-n)) >> (64 - n)) + 1
}
