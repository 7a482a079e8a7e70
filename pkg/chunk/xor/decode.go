package xor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// What can be wrong with a chunk. Decode wraps one of these.
var (
	// ErrShort: the bytes end before the promised number of samples.
	ErrShort = errors.New("bytes end before the samples")
	// ErrMalformed: bits that no encoder writes.
	ErrMalformed = errors.New("malformed bits")
	// ErrDisorder: a sample is earlier than the one before.
	ErrDisorder = errors.New("samples out of order")
)

const (
	headerBytes = 2
	// A first sample takes a byte of time and eight of value, a second one a byte and a bit, any other two bits.
	firstBytesMin  = 1 + 8
	secondBytesMin = 1
)

// Count is the number of samples that a chunk promises, and at most the number that as many bytes can
// hold: what Decode appends at most, at 16 bytes a sample.
func Count(data []byte) int {
	if len(data) < headerBytes+firstBytesMin {
		return 0
	}
	promised := int(binary.BigEndian.Uint16(data))
	rest := len(data) - headerBytes - firstBytesMin - secondBytesMin
	if rest <= 0 {
		return min(promised, 1)
	}
	// One bit is the second sample's; of the others each sample takes two.
	return min(promised, 2+(rest*8-1)/2)
}

// Decode appends all samples of an XOR chunk to dst. The data, a chunk without its length, encoding byte
// and checksum, is neither kept nor changed; nobody may change it meanwhile. Memory is taken for Count(data) samples if dst has no room.
//
// An error wraps ErrShort, ErrMalformed or ErrDisorder; the samples before the fault have been appended
// then. Any bytes give samples or an error, never a panic. Only the order within the chunk is checked, not
// that against samples which dst held before.
func Decode(dst *Samples, data []byte) error {
	if len(data) < headerBytes {
		return fmt.Errorf("decode xor chunk of %d bytes: %w", len(data), ErrShort)
	}
	promised := int(binary.BigEndian.Uint16(data))
	n := Count(data)
	times, values := dst.extend(n)
	got, err := decode(times, values, data)
	if err == nil && got < promised {
		err = ErrShort
	}
	dst.drop(n - got)
	if err != nil {
		return fmt.Errorf("decode xor chunk of %d bytes: sample %d of %d: %w", len(data), got+1, promised, err)
	}
	return nil
}

// decode fills times and values, which are equally long, and returns how many samples there were before
// the fault.
func decode(times []int64, values []float64, data []byte) (int, error) {
	if len(times) == 0 {
		return 0, nil // the caller compares with what was promised
	}
	t, n := binary.Varint(data[headerBytes:])
	at := headerBytes + n
	if n <= 0 || len(data)-at < 8 {
		return 0, varintFault(n)
	}
	v := binary.BigEndian.Uint64(data[at:])
	at += 8
	times[0], values[0] = t, math.Float64frombits(v)
	if len(times) == 1 {
		return 1, nil
	}
	distance, n := binary.Uvarint(data[at:])
	if n <= 0 {
		return 1, varintFault(n)
	}
	b := bitstream{t: t + int64(distance), distance: int64(distance), v: v, pos: uint(at+n) * 8}
	if b.t < t {
		return 1, ErrDisorder
	}
	if err := b.second(data); err != nil {
		return 1, err
	}
	times[1], values[1] = b.t, math.Float64frombits(b.v)
	return b.rest(times, values, data)
}

// varintFault is the error for what encoding/binary returns in place of a varint's length: negative when it
// has more than 64 bits.
func varintFault(n int) error {
	if n < 0 {
		return ErrMalformed
	}
	return ErrShort
}
