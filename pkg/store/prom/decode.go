package prom

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages, of package prometheus:
//
//	ChunkedReadResponse { 1 chunked_series: repeated ChunkedSeries, 2 query_index: int64 }
//	ChunkedSeries       { 1 labels: repeated Label, 2 chunks: repeated Chunk }
//	Label               { 1 name: string, 2 value: string }
//	Chunk               { 1 min_time_ms: int64, 2 max_time_ms: int64, 3 type: enum, 4 data: bytes }
//
// They are decoded by hand, because everything in them can stay where it is: nothing is allocated, and names,
// values and chunks are parts of the frame. A fuzz test holds the result to that of the generated code.

var errMalformed = errors.New("malformed message")

// rawLabel is a label as it lies in a frame.
type rawLabel struct{ name, value []byte }

// rawChunk is a chunk as it lies in a frame.
type rawChunk struct {
	minTime, maxTime int64
	encoding         int32
	data             []byte
}

// A tag is the number of a field and its wire type in one byte.
const (
	field1Varint = 1<<3 | byte(protowire.VarintType)
	field2Varint = 2<<3 | byte(protowire.VarintType)
	field3Varint = 3<<3 | byte(protowire.VarintType)
	field1Bytes  = 1<<3 | byte(protowire.BytesType)
	field2Bytes  = 2<<3 | byte(protowire.BytesType)
	field4Bytes  = 4<<3 | byte(protowire.BytesType)
)

// decodeFrame appends the series in a ChunkedReadResponse to dst, each still encoded.
func decodeFrame(b []byte, dst [][]byte) (series [][]byte, queryIndex int64, err error) {
	for len(b) > 0 {
		var v []byte
		switch b[0] {
		case field1Bytes:
			if v, b, err = takeBytes(b[1:]); err != nil {
				return dst, 0, err
			}
			dst = append(dst, v)
		case field2Varint:
			var n uint64
			if n, b, err = takeVarint(b[1:]); err != nil {
				return dst, 0, err
			}
			queryIndex = int64(n)
		default:
			if b, err = skip(b, 2); err != nil {
				return dst, 0, err
			}
		}
	}
	return dst, queryIndex, nil
}

// decodeSeries appends the labels and the chunks of a ChunkedSeries. head is the number of bytes at the
// start of b that hold all the labels, -1 if labels turn up elsewhere, too.
func decodeSeries(b []byte, ls []rawLabel, cs []rawChunk) (_ []rawLabel, _ []rawChunk, head int, err error) {
	size := len(b)
	other := false // something else than a label has come
	for len(b) > 0 {
		var v []byte
		switch b[0] {
		case field1Bytes:
			if v, b, err = takeBytes(b[1:]); err != nil {
				return ls, cs, 0, err
			}
			var l rawLabel
			if l, err = decodeLabel(v); err != nil {
				return ls, cs, 0, err
			}
			ls = append(ls, l)
			switch {
			case other:
				head = -1
			default:
				head = size - len(b)
			}
			continue
		case field2Bytes:
			if v, b, err = takeBytes(b[1:]); err != nil {
				return ls, cs, 0, err
			}
			var c rawChunk
			if c, err = decodeChunk(v); err != nil {
				return ls, cs, 0, err
			}
			cs = append(cs, c)
		default:
			if b, err = skip(b, 2); err != nil {
				return ls, cs, 0, err
			}
		}
		other = true
	}
	return ls, cs, head, nil
}

func decodeLabel(b []byte) (l rawLabel, err error) {
	for len(b) > 0 {
		switch b[0] {
		case field1Bytes:
			l.name, b, err = takeBytes(b[1:])
		case field2Bytes:
			l.value, b, err = takeBytes(b[1:])
		default:
			b, err = skip(b, 2)
		}
		if err != nil {
			return l, err
		}
	}
	return l, nil
}

func decodeChunk(b []byte) (c rawChunk, err error) {
	for len(b) > 0 {
		var n uint64
		switch b[0] {
		case field1Varint:
			n, b, err = takeVarint(b[1:])
			c.minTime = int64(n)
		case field2Varint:
			n, b, err = takeVarint(b[1:])
			c.maxTime = int64(n)
		case field3Varint:
			n, b, err = takeVarint(b[1:])
			c.encoding = int32(n)
		case field4Bytes:
			c.data, b, err = takeBytes(b[1:])
		default:
			b, err = skip(b, 4)
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func takeVarint(b []byte) (n uint64, rest []byte, err error) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], nil
	}
	n, m := binary.Uvarint(b)
	if m <= 0 {
		return 0, nil, errMalformed
	}
	return n, b[m:], nil
}

func takeBytes(b []byte) (v, rest []byte, err error) {
	n, b, err := takeVarint(b)
	if err != nil || n > uint64(len(b)) {
		return nil, nil, errMalformed
	}
	return b[:n:n], b[n:], nil
}

// skip passes over a field that is not known here. One with a number up to known is, but with another wire
// type or an overlong tag: that is an error, as it is to the generated code.
func skip(b []byte, known protowire.Number) ([]byte, error) {
	num, typ, n := protowire.ConsumeField(b)
	if n < 0 {
		return nil, fmt.Errorf("%w: %w", errMalformed, protowire.ParseError(n))
	}
	if num <= known {
		return nil, fmt.Errorf("%w: field %d has wire type %d", errMalformed, num, typ)
	}
	return b[n:], nil
}
