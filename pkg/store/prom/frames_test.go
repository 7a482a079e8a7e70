package prom

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

const streamedType = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"

// frame puts length and checksum before a message.
func frame(msg []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(len(msg)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(msg, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, msg...)
}

func marshal(series ...*prompb.ChunkedSeries) []byte {
	b, err := (&prompb.ChunkedReadResponse{ChunkedSeries: series}).Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

func chunked(cs []prompb.Chunk, ls ...string) *prompb.ChunkedSeries {
	return &prompb.ChunkedSeries{Labels: prompb.FromLabels(labels.FromStrings(ls...), nil), Chunks: cs}
}

// xor makes a chunk of n samples from time t on.
func xor(t int64, n int) prompb.Chunk {
	c := chunkenc.NewXORChunk()
	app, _ := c.Appender()
	for i := range n {
		app.Append(t+int64(i), float64(i))
	}
	return prompb.Chunk{MinTimeMs: t, MaxTimeMs: t + int64(n) - 1, Type: prompb.Chunk_XOR, Data: c.Bytes()}
}

// over makes a Store that gets body for every remote read.
func over(t testing.TB, cfg Config, body []byte) *Store {
	p := &fakeProm{external: labels.FromStrings("r", "a"), hideLabels: true}
	empty := newFakeProm(t, storetest.Data{})
	p.db = empty.db
	p.read = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", streamedType)
		_, _ = w.Write(body)
	}
	return p.store(t, cfg)
}

func describe(all []*store.Series) []string {
	var out []string
	for _, s := range all {
		line := s.Labels.String()
		for _, c := range s.Chunks {
			line += fmt.Sprintf(" [%d,%d]", c.MinTime, c.MaxTime)
		}
		out = append(out, line)
	}
	return out
}

// Frames of one series become one series, several series in a frame are told apart, external labels come
// off and on, and odd but valid messages are understood.
func TestFrames(t *testing.T) {
	one := func(at int64, ls ...string) *prompb.ChunkedSeries { return chunked([]prompb.Chunk{xor(at, 3)}, ls...) }
	concat := slices.Concat[[]byte]
	// The labels after the chunks, as no server sends them.
	chunksFirst := func() []byte {
		cs, _ := (&prompb.ChunkedSeries{Chunks: []prompb.Chunk{xor(50, 3)}}).Marshal()
		ls, _ := (&prompb.ChunkedSeries{Labels: prompb.FromLabels(labels.FromStrings("a", "1", "r", "a"), nil)}).Marshal()
		series := append(cs, ls...)
		return append(append([]byte{field1Bytes}, binary.AppendUvarint(nil, uint64(len(series)))...), series...)
	}()
	for name, c := range map[string]struct {
		body []byte
		want []string
	}{
		"nothing":              {nil, nil},
		"an empty frame":       {frame(nil), nil},
		"a series":             {frame(marshal(one(1, "a", "1", "r", "a"))), []string{`{a="1", r="a"} [1,3]`}},
		"unmerged":             {frame(marshal(one(1, "a", "1"))), []string{`{a="1", r="a"} [1,3]`}},
		"two frames of one":    {concat(frame(marshal(one(1, "a", "1", "r", "a"))), frame(marshal(one(11, "a", "1", "r", "a")))), []string{`{a="1", r="a"} [1,3] [11,13]`}},
		"two series a frame":   {frame(marshal(one(1, "a", "1", "r", "a"), one(1, "a", "2", "r", "a"))), []string{`{a="1", r="a"} [1,3]`, `{a="2", r="a"} [1,3]`}},
		"one across others":    {concat(frame(marshal(one(1, "a", "1"), one(1, "a", "2"))), frame(marshal(one(21, "a", "2"), one(1, "a", "3"))), frame(marshal(one(11, "a", "3")))), []string{`{a="1", r="a"} [1,3]`, `{a="2", r="a"} [1,3] [21,23]`, `{a="3", r="a"} [1,3] [11,13]`}},
		"labels after chunks":  {concat(frame(marshal(one(1, "a", "1", "r", "a"))), frame(chunksFirst)), []string{`{a="1", r="a"} [1,3] [50,52]`}},
		"unsorted labels":      {frame(marshal(&prompb.ChunkedSeries{Labels: []prompb.Label{{Name: "b", Value: "1"}, {Name: "a", Value: "1"}, {Name: "c"}}, Chunks: []prompb.Chunk{xor(1, 3)}})), []string{`{a="1", b="1", r="a"} [1,3]`}},
		"chunks out of order":  {concat(frame(marshal(one(11, "a", "1"))), frame(marshal(one(1, "a", "1"))), frame(marshal(one(1, "a", "1")))), []string{`{a="1", r="a"} [1,3] [11,13]`}},
		"a series of no chunk": {concat(frame(marshal(chunked(nil, "a", "0"))), frame(marshal(one(1, "a", "1")))), []string{`{a="1", r="a"} [1,3]`}},
		"an unknown field":     {frame(append(marshal(one(1, "a", "1")), 0x7a, 2, 'h', 'i')), []string{`{a="1", r="a"} [1,3]`}},
	} {
		all, ws, err := drain(over(t, Config{}, c.body), everything())
		if err != nil || len(ws) > 0 {
			t.Errorf("%s: warnings %v, error %v", name, ws, err)
		}
		if d := cmp.Diff(c.want, describe(all)); d != "" {
			t.Errorf("%s: (-want +got)\n%s", name, d)
		}
	}
}

// Hostile streams end with an error of the right kind that says what is wrong; what came whole before is
// handed out.
func TestHostileFrames(t *testing.T) {
	series := func(a string) []byte {
		return frame(marshal(chunked([]prompb.Chunk{xor(1, 100)}, "__name__", "m", "r", "a", "z", a)))
	}
	good, second := series("1"), series("2")
	wrong := slices.Clone(second)
	wrong[len(wrong)-1] ^= 1
	twice := marshal(&prompb.ChunkedSeries{Labels: []prompb.Label{{Name: "b", Value: "1"}, {Name: "b", Value: "2"}}, Chunks: []prompb.Chunk{xor(1, 3)}})
	otherQuery, _ := (&prompb.ChunkedReadResponse{QueryIndex: 1}).Marshal()
	for name, c := range map[string]struct {
		tail []byte
		kind store.Kind
		text string
	}{
		"truncated message":      {second[:len(second)-1], store.KindUnavailable, "cut off in the middle of a frame"},
		"truncated checksum":     {second[:3], store.KindUnavailable, "cut off in the middle of a frame"},
		"truncated length":       {[]byte{0x80}, store.KindUnavailable, "cut off in the middle of a frame"},
		"wrong checksum":         {wrong, store.KindInternal, "wrong checksum"},
		"absurd length":          {binary.AppendUvarint(nil, math.MaxUint64), store.KindLimit, "more than the 52428800 allowed"},
		"length of no number":    {bytes.Repeat([]byte{0xff}, 20), store.KindInternal, "length is no number"},
		"no message":             {frame([]byte{0x0a, 0xff}), store.KindInternal, "malformed message"},
		"no message inside":      {frame([]byte{0x0a, 2, 0x0a, 0x7f}), store.KindInternal, "malformed message"},
		"wrong wire type":        {frame([]byte{0x08, 1}), store.KindInternal, "malformed message"},
		"label twice":            {frame(twice), store.KindInternal, `label "b" twice`},
		"another query":          {frame(otherQuery), store.KindInternal, "not asked"},
		"an error in plain text": {[]byte("cannot populate chunk 8: no such chunk\n"), store.KindInternal, "broke off with: cannot populate chunk 8: no such chunk"},
		"series out of order":    {frame(marshal(chunked([]prompb.Chunk{xor(1, 3)}, "__name__", "m", "z", "0"))), store.KindUnavailable, "ask again"},
	} {
		all, _, err := drain(over(t, Config{}, slices.Concat(good, c.tail)), everything())
		if err == nil || store.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: kind %d, %v", name, store.KindOf(err), err)
		}
		if len(all) != 1 || all[0].Labels.Get("z") != "1" {
			t.Errorf("%s: %d series before the error", name, len(all))
		}
	}
	if _, _, err := drain(over(t, Config{FrameBytesMax: 10}, good), everything()); store.KindOf(err) != store.KindLimit {
		t.Errorf("frame past a small maximum: %v", err)
	}
}

