package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
)

// faultyBucket lets a test spoil reads.
type faultyBucket struct {
	objstore.Bucket
	mu sync.Mutex
	n  int
	// rangeFault is asked at each GetRange, with its number: an error to answer with, or the number of bytes after
	// which the body breaks, -1 for never.
	rangeFault func(n int, name string) (error, int)
	iterFault  func() error
}

var errFault = errors.New("connection reset")

func (b *faultyBucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	b.mu.Lock()
	n, fault := b.n, b.rangeFault
	b.n++
	b.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	r, err := b.Bucket.GetRange(ctx, name, off, length)
	if err != nil || fault == nil {
		return r, err
	}
	ferr, after := fault(n, name)
	if ferr != nil {
		r.Close()
		return nil, ferr
	}
	if after >= 0 {
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(r, int64(after)), errReader{}), r}, nil
	}
	return r, nil
}

func (b *faultyBucket) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	if b.iterFault != nil {
		if err := b.iterFault(); err != nil {
			return err
		}
	}
	return b.Bucket.Iter(ctx, dir, f, o...)
}

func (b *faultyBucket) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, o ...objstore.IterOption) error {
	if b.iterFault != nil {
		if err := b.iterFault(); err != nil {
			return err
		}
	}
	return b.Bucket.IterWithAttributes(ctx, dir, f, o...)
}

func (b *faultyBucket) reset(f func(n int, name string) (error, int)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n, b.rangeFault = 0, f
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errFault }

// threeBlocks fills a bucket: two raw blocks of one label set, one after the other, and one of another label set.
func threeBlocks(t testing.TB, bkt objstore.Bucket) {
	var us []handSeries
	for i := range 40 {
		us = append(us, handSeries{ls("__name__", "up", "i", fmt.Sprintf("%02d", i)), []handChunk{xorChunk(1000, 10, float64(i), 2, 3), xorChunk(1100, 10, 4, 5)}})
	}
	handBlock{n: 1, mint: 0, maxt: 2000, external: ls("r", "a"), series: us}.write(t, bkt)
	handBlock{n: 2, mint: 2000, maxt: 4000, external: ls("r", "a"), series: []handSeries{{ls("__name__", "up", "i", "07"), []handChunk{xorChunk(2000, 10, 8, 9)}}}}.write(t, bkt)
	handBlock{n: 3, mint: 0, maxt: 4000, external: ls("r", "b"), series: []handSeries{{ls("__name__", "up", "i", "07"), []handChunk{xorChunk(100, 10, 1)}}}}.write(t, bkt)
}

func upRequest(p store.PartialResponse) *store.SeriesRequest {
	return &store.SeriesRequest{MinTime: 0, MaxTime: 4000, Matchers: []*labels.Matcher{eq("__name__", "up"), matcher(labels.MatchRegexp, "i", "0.|3[1-9]")}, PartialResponse: p}
}

// Shows, for each read of a request refused or broken off, that nothing is lost in silence: the answer is whole, or says
// which block is missing, or is an error where the request wants all or nothing.
func TestReadFaults(t *testing.T) {
	bkt := &faultyBucket{Bucket: objstore.NewInMemBucket()}
	threeBlocks(t, bkt)
	s := open(t, bkt, Config{MemoryBytesMax: 1 << 24})
	bkt.reset(nil)
	all, ws, err := drain(t, s, upRequest(store.Abort))
	if err != nil || len(ws) > 0 {
		t.Fatal(ws, err)
	}
	want, reads := spell(t, all), bkt.n
	if reads < 9 || len(want) != 1*2*19+1+1 {
		t.Fatalf("%d reads, %d lines", reads, len(want))
	}
	for n := range reads {
		for _, after := range []int{-1, 0, 1, 10, 100} {
			fault := func(i int, _ string) (error, int) {
				switch {
				case i != n:
					return nil, -1
				case after < 0:
					return errFault, 0
				}
				return nil, after
			}
			bkt.reset(fault)
			all, ws, err := drain(t, s, upRequest(store.Warn))
			if err != nil {
				t.Fatalf("read %d broken after %d: %v", n, after, err)
			}
			got := spell(t, all)
			if len(ws) == 0 && !slices.Equal(want, got) {
				t.Errorf("read %d broken after %d: lost in silence:\n%s", n, after, cmp.Diff(want, got))
			}
			for _, line := range got {
				if !slices.Contains(want, line) {
					t.Errorf("read %d broken after %d: invented %s", n, after, line)
				}
			}
			for _, w := range ws {
				var gap *store.Gap
				if !errors.As(w, &gap) || !errors.Is(w, errFault) || !strings.HasPrefix(gap.Store, "block 0") || len(gap.LabelSets) != 1 {
					t.Errorf("warning %v", w)
				}
			}
			if after < 0 && len(ws) != 1 {
				t.Errorf("read %d refused: %d warnings", n, len(ws))
			}

			bkt.reset(fault)
			all, ws, err = drain(t, s, upRequest(store.Abort))
			if err == nil && (len(ws) > 0 || !slices.Equal(want, spell(t, all))) {
				t.Errorf("read %d broken after %d: neither whole nor an error", n, after)
			}
			if err != nil && (store.KindOf(err) != store.KindAborted || !errors.Is(err, errFault) || !strings.Contains(err.Error(), "block 0")) {
				t.Errorf("read %d broken after %d: error %v of kind %v", n, after, err, store.KindOf(err))
			}
		}
	}
}

