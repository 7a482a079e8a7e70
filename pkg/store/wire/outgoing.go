package wire

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoiface"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/proto/storepb"
)

// The fields of thanos.SeriesResponse, all of one oneof.
const (
	fieldSeries  protowire.Number = 1
	fieldWarning protowire.Number = 2
	fieldHints   protowire.Number = 3
	fieldBatch   protowire.Number = 4
)

// Outgoing is a frame of a Series answer on its way out: a proto message of type thanos.SeriesResponse
// that encodes itself from what the Set methods lend it. So it passes through any gRPC server, and one
// Outgoing serves a whole stream: what it holds must stay unchanged only until SendMsg has returned, at
// which point gRPC has encoded it.
type Outgoing struct {
	reflected reflected

	field  protowire.Number
	labels labels.Labels
	chunks []store.Chunk
	body   []byte // of a warning or a batch
	text   string
	size   int // of the field's message
	m      measure
}

// NewOutgoing makes an empty frame.
func NewOutgoing() *Outgoing {
	o := &Outgoing{}
	o.reflected = reflected{Message: new(storepb.SeriesResponse).ProtoReflect(), out: o}
	return o
}

// SetSeries makes the frame one of a series, or of a part of its chunks, which are lent. The error is
// about a chunk that has no form on the wire.
func (o *Outgoing) SetSeries(ls labels.Labels, chunks []store.Chunk) error {
	size, err := o.m.series(ls, chunks)
	if err != nil {
		return err
	}
	o.field, o.labels, o.chunks, o.body, o.text, o.size = fieldSeries, ls, chunks, nil, "", size
	return nil
}

// SetWarning makes the frame a warning.
func (o *Outgoing) SetWarning(text string) {
	text = strings.ToValidUTF8(text, "\uFFFD")
	o.field, o.labels, o.chunks, o.body, o.text, o.size = fieldWarning, labels.EmptyLabels(), nil, nil, text, len(text)
}

// SetBatch makes the frame one of the batch's series. The batch is lent.
func (o *Outgoing) SetBatch(b *Batch) {
	o.field, o.labels, o.chunks, o.body, o.text, o.size = fieldBatch, labels.EmptyLabels(), nil, b.body, "", len(b.body)
}

// Reset empties the frame and keeps its memory.
func (o *Outgoing) Reset() {
	o.field, o.labels, o.chunks, o.body, o.text, o.size = 0, labels.EmptyLabels(), nil, nil, "", 0
}

// Size is the size in bytes of the encoded frame.
func (o *Outgoing) Size() int {
	if o.field == 0 {
		return 0
	}
	return protowire.SizeTag(o.field) + protowire.SizeBytes(o.size)
}

func (o *Outgoing) append(b []byte) []byte {
	if o.field == 0 {
		return b
	}
	b = protowire.AppendTag(b, o.field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(o.size))
	switch o.field {
	case fieldSeries:
		return o.m.append(b, o.labels, o.chunks)
	case fieldWarning:
		return append(b, o.text...)
	}
	return append(b, o.body...)
}

// Batch collects series that go out in one frame. Nothing that is added needs to live on: it is encoded
// at once.
type Batch struct {
	body []byte
	n    int
	m    measure
}

// Add adds a series.
func (b *Batch) Add(ls labels.Labels, chunks []store.Chunk) error {
	size, err := b.m.series(ls, chunks)
	if err != nil {
		return err
	}
	b.body = protowire.AppendTag(b.body, 1, protowire.BytesType)
	b.body = protowire.AppendVarint(b.body, uint64(size))
	b.body = b.m.append(b.body, ls, chunks)
	b.n++
	return nil
}

// Len is the number of series.
func (b *Batch) Len() int { return b.n }

// Size is the size in bytes of the encoded series.
func (b *Batch) Size() int { return len(b.body) }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() { b.body, b.n = b.body[:0], 0 }

// ProtoReflect implements proto.Message.
func (o *Outgoing) ProtoReflect() protoreflect.Message { return &o.reflected }

// reflected is what protobuf and gRPC see of an Outgoing: a SeriesResponse with its own way to encode.
type reflected struct {
	protoreflect.Message // an empty SeriesResponse, for its descriptor
	out                  *Outgoing
}

// ProtoMethods implements protoreflect.Message.
func (r *reflected) ProtoMethods() *protoiface.Methods { return &outgoingMethods }

// Interface implements protoreflect.Message.
func (r *reflected) Interface() protoreflect.ProtoMessage { return r.out }

var errOnlyOut = errors.New("BUG: an outgoing frame can only be encoded")

var outgoingMethods = protoiface.Methods{
	Flags: protoiface.SupportMarshalDeterministic,
	Size: func(in protoiface.SizeInput) protoiface.SizeOutput {
		return protoiface.SizeOutput{Size: in.Message.(*reflected).out.Size()}
	},
	Marshal: func(in protoiface.MarshalInput) (protoiface.MarshalOutput, error) {
		return protoiface.MarshalOutput{Buf: in.Message.(*reflected).out.append(in.Buf)}, nil
	},
	Unmarshal: func(protoiface.UnmarshalInput) (protoiface.UnmarshalOutput, error) {
		return protoiface.UnmarshalOutput{}, errOnlyOut
	},
	CheckInitialized: func(protoiface.CheckInitializedInput) (protoiface.CheckInitializedOutput, error) {
		return protoiface.CheckInitializedOutput{}, nil
	},
}

// measure encodes a thanos.Series in two passes: lengths come before what they count. The first pass
// keeps what the second would have to compute again.
type measure struct {
	sizes  []int    // of each chunk
	hashes []uint64 // of each payload
}