// A length that lies within the limit costs the memory of what came, not of what was announced.
func TestLyingLength(t *testing.T) {
	lie := append(binary.AppendUvarint(nil, 1<<30), bytes.Repeat([]byte{0xee}, 100)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := newFrameReader(bytes.NewReader(lie), math.MaxInt32).next()
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 8<<20 {
		t.Errorf("%d bytes spent", spent)
	}
}

// A frame larger than what is allocated on the word of its length comes whole.
func TestLargeFrame(t *testing.T) {
	msg := bytes.Repeat([]byte("0123456789"), 500_000)
	b, err := newFrameReader(bytes.NewReader(frame(msg)), 10<<20).next()
	if err != nil || !bytes.Equal(b.data, msg) {
		t.Errorf("%v", err)
	}
}

// Chunks that can't be read are left out with a warning that names the hole, or fail a request that does
// not allow holes. What they hold is never looked at.
func TestBadChunks(t *testing.T) {
	cs := []prompb.Chunk{
		xor(1, 3),
		{MinTimeMs: 10, MaxTimeMs: 20, Type: 4, Data: []byte("some new encoding")},
		{MinTimeMs: 21, MaxTimeMs: 30, Type: prompb.Chunk_XOR, Data: []byte{1}},
		{MinTimeMs: 31, MaxTimeMs: 40, Type: prompb.Chunk_HISTOGRAM, Data: []byte{1, 2}},
		{MinTimeMs: 51, MaxTimeMs: 50, Type: prompb.Chunk_XOR, Data: []byte{0, 1, 2}},
		{MinTimeMs: 61, MaxTimeMs: 70, Type: 257, Data: []byte{0, 1, 2}},
		xor(100, 3),
	}
	body := frame(marshal(chunked(cs, "a", "1"), chunked(cs[1:2], "a", "2")))
	all, ws, err := drain(over(t, Config{Name: "p"}, body), everything())
	if err != nil || len(all) != 1 || len(all[0].Chunks) != 2 {
		t.Errorf("%v, %v", describe(all), err)
	}
	var gap *store.Gap
	if len(ws) != 1 || !errors.As(ws[0], &gap) || gap.MinTime != 10 || gap.MaxTime != 70 || len(gap.LabelSets) != 1 || gap.Store != "p" {
		t.Fatalf("warnings %v", ws)
	}
	if s := gap.Error(); !strings.Contains(s, "6 chunks can't be read") || !strings.Contains(s, `{a="1"}`) || !strings.Contains(s, "encoding 4 is not known") {
		t.Error(s)
	}
	req := everything()
	req.PartialResponse = store.Abort
	if _, _, err := drain(over(t, Config{}, body), req); store.KindOf(err) != store.KindAborted {
		t.Errorf("aborting: %v", err)
	}
}

// A series that goes on for ever comes in parts of a bounded size.
func TestEndlessSeries(t *testing.T) {
	var body []byte
	data := make([]byte, 1<<20)
	for i := range 20 {
		body = append(body, frame(marshal(chunked([]prompb.Chunk{{MinTimeMs: int64(i), MaxTimeMs: int64(i), Type: prompb.Chunk_XOR, Data: data}}, "a", "1")))...)
	}
	all, _, err := drain(over(t, Config{}, body), everything())
	if err != nil || len(all) != 3 {
		t.Fatalf("%d parts, %v", len(all), err)
	}
	if n := len(all[0].Chunks) + len(all[1].Chunks) + len(all[2].Chunks); n != 20 {
		t.Errorf("%d chunks", n)
	}
}

// A kept series is not changed by the frames that follow, however large its frame was.
func TestKeep(t *testing.T) {
	for name, per := range map[string]int{"a series a frame": 1, "many series a frame": 10} {
		var body []byte
		for i := 0; i < 20; i += per {
			var ss []*prompb.ChunkedSeries
			for j := range per {
				ss = append(ss, chunked([]prompb.Chunk{xor(int64(i+j), 120)}, "a", fmt.Sprintf("%02d", i+j)))
			}
			body = append(body, frame(marshal(ss...))...)
		}
		p := over(t, Config{}, body)
		cur, err := p.readStored(t.Context(), query{mint: 0, maxt: 1})
		if err != nil {
			t.Fatal(err)
		}
		var kept, cloned []*store.Series
		for cur.Next() {
			cloned = append(cloned, cur.At().Clone())
			kept = append(kept, store.Keep(cur))
			if d := cmp.Diff(cur.At(), kept[len(kept)-1], cmp.Comparer(labels.Equal)); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
		if cur.Err() != nil || len(kept) != 20 {
			t.Fatalf("%d series, %v", len(kept), cur.Err())
		}
		cur.Close()
		if d := cmp.Diff(cloned, kept, cmp.Comparer(labels.Equal)); d != "" {
			t.Errorf("%s: (-clone +kept)\n%s", name, d)
		}
	}
}

// A caller that gives up in the middle of a stream gets the cause, and Prometheus sees the request end.
func TestCancel(t *testing.T) {
	gone := make(chan struct{})
	p := newFakeProm(t, storetest.Data{})
	p.read = func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		w.Header().Set("Content-Type", streamedType)
		for i := range 3 {
			_, _ = w.Write(frame(marshal(chunked([]prompb.Chunk{xor(1, 3)}, "a", fmt.Sprint(i)))))
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cur, err := p.store(t, Config{}).Series(ctx, everything())
	if err != nil {
		t.Fatal(err)
	}
	if !cur.Next() {
		t.Fatal(cur.Err())
	}
	cancel(cause)
	for cur.Next() {
	}
	if !errors.Is(cur.Err(), cause) {
		t.Errorf("got %v", cur.Err())
	}
	if err := errors.Join(cur.Close(), cur.Close()); err != nil {
		t.Error(err)
	}
	<-gone
}

// Closing a cursor early ends the transfer, too.
func TestCloseEarly(t *testing.T) {
	gone := make(chan struct{})
	p := newFakeProm(t, storetest.Data{})
	p.read = func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		w.Header().Set("Content-Type", streamedType)
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	cur, err := p.store(t, Config{}).Series(t.Context(), everything())
	if err != nil {
		t.Fatal(err)
	}
	if err := cur.Close(); err != nil {
		t.Error(err)
	}
	if cur.Next() {
		t.Error("a series after Close")
	}
	<-gone
}
