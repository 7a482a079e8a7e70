package bucket

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/store"
)

// Shows, for each kind of damage that a request meets, that the block is listed as set aside with its cause and counted
// once, that a warning names it and its time, and that the other blocks answer. (If it is counted
// each time, it fails.)
func TestDamageIsNoted(t *testing.T) {
	whole := objstore.NewInMemBucket()
	threeBlocks(t, whole)
	all, _, err := drain(t, open(t, whole, Config{}), upRequest(store.Abort))
	if err != nil {
		t.Fatal(err)
	}
	want := spell(t, all)
	id := testID(1).String()
	idx, chunks := id+"/index", id+"/chunks/000001"
	f := func(name string, part damagedPart, object string, damage func(b []byte) []byte) {
		t.Helper()
		bkt := &faultyBucket{Bucket: objstore.NewInMemBucket()}
		threeBlocks(t, bkt)
		s := open(t, bkt, Config{MemoryBytesMax: 1 << 24})
		b := damage(slices.Clone(whole.Objects()[object]))
		err := bkt.Delete(t.Context(), object)
		if b != nil {
			err = bkt.Upload(t.Context(), object, bytes.NewReader(b))
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			all, ws, err := drain(t, s, upRequest(store.Warn))
			if err != nil || len(ws) != 1 {
				t.Fatalf("%s: %v %v", name, ws, err)
			}
			var gap *store.Gap
			if !errors.As(ws[0], &gap) || gap.Store != "block "+id || gap.MinTime < 0 || gap.MaxTime > 2000 {
				t.Errorf("%s: warning %v", name, ws[0])
			}
			got := spell(t, all)
			for _, line := range want {
				if ours := strings.Contains(line, `r="a"`) && !strings.Contains(line, "[2000, 2010]"); !ours && !slices.Contains(got, line) {
					t.Errorf("%s: %s is missing", name, line)
				}
			}
		}
		aside := s.SetAside()
		if len(aside) != 1 || aside[0].ID != testID(1) || aside[0].Meta == nil || !strings.HasPrefix(aside[0].Cause.Error(), string(part)+": ") {
			t.Errorf("%s: set aside: %v", name, aside)
		}
		for _, p := range damagedParts {
			n := 0.
			if p == part {
				n = 1
			}
			if got := testutil.ToFloat64(s.metrics.damaged.WithLabelValues(string(p))); got != n {
				t.Errorf("%s: %v times %s", name, got, p)
			}
		}
		if _, _, err := drain(t, s, upRequest(store.Abort)); store.KindOf(err) != store.KindAborted || !strings.Contains(err.Error(), id) {
			t.Errorf("%s: all or nothing gives %v", name, err)
		}
	}
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			b[(at+len(b))%len(b)] ^= 1
			return b
		}
	}
	list, entry := places(t, whole.Objects()[idx])
	f("chunk with a wrong checksum", damagedChunks, chunks, flip(8+3))
	f("truncated chunk file", damagedChunks, chunks, func(b []byte) []byte { return b[:len(b)/2] })
	f("absent chunk file", damagedChunks, chunks, func([]byte) []byte { return nil })
	f("flipped byte of a posting list", damagedPostings, idx, flip(list+8))
	f("flipped byte of a series", damagedSeries, idx, flip(entry+3))
	f("absent index", damagedHeader, idx, func([]byte) []byte { return nil })
}

