package wire

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/storepb"
)

func xor(data string) store.Payload {
	return store.Payload{Encoding: chunkenc.EncXOR, Data: []byte(data)}
}

// samples are series with everything that a frame can hold.
func samples() []*store.Series {
	return []*store.Series{
		{Labels: labels.EmptyLabels()},
		{Labels: labels.FromStrings("__name__", "up", "größe", "🜁")},
		{Labels: labels.FromStrings("__name__", "raw"), Chunks: []store.Chunk{
			{MinTime: -5, MaxTime: 0, Raw: xor("a"), Replica: "replica\x00a\x00"},
			{MinTime: 0, MaxTime: 1 << 40, Raw: store.Payload{Encoding: chunkenc.EncHistogram, Data: []byte("histogram")}},
			{MinTime: 1, MaxTime: 2, Raw: store.Payload{Encoding: chunkenc.EncFloatHistogram, Data: []byte(strings.Repeat("long", 100)), Hash: 7}},
		}},
		{Labels: labels.FromStrings("__name__", "downsampled", "long", strings.Repeat("value", 100)), Chunks: []store.Chunk{
			{MinTime: 1, MaxTime: 2, Aggrs: &store.Aggregates{Count: xor("count"), Sum: xor("sum")}},
			{MinTime: 3, MaxTime: 4, Aggrs: &store.Aggregates{Min: xor("min"), Max: xor("max"), Counter: xor("counter")}},
			{MinTime: 5, MaxTime: 6, Raw: xor("raw in a downsampled block"), Replica: strings.Repeat("größe\x00🜁\x00", 20)},
		}},
	}
}

// generated is the same series as generated types hold it, hashes filled in.
func generated(s *store.Series) *storepb.Series {
	m := &storepb.Series{Labels: EncodeLabels(s.Labels)}
	chunk := func(p store.Payload) *storepb.Chunk {
		if !p.Present() {
			return nil
		}
		return &storepb.Chunk{Type: storepb.Chunk_Encoding(p.Encoding - 1), Data: p.Data, Hash: p.Sum64()}
	}
	for _, c := range s.Chunks {
		a := c.Aggrs
		if a == nil {
			a = &store.Aggregates{}
		}
		m.Chunks = append(m.Chunks, &storepb.AggrChunk{
			MinTime: c.MinTime, MaxTime: c.MaxTime, Raw: chunk(c.Raw),
			Count: chunk(a.Count), Sum: chunk(a.Sum), Min: chunk(a.Min), Max: chunk(a.Max), Counter: chunk(a.Counter), Replica: c.Replica,
		})
	}
	return m
}

func seriesFrame(m *storepb.Series) *storepb.SeriesResponse {
	return &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: m}}
}

func encoded(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if n := proto.Size(m); n != len(b) {
		t.Errorf("size %d of %d bytes", n, len(b))
	}
	return b
}

// One frame used for everything in turn encodes byte for byte what the generated code does, and gRPC's
// own codec takes it.
func TestOutgoing(t *testing.T) {
	o := NewOutgoing()
	same := func(what string, want proto.Message) {
		t.Helper()
		w := encoded(t, want)
		if got := encoded(t, o); !bytes.Equal(got, w) {
			t.Errorf("%s:\n got %x\nwant %x", what, got, w)
		}
		sent, err := (Codec{}).Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sent.Materialize(), w) {
			t.Errorf("%s: differs through the codec", what)
		}
	}
	same("nothing", &storepb.SeriesResponse{})

	var batch Batch
	var ms []*storepb.Series
	for _, s := range samples() {
		if err := o.SetSeries(s.Labels, s.Chunks); err != nil {
			t.Fatal(err)
		}
		same(s.Labels.String(), seriesFrame(generated(s)))
		ms = append(ms, generated(s))
		if err := batch.Add(s.Labels, s.Chunks); err != nil {
			t.Fatal(err)
		}
	}
	o.SetBatch(&batch)
	same("batch", &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Batch{Batch: &storepb.SeriesBatch{Series: ms}}})
	if batch.Len() != len(ms) {
		t.Errorf("batch has %d series, want %d", batch.Len(), len(ms))
	}

	o.SetWarning("no\xffUTF-8")
	same("warning", &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Warning{Warning: "no\uFFFDUTF-8"}})
	o.SetWarning("")
	same("empty warning", &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Warning{}})
	o.Reset()
	same("nothing", &storepb.SeriesResponse{})
}

