package wire

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/koios-metrics/koios/pkg/store"
)

// Incoming is a frame of a Series answer as it came in. One Incoming serves a whole stream: decoding the
// next frame into it reuses its memory and gives back the buffer of the one before. It belongs to one
// goroutine.
type Incoming struct {
	// SkipChunks leaves chunks out; they are not even looked at.
	SkipChunks bool

	warning string
	warns   bool
	series  []store.Series

	buf     mem.Buffer // what the chunks' bytes are slices of
	scratch labels.ScratchBuilder
	chunks  []store.Chunk // of all series, one after the other
	ends    []int         // where each series' chunks end
	aggrs   []*store.Aggregates
	aggrsN  int            // how many of aggrs are in use
	names   store.Interner // of replicas
}

// Series returns the series of the frame. They and the bytes of their chunks are valid until the next
// frame is decoded or Release; their labels are immutable and may be kept.
func (in *Incoming) Series() []store.Series { return in.series }

// Warning returns the text of the frame if it is a warning.
func (in *Incoming) Warning() (text string, ok bool) { return in.warning, in.warns }

// Release gives back the buffer of the last frame.
func (in *Incoming) Release() {
	in.series = in.series[:0]
	if in.buf != nil {
		in.buf.Free()
		in.buf = nil
	}
}

// decode takes a frame from gRPC, whose buffer it keeps until the next.
func (in *Incoming) decode(data mem.BufferSlice) error {
	in.Release()
	in.buf = data.MaterializeToBuffer(frames)
	return in.Decode(in.buf.ReadOnlyData())
}

// Decode reads a frame from b, which is lent until the next frame is decoded or Release. Frames of hints
// and of kinds that came after us are read as empty ones. The error says what is wrong with the frame.
func (in *Incoming) Decode(b []byte) error {
	in.reset()
	field, body, err := oneof(b)
	if err != nil {
		return err
	}
	switch field {
	case fieldSeries:
		err = in.decodeSeries(body)
	case fieldBatch:
		err = in.decodeBatch(body)
	case fieldWarning:
		in.warning, in.warns = string(body), true
	}
	if err != nil {
		in.reset()
		return err
	}
	start := 0
	for i, end := range in.ends {
		in.series[i].Chunks = inOrder(in.chunks[start:end:end])
		start = end
	}
	return nil
}

func (in *Incoming) reset() {
	in.warning, in.warns = "", false
	in.series, in.chunks, in.ends, in.aggrsN = in.series[:0], in.chunks[:0], in.ends[:0], 0
}

// oneof finds the last field of a SeriesResponse, which is the one that counts. A message that comes in
// several pieces is the pieces put together, as everywhere in protobuf.
func oneof(b []byte) (field protowire.Number, body []byte, err error) {
	for len(b) > 0 {
		num, typ, v, rest, err := consume(b)
		if err != nil {
			return 0, nil, err
		}
		b = rest
		if num < fieldSeries || num > fieldBatch || typ != protowire.BytesType {
			continue
		}
		if num == field && num != fieldWarning {
			v = append(bytes.Clone(body), v...)
		}
		field, body = num, v
	}
	return field, body, nil
}

var errTruncated = errors.New("frame is cut off or garbled")

// consume takes a field off b. For fields of bytes, v is their content; otherwise it is what the value
// was encoded as.
func consume(b []byte) (num protowire.Number, typ protowire.Type, v, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, 0, nil, nil, errTruncated
	}
	b = b[n:]
	if typ == protowire.BytesType {
		v, n = protowire.ConsumeBytes(b)
	} else if n = protowire.ConsumeFieldValue(num, typ, b); n >= 0 {
		v = b[:n]
	}
	if n < 0 {
		return 0, 0, nil, nil, errTruncated
	}
	return num, typ, v, b[n:], nil
}

func (in *Incoming) decodeBatch(b []byte) error {
	for len(b) > 0 {
		num, typ, v, rest, err := consume(b)
		if err != nil {
			return err
		}
		b = rest
		if num != 1 || typ != protowire.BytesType {
			continue
		}
		if err := in.decodeSeries(v); err != nil {
			return fmt.Errorf("series %d of a batch: %w", len(in.series)+1, err)
		}
	}
	return nil
}