// places returns where in an index the posting list of __name__="up" and the first series are.
func places(t *testing.T, b []byte) (list, entry int) {
	t.Helper()
	r, err := index.NewReader(sliceBytes(b), index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := r.PostingsRanges()
	if err != nil {
		t.Fatal(err)
	}
	toc, err := index.NewTOCFromByteSlice(sliceBytes(b))
	if err != nil {
		t.Fatal(err)
	}
	return int(rs[labels.Label{Name: "__name__", Value: "up"}].Start), int(toc.Series+15) / 16 * 16
}

type sliceBytes []byte

func (b sliceBytes) Len() int                { return len(b) }
func (b sliceBytes) Range(i, j int) []byte   { return b[i:j] }
func (b sliceBytes) Sub(i, j int) sliceBytes { return b[i:j] }

// Shows that a block of which nothing can be read is left alone for a while, so that it costs no requests, is tried again
// then, and is served as before once it is put right. (Without leftAlone it fails.)
func TestLeftAlone(t *testing.T) {
	bkt := &faultyBucket{Bucket: objstore.NewInMemBucket()}
	threeBlocks(t, bkt)
	s := open(t, bkt, Config{})
	name := testID(1).String() + "/index"
	kept, err := bkt.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	var index bytes.Buffer
	if _, err := index.ReadFrom(kept); err != nil {
		t.Fatal(err)
	}
	if err := bkt.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	reads := func() (n int, ws store.Warnings) {
		t.Helper()
		bkt.reset(func(_ int, name string) (error, int) {
			if strings.HasPrefix(name, testID(1).String()) {
				n++
			}
			return nil, -1
		})
		_, ws, err := drain(t, s, upRequest(store.Warn))
		if err != nil {
			t.Fatal(err)
		}
		return n, ws
	}
	if _, ws := reads(); len(ws) != 1 {
		t.Fatal(ws)
	}
	if err := bkt.Upload(t.Context(), name, &index); err != nil {
		t.Fatal(err)
	}
	if n, ws := reads(); n != 0 || len(ws) != 1 || !strings.Contains(ws[0].Error(), "set aside since") {
		t.Errorf("%d reads, %v", n, ws)
	}
	b := s.blocks.Load().byID[testID(1)]
	d := *b.damage.Load()
	d.at = d.at.Add(-damagePause)
	b.damage.Store(&d)
	if n, ws := reads(); n == 0 || len(ws) > 0 {
		t.Errorf("%d reads, %v", n, ws)
	}
	if len(s.SetAside()) > 0 {
		t.Error(s.SetAside())
	}
}

// Shows that matchers with thousands of posting lists select what trying each series does, whether the lists lie one
// behind the other or not. (If ranges that do not touch are joined, it
// fails.)
func TestManyLists(t *testing.T) {
	const n = 3 * listsApartMax
	var series []handSeries
	for i := range n {
		series = append(series, handSeries{ls("__name__", "up", "host", fmt.Sprintf("h%05d", i), "job", fmt.Sprint(i%7)), []handChunk{xorChunk(1000, 10, float64(i))}})
	}
	bkt := objstore.NewInMemBucket()
	handBlock{n: 1, mint: 0, maxt: 2000, external: ls("r", "a"), series: series}.write(t, bkt)
	for _, cfg := range []Config{{}, {MemoryBytesMax: 1 << 24, IndexCacheBytesMax: 1 << 20}} {
		s := open(t, bkt, cfg)
		for _, pattern := range []string{".+", "h.*", ".*1.*", "h0[012].*", "h.*[3-9]", "none"} {
			for _, typ := range []labels.MatchType{labels.MatchRegexp, labels.MatchNotRegexp} {
				for range 2 { // the second time from the cache
					var want []string
					re := regexp.MustCompile("^(?:" + pattern + ")$")
					for _, x := range series {
						if re.MatchString(x.labels.Get("host")) == (typ == labels.MatchRegexp) && x.labels.Get("job") != "3" {
							want = append(want, x.labels.Get("host"))
						}
					}
					req := &store.SeriesRequest{MinTime: 0, MaxTime: 2000, SkipChunks: true, PartialResponse: store.Abort, Matchers: []*labels.Matcher{
						eq("__name__", "up"), matcher(typ, "host", pattern), matcher(labels.MatchNotEqual, "job", "3"),
					}}
					all, _, err := drain(t, s, req)
					if err != nil {
						t.Fatal(pattern, err)
					}
					var got []string
					for _, x := range all {
						got = append(got, x.Labels.Get("host"))
					}
					if !slices.Equal(got, want) {
						t.Errorf("%s%s: %d series, want %d: %s", typ, pattern, len(got), len(want), cmp.Diff(want, got)[:200])
					}
				}
			}
		}
	}
}