// Chunks that have no form on the wire are refused, not sent as something else.
func TestOutgoingRefuses(t *testing.T) {
	f := func(c store.Chunk, want string) {
		t.Helper()
		ls := labels.FromStrings("__name__", "up")
		for _, err := range []error{NewOutgoing().SetSeries(ls, []store.Chunk{c}), new(Batch).Add(ls, []store.Chunk{c})} {
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ls.String()) {
				t.Errorf("got %v, want the series and %q", err, want)
			}
		}
	}
	f(store.Chunk{}, "no data")
	f(store.Chunk{Aggrs: &store.Aggregates{}}, "no data")
	f(store.Chunk{Raw: store.Payload{Encoding: 4, Data: []byte("x")}}, "encoding 4")
	f(store.Chunk{Aggrs: &store.Aggregates{Max: store.Payload{Encoding: 255, Data: []byte("x")}}}, "encoding 255")
}

// withHashes fills in the hashes, as the wire does.
func withHashes(s *store.Series) *store.Series {
	c := s.Clone()
	for i := range c.Chunks {
		c.Chunks[i].Payloads(func(_ store.Aggr, p *store.Payload) { p.Hash = p.Sum64() })
	}
	return c
}

var compareLabels = cmp.Comparer(labels.Equal)

// One frame decodes everything in turn into what was encoded, series and batches alike, and with
// SkipChunks into labels alone.
func TestIncoming(t *testing.T) {
	var in Incoming
	decode := func(m proto.Message) []store.Series {
		t.Helper()
		if err := (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(encoded(t, m))}, &in); err != nil {
			t.Fatal(err)
		}
		return in.Series()
	}
	var ms []*storepb.Series
	for _, s := range samples() {
		got := decode(seriesFrame(generated(s)))
		if len(got) != 1 {
			t.Fatalf("got %d series, want 1", len(got))
		}
		if d := cmp.Diff(withHashes(s), got[0].Clone(), compareLabels); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		ms = append(ms, generated(s))
	}
	batch := &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Batch{Batch: &storepb.SeriesBatch{Series: ms}}}
	for range 2 {
		got := decode(batch)
		for i, s := range samples() {
			if d := cmp.Diff(withHashes(s), got[i].Clone(), compareLabels); d != "" {
				t.Errorf("in a batch (-want +got)\n%s", d)
			}
		}
	}
	in.SkipChunks = true
	for i, s := range decode(batch) {
		if len(s.Chunks) != 0 || !labels.Equal(s.Labels, samples()[i].Labels) {
			t.Errorf("without chunks: got %s with %d chunks", s.Labels, len(s.Chunks))
		}
	}

	if got := decode(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Warning{Warning: "w"}}); len(got) != 0 {
		t.Errorf("a warning has %d series", len(got))
	}
	if w, ok := in.Warning(); w != "w" || !ok {
		t.Errorf("warning %q, %v", w, ok)
	}
	for _, m := range []*storepb.SeriesResponse{{}, {Result: &storepb.SeriesResponse_Hints{Hints: &anypb.Any{TypeUrl: "x/y", Value: []byte("z")}}}} {
		if got := decode(m); len(got) != 0 {
			t.Errorf("%v: got %d series", m, len(got))
		}
		if w, ok := in.Warning(); ok {
			t.Errorf("%v: got warning %q", m, w)
		}
	}
	in.Release()
}

// A peer's chunks are put in order, and equal ones are kept once; labels without a value are absent.
func TestIncomingTidies(t *testing.T) {
	chunk := func(mint int64) *storepb.AggrChunk {
		return &storepb.AggrChunk{MinTime: mint, MaxTime: mint + 1, Raw: &storepb.Chunk{Data: []byte("x")}}
	}
	var in Incoming
	err := in.Decode(encoded(t, seriesFrame(&storepb.Series{
		Labels: []*labelpb.Label{{Name: "a", Value: "1"}, {Name: "b"}, {Name: "c", Value: "2"}},
		Chunks: []*storepb.AggrChunk{chunk(3), chunk(1), chunk(3)},
	})))
	if err != nil {
		t.Fatal(err)
	}
	got := in.Series()[0]
	if want := labels.FromStrings("a", "1", "c", "2"); !labels.Equal(got.Labels, want) {
		t.Errorf("got %s, want %s", got.Labels, want)
	}
	if len(got.Chunks) != 2 || got.Chunks[0].MinTime != 1 || got.Chunks[1].MinTime != 3 {
		t.Errorf("got chunks %v", got.Chunks)
	}
}