// decodeSeries adds a series to in.series and its chunks to in.chunks.
func (in *Incoming) decodeSeries(b []byte) error {
	// Labels copies the strings, so they may be views of the buffer.
	in.scratch.SetUnsafeAdd(true)
	in.scratch.Reset()
	var last []byte
	for len(b) > 0 {
		num, typ, v, rest, err := consume(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case typ != protowire.BytesType:
		case num == 1:
			name, value, err := decodeLabel(v)
			if err != nil {
				return err
			}
			if len(name) == 0 {
				return fmt.Errorf("label with value %.200q has no name", value)
			}
			if len(name) > labelBytesMax || len(value) > labelBytesMax {
				return errLabelTooLong
			}
			if bytes.Compare(last, name) >= 0 {
				return fmt.Errorf("label %.200q comes after label %.200q, want labels sorted by name", name, last)
			}
			last = name
			if len(value) > 0 { // a label without a value is an absent label
				in.scratch.Add(view(name), view(value))
			}
		case num == 2 && !in.SkipChunks:
			c, err := in.decodeChunk(v)
			if err != nil {
				return fmt.Errorf("chunk %d of series %.500s: %w", in.chunksOfLast()+1, in.scratch.Labels(), err)
			}
			in.chunks = append(in.chunks, c)
		}
	}
	in.series = append(in.series, store.Series{Labels: in.scratch.Labels()})
	in.ends = append(in.ends, len(in.chunks))
	return nil
}

// chunksOfLast counts the chunks of the series that is being decoded.
func (in *Incoming) chunksOfLast() int {
	if len(in.ends) == 0 {
		return len(in.chunks)
	}
	return len(in.chunks) - in.ends[len(in.ends)-1]
}

func decodeLabel(b []byte) (name, value []byte, err error) {
	for len(b) > 0 {
		num, typ, v, rest, err := consume(b)
		if err != nil {
			return nil, nil, err
		}
		b = rest
		switch {
		case typ != protowire.BytesType:
		case num == 1:
			name = v
		case num == 2:
			value = v
		}
	}
	return name, value, nil
}

func (in *Incoming) decodeChunk(b []byte) (store.Chunk, error) {
	var c store.Chunk
	for len(b) > 0 {
		num, typ, v, rest, err := consume(b)
		if err != nil {
			return c, err
		}
		b = rest
		switch {
		case num == 1 && typ == protowire.VarintType:
			c.MinTime = varint(v)
		case num == 2 && typ == protowire.VarintType:
			c.MaxTime = varint(v)
		case num >= 3 && num < 3+payloads && typ == protowire.BytesType:
			if num > 3 && c.Aggrs == nil {
				c.Aggrs = in.newAggregates()
			}
			if err := decodePayload(v, payload(&c, int(num-3))); err != nil {
				return c, err
			}
		case num == fieldReplica && typ == protowire.BytesType:
			c.Replica = in.names.String(v)
		}
	}
	if c.MinTime > c.MaxTime {
		return c, fmt.Errorf("it ends at %d, before it begins at %d", c.MaxTime, c.MinTime)
	}
	present := false
	for i := range payloads {
		if p := payload(&c, i); p != nil && p.Present() {
			if len(p.Data) == 0 {
				return c, fmt.Errorf("it has no data")
			}
			present = true
		}
	}
	if !present {
		return c, fmt.Errorf("it has no data")
	}
	return c, nil
}

func (in *Incoming) newAggregates() *store.Aggregates {
	if in.aggrsN == len(in.aggrs) {
		in.aggrs = append(in.aggrs, new(store.Aggregates))
	}
	a := in.aggrs[in.aggrsN]
	*a = store.Aggregates{}
	in.aggrsN++
	return a
}

func decodePayload(b []byte, p *store.Payload) error {
	if !p.Present() {
		p.Encoding = encodingOffset // 0 on the wire, which is left out
	}
	for len(b) > 0 {
		num, typ, v, rest, err := consume(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case num == 1 && typ == protowire.VarintType:
			e := int32(varint(v)) // enums are 32 bits wide
			if e < 0 || e > encodingMax {
				return fmt.Errorf("its encoding has the unknown number %d", e)
			}
			p.Encoding = encodingOffset + chunkenc.Encoding(e)
		case num == 2 && typ == protowire.BytesType:
			p.Data = v
		case num == 3 && typ == protowire.VarintType:
			p.Hash = uint64(varint(v))
		}
	}
	return nil
}

// varint reads a value that consume has found well-formed.
func varint(v []byte) int64 {
	u, _ := protowire.ConsumeVarint(v)
	return int64(u)
}

// inOrder sorts the chunks of a series if its sender did not.
func inOrder(cs []store.Chunk) []store.Chunk {
	for i := 1; i < len(cs); i++ {
		if store.CompareChunks(&cs[i-1], &cs[i]) >= 0 {
			return store.SortChunks(cs)
		}
	}
	return cs
}

func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