// Shows, for bytes flipped all over index and chunks, that an answer is either right or says that it is not.
func TestFlippedBytes(t *testing.T) {
	clean := objstore.NewInMemBucket()
	series := []handSeries{}
	for i := range 12 {
		series = append(series, handSeries{ls("__name__", "up", "i", fmt.Sprintf("%02d", i)), []handChunk{xorChunk(1000, 10, float64(i), 2, 3), xorChunk(1100, 10, 4, 5)}})
	}
	id := handBlock{n: 1, mint: 0, maxt: 2000, external: ls("r", "a"), series: series}.write(t, clean)
	objects := clean.Objects()
	request := func(p store.PartialResponse) *store.SeriesRequest {
		return &store.SeriesRequest{MinTime: 0, MaxTime: 4000, Matchers: []*labels.Matcher{eq("__name__", "up"), matcher(labels.MatchNotEqual, "i", "05")}, PartialResponse: p}
	}
	all, _, err := drain(t, open(t, clean, Config{}), request(store.Warn))
	if err != nil {
		t.Fatal(err)
	}
	want := spell(t, all)

	told := map[string]int{}
	for _, name := range []string{"index", "chunks/000001"} {
		object := objects[id.String()+"/"+name]
		for i := range object {
			bkt := objstore.NewInMemBucket()
			for n, b := range objects {
				if n == id.String()+"/"+name {
					b = slices.Clone(b)
					b[i] ^= 0xA5
				}
				if err := bkt.Upload(t.Context(), n, bytes.NewReader(b)); err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, bkt, Config{MemoryBytesMax: 1 << 24})
			if len(s.Blocks()) == 0 {
				told["set aside"]++
			}
			all, ws, err := drain(t, s, request(store.Warn))
			if err != nil {
				t.Fatalf("%s, byte %d: %v", name, i, err)
			}
			got := spell(t, all)
			switch {
			case len(ws) > 0:
				told["warned"]++
				if !strings.Contains(ws[0].Error(), id.String()) {
					t.Errorf("%s, byte %d: warning %v", name, i, ws)
				}
				for _, line := range got {
					if !slices.Contains(want, line) {
						t.Errorf("%s, byte %d: invented %s", name, i, line)
					}
				}
				if _, _, err := drain(t, s, request(store.Abort)); store.KindOf(err) != store.KindAborted {
					t.Errorf("%s, byte %d: all or nothing gives %v", name, i, err)
				}
			case !slices.Equal(want, got):
				t.Errorf("%s, byte %d: wrong in silence:\n%s", name, i, cmp.Diff(want, got))
			default:
				told["right"]++
			}
		}
	}
	if told["set aside"] == 0 || told["warned"] == 0 || told["right"] == 0 {
		t.Errorf("the bytes were not spread over all cases: %v", told)
	}
}