// The names of replicas cost no allocation a chunk, also where they take turns: that of the labels stays the only
// one. Kept longer than their frame they stay what they were.
func TestReplicasAreInterned(t *testing.T) {
	s := &store.Series{Labels: labels.FromStrings("__name__", "up")}
	for i := range int64(100) {
		s.Chunks = append(s.Chunks, store.Chunk{MinTime: i, MaxTime: i, Raw: xor("x"), Replica: []string{"r\x00a\x00", "", "r\x00b\x00"}[i%3]})
	}
	frame := encoded(t, seriesFrame(generated(s)))
	var in Incoming
	decode := func() {
		if err := in.Decode(frame); err != nil {
			t.Fatal(err)
		}
	}
	decode()
	if n := testing.AllocsPerRun(20, decode); n > 1 {
		t.Errorf("%v allocations a frame, want that of the labels", n)
	}
	kept := in.Series()[0].Clone()
	for i := range frame {
		frame[i] = 0xff
	}
	if got := kept.Chunks[0].Replica + kept.Chunks[1].Replica + kept.Chunks[2].Replica; got != "r\x00a\x00r\x00b\x00" {
		t.Errorf("got %q once the frame was gone", got)
	}
}

func label(ss ...string) []*labelpb.Label {
	var ls []*labelpb.Label
	for i := 0; i < len(ss); i += 2 {
		ls = append(ls, &labelpb.Label{Name: ss[i], Value: ss[i+1]})
	}
	return ls
}

// Each frame that makes no sense is refused with a reason.
func TestIncomingRefuses(t *testing.T) {
	good := &storepb.Chunk{Data: []byte("x")}
	f := func(s *storepb.Series, want string) {
		t.Helper()
		var in Incoming
		for _, m := range []*storepb.SeriesResponse{
			seriesFrame(s),
			{Result: &storepb.SeriesResponse_Batch{Batch: &storepb.SeriesBatch{Series: []*storepb.Series{{Labels: label("a", "1")}, s}}}},
		} {
			err := in.Decode(encoded(t, m))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			if len(in.Series()) != 0 {
				t.Errorf("series are left after an error")
			}
		}
	}
	f(&storepb.Series{Labels: label("", "v")}, `label with value "v" has no name`)
	f(&storepb.Series{Labels: label("b", "1", "a", "1")}, `label "a" comes after label "b"`)
	f(&storepb.Series{Labels: label("a", "1", "a", "2")}, `label "a" comes after label "a"`)
	f(&storepb.Series{Labels: label("a", strings.Repeat("x", 1<<24))}, "16 MiB or more")
	f(&storepb.Series{Labels: label(strings.Repeat("x", 1<<24), "1")}, "16 MiB or more")
	f(&storepb.Series{Labels: label("a", "1"), Chunks: []*storepb.AggrChunk{{MinTime: 1, MaxTime: 2}}}, `chunk 1 of series {a="1"}: it has no data`)
	f(&storepb.Series{Chunks: []*storepb.AggrChunk{{Raw: &storepb.Chunk{}}}}, "it has no data")
	f(&storepb.Series{Chunks: []*storepb.AggrChunk{{Raw: good}, {Sum: good, Counter: &storepb.Chunk{Hash: 1}}}}, "chunk 2 of series {}: it has no data")
	f(&storepb.Series{Chunks: []*storepb.AggrChunk{{Raw: &storepb.Chunk{Type: 3, Data: []byte("x")}}}}, "unknown number 3")
	f(&storepb.Series{Chunks: []*storepb.AggrChunk{{Raw: &storepb.Chunk{Type: -1, Data: []byte("x")}}}}, "unknown number -1")
	f(&storepb.Series{Chunks: []*storepb.AggrChunk{{MinTime: 2, MaxTime: 1, Raw: good}}}, "ends at 1, before it begins at 2")

	whole := encoded(t, seriesFrame(generated(samples()[3])))
	for n := 1; n < len(whole); n++ {
		if err := new(Incoming).Decode(whole[:n]); err == nil {
			t.Errorf("a frame cut off after %d of %d bytes was taken", n, len(whole))
		}
	}
}

