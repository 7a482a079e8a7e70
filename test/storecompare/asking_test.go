//go:build compat

package storecompare

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	encproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/proto/storepb"
)

const frameBytesMax = math.MaxInt32

// unread is a codec whose answers are counted and let go, so that the asking costs as little as it can.
type unread struct{}

type size struct{ bytes int }

func (unread) Name() string { return encproto.Name }

func (unread) Marshal(v any) (mem.BufferSlice, error) {
	return encoding.GetCodecV2(encproto.Name).Marshal(v)
}

func (unread) Unmarshal(data mem.BufferSlice, v any) error {
	v.(*size).bytes += data.Len()
	return nil
}

// ask asks and lets the answer go; it returns its bytes.
func ask(ctx context.Context, cc *grpc.ClientConn, q question) (int, error) {
	var n size
	options := []grpc.CallOption{grpc.ForceCodecV2(unread{}), grpc.MaxCallRecvMsgSize(frameBytesMax)}
	if q.method != storepb.Store_Series_FullMethodName {
		err := cc.Invoke(ctx, q.method, q.request, &n, options...)
		return n.bytes, err
	}
	stream, err := open(ctx, cc, q, options)
	if err != nil {
		return 0, err
	}
	for {
		if err := stream.RecvMsg(&n); errors.Is(err, io.EOF) {
			return n.bytes, nil
		} else if err != nil {
			return n.bytes, err
		}
	}
}

func open(ctx context.Context, cc *grpc.ClientConn, q question, options []grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := cc.NewStream(ctx, &storepb.Store_ServiceDesc.Streams[0], q.method, options...)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(q.request); err != nil {
		return nil, err
	}
	return stream, stream.CloseSend()
}

// answer is what a program said, in a form that does not depend on how it was cut into frames and chunks.
type answer struct {
	series  map[string]held // by labels
	strings []string        // of label calls
}

// held is what there is of a series: how many different samples, and a hash of them.
type held struct {
	samples int
	hash    uint64
}

func (a answer) samples() (n int) {
	for _, h := range a.series {
		n += h.samples
	}
	return n
}

// read asks and reads the answer.
func read(ctx context.Context, cc *grpc.ClientConn, q question) (answer, error) {
	options := []grpc.CallOption{grpc.MaxCallRecvMsgSize(frameBytesMax)}
	switch r := q.request.(type) {
	case *storepb.LabelNamesRequest:
		res, err := storepb.NewStoreClient(cc).LabelNames(ctx, r, options...)
		return answer{strings: res.GetNames()}, errors.Join(err, warned(res.GetWarnings()))
	case *storepb.LabelValuesRequest:
		res, err := storepb.NewStoreClient(cc).LabelValues(ctx, r, options...)
		return answer{strings: res.GetValues()}, errors.Join(err, warned(res.GetWarnings()))
	}
	r := q.request.(*storepb.SeriesRequest)
	stream, err := open(ctx, cc, q, options)
	if err != nil {
		return answer{}, err
	}
	a := answer{series: map[string]held{}}
	var g gathered
	for {
		res := &storepb.SeriesResponse{}
		err := stream.RecvMsg(res)
		if errors.Is(err, io.EOF) {
			g.into(a.series)
			return a, nil
		}
		if err == nil {
			err = warned(nonEmpty(res.GetWarning()))
		}
		for _, s := range append(res.GetBatch().GetSeries(), nonNil(res.GetSeries())...) {
			if err == nil {
				err = g.add(s, r.MinTime, r.MaxTime, a.series)
			}
		}
		if err != nil {
			return a, err
		}
	}
}

func warned(warnings []string) error {
	if len(warnings) == 0 {
		return nil
	}
	return fmt.Errorf("warnings: %s", strings.Join(warnings, "; "))
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func nonNil(s *storepb.Series) []*storepb.Series {
	if s == nil {
		return nil
	}
	return []*storepb.Series{s}
}

// gathered is the series that comes in at the moment, in as many parts as it likes.
type gathered struct {
	labels  string
	samples []sample
}

type sample struct {
	t int64
	v uint64 // bits
}

func (g *gathered) add(s *storepb.Series, mint, maxt int64, into map[string]held) error {
	var key strings.Builder
	for _, l := range s.Labels {
		fmt.Fprintf(&key, "%q=%q,", l.Name, l.Value)
	}
	if key.String() != g.labels {
		if _, ok := into[key.String()]; ok {
			return fmt.Errorf("series {%s} comes twice", &key)
		}
		g.into(into)
		g.labels = key.String()
	}
	for _, c := range s.Chunks {
		if c.GetRaw().GetType() != storepb.Chunk_XOR {
			return fmt.Errorf("series {%s}: chunk of type %v", &key, c.GetRaw().GetType())
		}
		x, err := chunkenc.FromData(chunkenc.EncXOR, c.Raw.Data)
		if err != nil {
			return fmt.Errorf("series {%s}: %w", &key, err)
		}
		it := x.Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			// Chunks come whole, or cut to the range: both are right.
			if t, v := it.At(); t >= mint && t <= maxt {
				g.samples = append(g.samples, sample{t, math.Float64bits(v)})
			}
		}
		if err := it.Err(); err != nil {
			return fmt.Errorf("series {%s}: %w", &key, err)
		}
	}
	return nil
}

func (g *gathered) into(series map[string]held) {
	if g.labels == "" {
		return
	}
	slices.SortFunc(g.samples, func(a, b sample) int { return cmp.Or(cmp.Compare(a.t, b.t), cmp.Compare(a.v, b.v)) })
	different := slices.Compact(g.samples)
	var b []byte
	for _, s := range different {
		b = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, uint64(s.t)), s.v)
	}
	series[g.labels] = held{len(different), xxhash.Sum64(b)}
	g.labels, g.samples = "", g.samples[:0]
}

var _ proto.Message = (*storepb.SeriesRequest)(nil)