// Shows that one damaged chunk costs itself only, and one damaged or missing chunk file the chunks in it.
func TestDamagedChunk(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	name := testID(1).String() + "/chunks/000001"
	b := slices.Clone(bkt.Objects()[name])
	b[8+3] ^= 1 // behind the header of the file: the first chunk, its length, its encoding, its first bytes
	if err := bkt.Upload(t.Context(), name, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	s := open(t, bkt, Config{})
	all, ws, err := drain(t, s, upRequest(store.Warn))
	if err != nil || len(ws) != 1 || !strings.Contains(ws[0].Error(), "checksum") {
		t.Fatal(ws, err)
	}
	var gap *store.Gap
	if !errors.As(ws[0], &gap) || gap.MinTime != 1000 || gap.MaxTime != 1020 {
		t.Errorf("gap %+v", gap)
	}
	if got := spell(t, all); len(got) != 2*19+2-1 || got[0] != `{__name__="up", i="00", r="a"} [1100, 1110] raw[4 5]` {
		t.Errorf("answer: %q", got)
	}

	if err := bkt.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	all, ws, err = drain(t, s, upRequest(store.Warn))
	if err != nil || len(ws) != 1 || !strings.Contains(ws[0].Error(), "38 pieces of data passed over") {
		t.Fatal(ws, err)
	}
	if got := spell(t, all); len(got) != 2 {
		t.Errorf("answer: %q", got)
	}
	if _, _, err := drain(t, s, upRequest(store.Abort)); store.KindOf(err) != store.KindAborted {
		t.Errorf("all or nothing gives %v", err)
	}
}

// Shows that bad blocks are set aside, counted, and loaded once they are put right, while good ones are served.
func TestBadBlocks(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	put := func(name string, b []byte) {
		t.Helper()
		if err := bkt.Upload(t.Context(), name, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	objects := bkt.Objects()
	meta := func(n byte) []byte {
		return bytes.ReplaceAll(objects[testID(1).String()+"/meta.json"], []byte(testID(1).String()), []byte(testID(n).String()))
	}
	index := objects[testID(1).String()+"/index"]
	put(testID(10).String()+"/meta.json", []byte("{")) // malformed
	put(testID(11).String()+"/index", index)           // half uploaded
	put(testID(12).String()+"/meta.json", meta(12))    // without an index
	put(testID(13).String()+"/meta.json", meta(13))
	put(testID(13).String()+"/chunks/000001", objects[testID(1).String()+"/chunks/000001"])
	put(testID(13).String()+"/index", index[:len(index)/2]) // cut short
	put(testID(14).String()+"/meta.json", meta(14))
	put(testID(14).String()+"/index", nil)
	put(testID(15).String()+"/meta.json", bytes.Replace(meta(15), []byte(`"version": 1`), []byte(`"version": 2`), 1)) // not known
	put(testID(15).String()+"/index", index)

	s, reg := openWith(t, bkt, Config{})
	loads := func(loaded, failures float64) {
		t.Helper()
		if got := testutil.ToFloat64(s.metrics.blocksLoaded); got != loaded {
			t.Errorf("%v blocks loaded, want %v", got, loaded)
		}
		if got := testutil.ToFloat64(s.metrics.blockLoadFailures); got != failures {
			t.Errorf("%v blocks failed, want %v", got, failures)
		}
	}
	loads(3, 3)
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP thanos_blocks_meta_synced Blocks by what the last look at the bucket made of them.
# TYPE thanos_blocks_meta_synced gauge
thanos_blocks_meta_synced{state="corrupted-meta-json"} 2
thanos_blocks_meta_synced{state="duplicate"} 0
thanos_blocks_meta_synced{state="failed"} 0
thanos_blocks_meta_synced{state="label-excluded"} 0
thanos_blocks_meta_synced{state="loaded"} 6
thanos_blocks_meta_synced{state="marked-for-deletion"} 0
thanos_blocks_meta_synced{state="marked-for-no-compact"} 0
thanos_blocks_meta_synced{state="no-meta-json"} 1
thanos_blocks_meta_synced{state="parquet-migrated"} 0
thanos_blocks_meta_synced{state="time-excluded"} 0
thanos_blocks_meta_synced{state="too-fresh"} 0
`), "thanos_blocks_meta_synced"); err != nil {
		t.Error(err)
	}
	// Of those that were a block a request is told.
	missing := func(want ...byte) {
		t.Helper()
		var aside []byte
		for _, a := range s.SetAside() {
			aside = append(aside, a.ID[15])
		}
		if diff := cmp.Diff(append([]byte{10, 11}, want...), aside); diff != "" {
			t.Errorf("set aside (-want +got):\n%s", diff)
		}
		_, ws, err := drain(t, s, upRequest(store.Warn))
		if err != nil || len(ws) != len(want) {
			t.Fatal(ws, err)
		}
		for i, n := range want {
			var gap *store.Gap
			if !errors.As(ws[i], &gap) || gap.Store != "block "+testID(n).String() || gap.MinTime != 0 || gap.MaxTime != 2000 || !strings.Contains(gap.Error(), "set aside") {
				t.Errorf("warning %v", ws[i])
			}
		}
		if _, _, err := drain(t, s, upRequest(store.Abort)); store.KindOf(err) != store.KindAborted || !strings.Contains(err.Error(), testID(want[0]).String()) {
			t.Errorf("all or nothing gives %v", err)
		}
	}
	missing(12, 13, 14, 15)
	if n := testutil.ToFloat64(s.metrics.damaged.WithLabelValues("index_header")); n != 3 {
		t.Errorf("%v damaged", n)
	}
	put(testID(13).String()+"/index", index)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	loads(4, 5)
	missing(12, 14, 15)
	if n := testutil.ToFloat64(s.metrics.damaged.WithLabelValues("index_header")); n != 3 {
		t.Errorf("%v damaged after another look", n)
	}
}

// Shows that the Store refuses what is past each limit, with the error's kind and text, and counts it.
func TestLimits(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	f := func(cfg Config, reason, want string) {
		t.Helper()
		s := open(t, bkt, cfg)
		_, _, err := drain(t, s, upRequest(store.Warn))
		if want == "" {
			if err != nil {
				t.Error(err)
			}
			return
		}
		if store.KindOf(err) != store.KindLimit || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if reason != "" && testutil.ToFloat64(s.metrics.queriesDropped.WithLabelValues(reason, "default-tenant")) != 1 {
			t.Errorf("not counted as %s", reason)
		}
	}
	f(Config{SeriesLimit: 21, ChunksLimit: 40, BytesLimit: 1 << 20, MemoryBytesMax: 1 << 20}, "", "")
	f(Config{SeriesLimit: 20}, "series", "expanded matching posting: exceeded series limit: limit 20 violated (got 2")
	f(Config{ChunksLimit: 39}, "chunks", "exceeded chunks limit: limit 39 violated (got 40)")
	f(Config{BytesLimit: 1}, "bytes", "expanded matching posting: fetch and expand postings: exceeded bytes limit while fetching postings: limit 1 violated (got ")
	f(Config{BytesLimit: 1100}, "bytes", "exceeded bytes limit while fetching series: limit 1100 violated (got ")
	f(Config{BytesLimit: 1100}, "bytes", "preload series: ")
	f(Config{MemoryBytesMax: 5000}, "", "memory for reading blocks")

	// The bytes of the chunks come last.
	s := open(t, bkt, Config{})
	a := s.newAccount("t")
	mem := s.memory.newShare(0)
	ts, _ := s.targets(upRequest(store.Warn).Matchers, nil, func(g *blockGroup) []*loaded { return g.choose(0, 4000, 0, false) })
	cs, err := s.open(t.Context(), upRequest(store.Warn), ts, a, mem, "t")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		c.Close()
	}
	mem.leave()
	n := a.bytes.Load()
	f(Config{BytesLimit: n - 1}, "bytes", "load chunks: exceeded bytes limit while fetching chunks: limit ")
	f(Config{BytesLimit: n}, "", "")
}

// Shows that matchers on __block_id choose blocks, in all three calls.
func TestBlockMatchers(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	s := open(t, bkt, Config{})
	req := upRequest(store.Abort)
	req.BlockMatchers = []*labels.Matcher{eq(block.IDLabel, testID(3).String())}
	all, _, err := drain(t, s, req)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`{__name__="up", i="07", r="b"} [100, 100] raw[1]`}, spell(t, all)); diff != "" {
		t.Error(diff)
	}
	vs, _, err := s.LabelValues(t.Context(), &store.LabelValuesRequest{Label: "r", MinTime: 0, MaxTime: 4000, BlockMatchers: req.BlockMatchers})
	if err != nil || !slices.Equal(vs, []string{"b"}) {
		t.Error(vs, err)
	}
	ns, _, err := s.LabelNames(t.Context(), &store.LabelNamesRequest{MinTime: 0, MaxTime: 4000, BlockMatchers: []*labels.Matcher{eq(block.IDLabel, "none")}})
	if err != nil || len(ns) > 0 {
		t.Error(ns, err)
	}
}

// Shows that label calls warn of a block that can't be read, and fail where all or nothing is wanted.
func TestLabelCallFaults(t *testing.T) {
	bkt := &faultyBucket{Bucket: objstore.NewInMemBucket()}
	threeBlocks(t, bkt)
	s := open(t, bkt, Config{MemoryBytesMax: 1 << 24})
	bkt.reset(func(_ int, name string) (error, int) {
		if strings.HasPrefix(name, testID(3).String()) {
			return errFault, 0
		}
		return nil, -1
	})
	ms := []*labels.Matcher{eq("__name__", "up")}
	vs, ws, err := s.LabelValues(t.Context(), &store.LabelValuesRequest{Label: "r", MinTime: 0, MaxTime: 4000, Matchers: ms})
	if err != nil || len(ws) != 1 || !slices.Equal(vs, []string{"a"}) {
		t.Error(vs, ws, err)
	}
	ns, ws, err := s.LabelNames(t.Context(), &store.LabelNamesRequest{MinTime: 0, MaxTime: 4000, Matchers: ms})
	if err != nil || len(ws) != 1 || !slices.Equal(ns, []string{"__name__", "i", "r"}) {
		t.Error(ns, ws, err)
	}
	if _, _, err := s.LabelNames(t.Context(), &store.LabelNamesRequest{MinTime: 0, MaxTime: 4000, Matchers: ms, PartialResponse: store.Abort}); store.KindOf(err) != store.KindAborted {
		t.Error(err)
	}
	if _, _, err := s.LabelValues(t.Context(), &store.LabelValuesRequest{Label: "i", MinTime: 0, MaxTime: 4000, Matchers: ms, PartialResponse: store.Abort}); store.KindOf(err) != store.KindAborted {
		t.Error(err)
	}
}