// The longest label there can be comes through.
func TestLongLabel(t *testing.T) {
	want := strings.Repeat("x", 1<<24-1)
	var in Incoming
	if err := in.Decode(encoded(t, seriesFrame(&storepb.Series{Labels: label("a", want)}))); err != nil {
		t.Fatal(err)
	}
	if got := in.Series()[0].Labels.Get("a"); got != want {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
}

// sound says independently of the decoder whether a frame makes sense, and what it says.
func sound(m *storepb.SeriesResponse) (want []*store.Series, ok bool) {
	var all []*storepb.Series
	switch r := m.GetResult().(type) {
	case *storepb.SeriesResponse_Series:
		all = append(all, r.Series)
	case *storepb.SeriesResponse_Batch:
		all = r.Batch.GetSeries()
	}
	payload := func(c *storepb.Chunk) store.Payload {
		if c == nil {
			return store.Payload{}
		}
		ok = ok && len(c.Data) > 0 && c.Type >= 0 && c.Type <= 2
		return store.Payload{Encoding: chunkenc.Encoding(c.Type + 1), Data: c.Data, Hash: c.Hash}
	}
	ok = true
	for _, s := range all {
		names := make([]string, len(s.Labels))
		w := &store.Series{}
		b := labels.NewScratchBuilder(0)
		for i, l := range s.Labels {
			names[i] = l.Name
			if l.Value != "" {
				b.Add(l.Name, l.Value)
			}
		}
		ok = ok && slices.IsSorted(names) && len(slices.Compact(names)) == len(s.Labels) && !slices.Contains(names, "")
		w.Labels = b.Labels()
		for _, c := range s.Chunks {
			some := c.Count != nil || c.Sum != nil || c.Min != nil || c.Max != nil || c.Counter != nil
			ok = ok && c.MinTime <= c.MaxTime && (c.Raw != nil || some)
			sc := store.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Raw: payload(c.Raw), Replica: c.Replica}
			if some {
				sc.Aggrs = &store.Aggregates{Count: payload(c.Count), Sum: payload(c.Sum), Min: payload(c.Min), Max: payload(c.Max), Counter: payload(c.Counter)}
			}
			w.Chunks = append(w.Chunks, sc)
		}
		w.Chunks = store.SortChunks(w.Chunks)
		want = append(want, w.Clone())
	}
	return want, ok
}

