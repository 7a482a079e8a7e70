// Package aggr is the aggregate chunk: what a downsampled block holds in place of samples.
//
// Of each window of time there are up to five aggregates (count, sum, min, max, counter), and of each aggregate an
// ordinary TSDB chunk with a sample a window. The five are laid one behind the other, each led by its length and
// encoding.
package aggr

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Encoding is the encoding byte of an aggregate chunk in a chunk file.
const Encoding = chunkenc.Encoding(0xff)

// Type is one of the aggregates, in their order in the chunk.
type Type uint8

// The aggregates.
const (
	Count Type = iota
	Sum
	Min
	Max
	// Counter is the running total of increases, so that a rate is its slope.
	Counter
	// Types is how many there are.
	Types = 5
)

func (t Type) String() string {
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("aggregate %d", uint8(t))
}

var names = [Types]string{"count", "sum", "min", "max", "counter"}

var (
	// ErrAbsent says that the chunk does not have this aggregate.
	ErrAbsent = errors.New("aggregate is absent")
	// ErrMalformed says that the bytes are no aggregate chunk.
	ErrMalformed = errors.New("malformed aggregate chunk")
)

// Part is the chunk of one aggregate. Without Data it is absent.
type Part struct {
	Encoding chunkenc.Encoding
	Data     []byte
}

// Chunk is the payload of an aggregate chunk. Its methods only read.
type Chunk []byte

// Append appends the payload of an aggregate chunk with these parts to dst.
func Append(dst []byte, parts *[Types]Part) []byte {
	for i := range parts {
		p := &parts[i]
		dst = binary.AppendUvarint(dst, uint64(len(p.Data)))
		if len(p.Data) > 0 {
			dst = append(dst, byte(p.Encoding))
			dst = append(dst, p.Data...)
		}
	}
	return dst
}

// Parts takes the chunk apart; the parts share its bytes. An error wraps ErrMalformed. Bytes behind the last
// part are passed over.
func (c Chunk) Parts() (parts [Types]Part, err error) {
	b := []byte(c)
	for i := range parts {
		if b, err = take(b, &parts[i]); err != nil {
			return parts, fmt.Errorf("%s: %w", Type(i), err)
		}
	}
	return parts, nil
}

// Get returns one part. An error wraps ErrAbsent or ErrMalformed.
func (c Chunk) Get(t Type) (chunkenc.Encoding, []byte, error) {
	b := []byte(c)
	var p Part
	for i := Type(0); i <= t; i++ {
		var err error
		p = Part{}
		if b, err = take(b, &p); err != nil {
			return 0, nil, fmt.Errorf("%s: %w", i, err)
		}
	}
	if p.Data == nil {
		return 0, nil, fmt.Errorf("%s: %w", t, ErrAbsent)
	}
	return p.Encoding, p.Data, nil
}

// take reads a part from the front of b and returns what is behind it.
func take(b []byte, p *Part) ([]byte, error) {
	l, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, fmt.Errorf("no length: %w", ErrMalformed)
	}
	b = b[n:]
	if l == 0 {
		return b, nil
	}
	if l >= uint64(len(b)) { // the encoding comes before the data
		return nil, fmt.Errorf("%d bytes wanted of %d: %w", l, len(b)-1, ErrMalformed)
	}
	*p = Part{Encoding: chunkenc.Encoding(b[0]), Data: b[1 : 1+l : 1+l]}
	return b[1+l:], nil
}
