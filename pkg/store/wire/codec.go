package wire

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Codec is gRPC's own codec for protobuf, but for an Incoming, which it lets share the received buffer, and an
// Outgoing, whose buffer it takes from a pool of finer steps. A client forces it on a call (grpc.ForceCodecV2), a
// server on itself (grpc.ForceServerCodecV2); peers see no difference.
type Codec struct{}

// frames are the buffers that frames travel in. gRPC's own pool goes from 32 KiB to 1 MiB in one step and clears
// each buffer whole, which for frames in between costs more than to encode them.
var frames = newFramePool()

func newFramePool() mem.BufferPool {
	p, err := mem.NewBinaryTieredBufferPool(12, 13, 14, 15, 16, 17, 18, 19, 20, 21)
	if err != nil {
		panic("BUG: sizes of the frame pool: " + err.Error())
	}
	return p
}

var _ encoding.CodecV2 = Codec{}

// Name implements encoding.CodecV2.
func (Codec) Name() string { return proto.Name }

// Marshal implements encoding.CodecV2.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	if o, ok := v.(*Outgoing); ok {
		size := o.Size()
		if mem.IsBelowBufferPoolingThreshold(size) {
			return mem.BufferSlice{mem.SliceBuffer(o.append(make([]byte, 0, size)))}, nil
		}
		buf := frames.Get(size)
		*buf = o.append((*buf)[:0])
		return mem.BufferSlice{mem.NewBuffer(buf, frames)}, nil
	}
	return encoding.GetCodecV2(proto.Name).Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	if in, ok := v.(*Incoming); ok {
		return in.decode(data)
	}
	return encoding.GetCodecV2(proto.Name).Unmarshal(data, v)
}
