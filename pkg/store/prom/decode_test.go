package prom

import (
	"bytes"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/koios-metrics/koios/pkg/store"
)

// generated decodes a message with Prometheus's generated code and spells it out as ours.
func generated(b []byte) (series []decoded, queryIndex int64, err error) {
	var resp prompb.ChunkedReadResponse
	if err := resp.Unmarshal(b); err != nil {
		return nil, 0, err
	}
	for _, cs := range resp.ChunkedSeries {
		var d decoded
		for _, l := range cs.Labels {
			d.Labels = append(d.Labels, [2]string{l.Name, l.Value})
		}
		for _, c := range cs.Chunks {
			d.Chunks = append(d.Chunks, decodedChunk{c.MinTimeMs, c.MaxTimeMs, int32(c.Type), string(c.Data)})
		}
		series = append(series, d)
	}
	return series, resp.QueryIndex, nil
}

type decoded struct {
	Labels [][2]string
	Chunks []decodedChunk
}

type decodedChunk struct {
	MinTime, MaxTime int64
	Encoding         int32
	Data             string
}

// byHand decodes a message with our code.
func byHand(t testing.TB, b []byte) (series []decoded, queryIndex int64, err error) {
	raw, queryIndex, err := decodeFrame(b, nil)
	if err != nil {
		return nil, 0, err
	}
	for _, r := range raw {
		ls, cs, head, err := decodeSeries(r, nil, nil)
		if err != nil {
			return nil, 0, err
		}
		var d decoded
		for _, l := range ls {
			d.Labels = append(d.Labels, [2]string{string(l.name), string(l.value)})
		}
		for _, c := range cs {
			d.Chunks = append(d.Chunks, decodedChunk{c.minTime, c.maxTime, c.encoding, string(c.data)})
		}
		if head >= 0 {
			if only, none, _, err := decodeSeries(r[:head], nil, nil); err != nil || len(none) > 0 || len(only) != len(ls) {
				t.Errorf("the first %d bytes of %x do not hold its labels alone", head, r)
			}
		}
		series = append(series, d)
	}
	return series, queryIndex, nil
}

func seeds() [][]byte {
	cs := []prompb.Chunk{xor(-5, 3), xor(1_700_000_000_000, 120), {Type: prompb.Chunk_FLOAT_HISTOGRAM, Data: []byte("abc")}}
	return [][]byte{
		nil,
		marshal(chunked(cs, "__name__", "up", "instance", "localhost:9090")),
		marshal(chunked(cs, "a", ""), chunked(nil, "b", "ü"), &prompb.ChunkedSeries{}),
		protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 7),
		protowire.AppendBytes(protowire.AppendTag(nil, 100, protowire.BytesType), []byte("unknown")),
		protowire.AppendFixed64(protowire.AppendTag(nil, 7, protowire.Fixed64Type), 1),
		{0x0a, 0x02, 0x12, 0x00, 0x0b, 0x0c},
		{0x0a, 0x80, 0x00},
		{0x08, 0x01},
	}
}

// forgetUnknown drops fields that have no meaning. The generated code skips groups in them that end with another
// number than they began with; we, like the rest of the world, don't.
func forgetUnknown(resp *prompb.ChunkedReadResponse) {
	resp.XXX_unrecognized = nil
	for _, cs := range resp.ChunkedSeries {
		cs.XXX_unrecognized = nil
		for i := range cs.Labels {
			cs.Labels[i].XXX_unrecognized = nil
		}
		for i := range cs.Chunks {
			cs.Chunks[i].XXX_unrecognized = nil
		}
	}
}

// What our decoder accepts means the same to the generated one; and what the generated one accepts, ours
// does once it is written in the usual way.
func FuzzDecode(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want, wantIndex, wantErr := generated(b)
		got, gotIndex, err := byHand(t, b)
		if err == nil {
			if wantErr != nil {
				t.Fatalf("accepted, while the generated code says %v", wantErr)
			}
			if d := cmp.Diff(want, got); d != "" || gotIndex != wantIndex {
				t.Fatalf("query %d, want %d; (-want +got)\n%s", gotIndex, wantIndex, d)
			}
		}
		if wantErr != nil {
			return
		}
		var resp prompb.ChunkedReadResponse
		if err := resp.Unmarshal(b); err != nil {
			t.Fatal(err)
		}
		forgetUnknown(&resp)
		usual, err := resp.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err = byHand(t, usual); err != nil {
			t.Fatalf("refused: %v", err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
	})
}

// Our reader of frames accepts the streams that Prometheus's does, and no others.
func FuzzFrames(f *testing.F) {
	for _, s := range seeds() {
		f.Add(frame(s))
		f.Add(append(frame(s), frame([]byte("x"))...))
	}
	f.Add([]byte{0x80})
	f.Add([]byte("some error in plain text"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 16
		ours, theirs := newFrameReader(bytes.NewReader(b), limit), remote.NewChunkedReader(bytes.NewReader(b), limit, nil)
		for {
			got, err := ours.next()
			want, wantErr := theirs.Next()
			if (err == nil) != (wantErr == nil) {
				t.Fatalf("got error %v, want %v", err, wantErr)
			}
			if err != nil {
				if err == io.EOF && wantErr != io.EOF {
					t.Fatalf("a regular end, want %v", wantErr)
				}
				return
			}
			if !bytes.Equal(got.data, want) {
				t.Fatalf("got %x, want %x", got.data, want)
			}
			ours.release(got)
		}
	})
}

// Whatever Prometheus answers, a cursor ends, with series in order of which each chunk has a known encoding.
func FuzzStream(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, msg []byte, whole bool) {
		body := append(frame(msg), frame(msg)...)
		if !whole {
			body = msg
		}
		st := &Store{cfg: Config{FrameBytesMax: 1 << 16}, metrics: newMetrics(nil)}
		cur := newStreamed(&answer{ctx: t.Context(), cancel: func() {}, body: io.NopCloser(bytes.NewReader(body)), store: st})
		defer cur.Close()
		last := labels.EmptyLabels()
		for cur.Next() {
			s := cur.At()
			if labels.Compare(last, s.Labels) > 0 {
				t.Errorf("%s comes after %s", s.Labels, last)
			}
			last = s.Labels
			for i := range s.Chunks {
				if c := &s.Chunks[i]; !c.Raw.Present() || c.Raw.Encoding > 3 || len(c.Raw.Data) < 2 || i > 0 && store.CompareChunks(&s.Chunks[i-1], c) >= 0 {
					t.Errorf("chunk %d of %s: %+v", i, s.Labels, c)
				}
			}
		}
		cur.Warnings()
	})
}