// series returns the size of the encoded series.
func (m *measure) series(ls labels.Labels, chunks []store.Chunk) (int, error) {
	m.sizes, m.hashes = m.sizes[:0], m.hashes[:0]
	size := 0
	ls.Range(func(l labels.Label) { size += 1 + protowire.SizeBytes(labelSize(l)) })
	for i := range chunks {
		n, err := m.chunk(&chunks[i])
		if err != nil {
			return 0, fmt.Errorf("encode %.500s: %w", ls, err)
		}
		m.sizes = append(m.sizes, n)
		size += 1 + protowire.SizeBytes(n)
	}
	return size, nil
}

func (m *measure) chunk(c *store.Chunk) (int, error) {
	n, present := 0, false
	if c.MinTime != 0 {
		n += 1 + protowire.SizeVarint(uint64(c.MinTime))
	}
	if c.MaxTime != 0 {
		n += 1 + protowire.SizeVarint(uint64(c.MaxTime))
	}
	for i := range payloads {
		p := payload(c, i)
		if p == nil || !p.Present() {
			continue
		}
		if p.Encoding > encodingOffset+encodingMax {
			return 0, fmt.Errorf("chunk from %s is of encoding %d, which has no number on the wire", store.FormatTime(c.MinTime), p.Encoding)
		}
		h := p.Sum64()
		m.hashes = append(m.hashes, h)
		n += 1 + protowire.SizeBytes(payloadSize(p, h))
		present = true
	}
	if !present {
		return 0, fmt.Errorf("chunk from %s has no data", store.FormatTime(c.MinTime))
	}
	if c.Replica != "" {
		n += replicaTagSize + protowire.SizeBytes(len(c.Replica))
	}
	return n, nil
}

const (
	payloads = 6 // raw, count, sum, min, max, counter: fields 3 to 8 of AggrChunk
	// fieldReplica is Koios's own field of AggrChunk; its tag takes two bytes.
	fieldReplica   = 1001
	replicaTagSize = 2
	// The encodings of the wire are 0 to 2; in chunk files they are 1 to 3.
	encodingOffset = 1
	encodingMax    = 2
)

// payload returns the payload of field 3+i of AggrChunk, nil without aggregates.
func payload(c *store.Chunk, i int) *store.Payload {
	if i == 0 {
		return &c.Raw
	}
	a := c.Aggrs
	if a == nil {
		return nil
	}
	switch i {
	case 1:
		return &a.Count
	case 2:
		return &a.Sum
	case 3:
		return &a.Min
	case 4:
		return &a.Max
	}
	return &a.Counter
}

func labelSize(l labels.Label) int {
	n := 0
	if l.Name != "" {
		n += 1 + protowire.SizeBytes(len(l.Name))
	}
	if l.Value != "" {
		n += 1 + protowire.SizeBytes(len(l.Value))
	}
	return n
}

func payloadSize(p *store.Payload, hash uint64) int {
	n := 0
	if p.Encoding != encodingOffset {
		n += 2
	}
	if len(p.Data) > 0 {
		n += 1 + protowire.SizeBytes(len(p.Data))
	}
	if hash != 0 {
		n += 1 + protowire.SizeVarint(hash)
	}
	return n
}

// append encodes the series that was measured last.
func (m *measure) append(b []byte, ls labels.Labels, chunks []store.Chunk) []byte {
	ls.Range(func(l labels.Label) {
		b = append(b, 1<<3|byte(protowire.BytesType))
		b = protowire.AppendVarint(b, uint64(labelSize(l)))
		if l.Name != "" {
			b = append(b, 1<<3|byte(protowire.BytesType))
			b = protowire.AppendString(b, l.Name)
		}
		if l.Value != "" {
			b = append(b, 2<<3|byte(protowire.BytesType))
			b = protowire.AppendString(b, l.Value)
		}
	})
	hashes := m.hashes
	for i := range chunks {
		c := &chunks[i]
		b = append(b, 2<<3|byte(protowire.BytesType))
		b = protowire.AppendVarint(b, uint64(m.sizes[i]))
		if c.MinTime != 0 {
			b = append(b, 1<<3|byte(protowire.VarintType))
			b = protowire.AppendVarint(b, uint64(c.MinTime))
		}
		if c.MaxTime != 0 {
			b = append(b, 2<<3|byte(protowire.VarintType))
			b = protowire.AppendVarint(b, uint64(c.MaxTime))
		}
		for i := range payloads {
			p := payload(c, i)
			if p == nil || !p.Present() {
				continue
			}
			b = append(b, byte(3+i)<<3|byte(protowire.BytesType))
			b = appendPayload(b, p, hashes[0])
			hashes = hashes[1:]
		}
		if c.Replica != "" {
			b = protowire.AppendTag(b, fieldReplica, protowire.BytesType)
			b = protowire.AppendString(b, c.Replica)
		}
	}
	return b
}

func appendPayload(b []byte, p *store.Payload, hash uint64) []byte {
	b = protowire.AppendVarint(b, uint64(payloadSize(p, hash)))
	if p.Encoding != encodingOffset {
		b = append(b, 1<<3|byte(protowire.VarintType), byte(p.Encoding-encodingOffset))
	}
	if len(p.Data) > 0 {
		b = append(b, 2<<3|byte(protowire.BytesType))
		b = protowire.AppendBytes(b, p.Data)
	}
	if hash != 0 {
		b = append(b, 3<<3|byte(protowire.VarintType))
		b = protowire.AppendVarint(b, hash)
	}
	return b
}