// Whatever bytes come in, the decoder does not panic; frames that the generated code can read it reads
// alike, or refuses exactly when they make no sense; and what it has read goes out again as it was.
func FuzzFrame(f *testing.F) {
	add := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		return b
	}
	var ms []*storepb.Series
	var pieces []byte
	for _, s := range samples() {
		ms = append(ms, generated(s))
		pieces = append(pieces, add(seriesFrame(generated(s)))...)
	}
	add(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Batch{Batch: &storepb.SeriesBatch{Series: ms}}})
	warn := add(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Warning{Warning: "rpc error: code = ResourceExhausted"}})
	add(&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Hints{Hints: &anypb.Any{TypeUrl: "type.googleapis.com/hintspb.SeriesResponseHints"}}})
	f.Add(pieces) // one series in several pieces
	f.Add(append(warn, pieces...))
	f.Add(append(pieces, warn...))
	twice := generated(samples()[2])
	twice.Chunks = append(twice.Chunks, generated(samples()[2]).Chunks...)
	twice.Chunks[3].Replica, twice.Chunks[4].Replica = "a", "b"
	add(seriesFrame(twice))
	f.Add([]byte{0x0a, 0x04, 0x12, 0x02, 0x1a, 0x00}) // a chunk of nothing
	f.Add([]byte{0x0a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01})
	f.Add([]byte{0x0b, 0x0c, 0x2b, 0x08, 0x01, 0x2c})
	f.Fuzz(func(t *testing.T, b []byte) {
		var in Incoming
		err := in.Decode(b)
		var m storepb.SeriesResponse
		if proto.Unmarshal(b, &m) != nil {
			return // it also refuses what is no UTF-8, and looks into hints
		}
		want, ok := sound(&m)
		if ok != (err == nil) {
			t.Fatalf("error %v, sense %v: %v", err, ok, &m)
		}
		if err != nil {
			return
		}
		if text, is := in.Warning(); text != m.GetWarning() || is != isWarning(&m) {
			t.Errorf("warning %q %v, want %q", text, is, m.GetWarning())
		}
		if len(want) != len(in.Series()) {
			t.Fatalf("got %d series, want %d", len(in.Series()), len(want))
		}
		var batch Batch
		for i := range in.Series() {
			got := in.Series()[i]
			if d := cmp.Diff(want[i], got.Clone(), compareLabels); d != "" {
				t.Errorf("(-generated +ours)\n%s", d)
			}
			o := NewOutgoing()
			if err := o.SetSeries(got.Labels, got.Chunks); err != nil {
				t.Fatal(err)
			}
			if err := batch.Add(got.Labels, got.Chunks); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(encoded(t, o), encoded(t, seriesFrame(generated(&got)))) {
				t.Errorf("%s goes out differently from the generated code", got.Labels)
			}
		}
		o := NewOutgoing()
		o.SetBatch(&batch)
		var back Incoming
		if err := back.Decode(encoded(t, o)); err != nil {
			t.Fatal(err)
		}
		for i := range back.Series() {
			if d := cmp.Diff(withHashes(want[i]), back.Series()[i].Clone(), compareLabels); d != "" {
				t.Errorf("there and back (-want +got)\n%s", d)
			}
		}
	})
}

func isWarning(m *storepb.SeriesResponse) bool {
	_, ok := m.GetResult().(*storepb.SeriesResponse_Warning)
	return ok
}

// Encoding and decoding 1000 series of 10 chunks of 240 bytes, without gRPC; the generated code beside it,
// though without the checks that decoding makes. On two shared cores: encode 0.6 µs a series and nothing
// allocated, generated 3.8 µs and 30; decode 1.0 µs and 1 allocation (the labels), generated 4.8 µs
// and 57.
func BenchmarkFrame(b *testing.B) {
	series := make([]*store.Series, 1000)
	data := bytes.Repeat([]byte("0123456789abcdef"), 15)
	for i := range series {
		s := &store.Series{Labels: labels.FromStrings("__name__", "http_requests_total", "cluster", "eu-west-1", "code", "200", "instance", string(rune('a'+i%26))+".example.org:9090", "job", "api")}
		for j := range 10 {
			s.Chunks = append(s.Chunks, store.Chunk{MinTime: int64(j) * 1000, MaxTime: int64(j)*1000 + 999, Raw: store.Payload{Encoding: chunkenc.EncXOR, Data: data, Hash: xxhash.Sum64(data)}})
		}
		series[i] = s
	}
	perSeries := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(series)), "ns/series")
	}
	var buf []byte
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		o := NewOutgoing()
		for b.Loop() {
			for _, s := range series {
				if err := o.SetSeries(s.Labels, s.Chunks); err != nil {
					b.Fatal(err)
				}
				buf, _ = proto.MarshalOptions{}.MarshalAppend(buf[:0], o)
			}
		}
		perSeries(b)
	})
	b.Run("encode/generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, s := range series {
				buf, _ = proto.MarshalOptions{}.MarshalAppend(buf[:0], seriesFrame(generated(s)))
			}
		}
		perSeries(b)
	})
	frame := encoded(b, seriesFrame(generated(series[0])))
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		var in Incoming
		for b.Loop() {
			for range series {
				if err := in.Decode(frame); err != nil {
					b.Fatal(err)
				}
			}
		}
		perSeries(b)
	})
	b.Run("decode/generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for range series {
				var m storepb.SeriesResponse
				if err := proto.Unmarshal(frame, &m); err != nil {
					b.Fatal(err)
				}
			}
		}
		perSeries(b)
	})
}
