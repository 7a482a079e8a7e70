package bucket

import (
	"context"
	"fmt"
	"go/build"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	koiosobjstore "github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/pkg/store"
)

// Shows that matchers of every kind and in every mixture find what looking at each series finds.
func TestRandomMatchers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	names := []string{"__name__", "a", "b", "c", "zz"}
	var series []handSeries
	seen := map[string]bool{}
	for range 400 {
		b := labels.NewBuilder(ls("__name__", "m"+fmt.Sprint(rnd.IntN(3))))
		for _, n := range names[1:4] {
			if v := rnd.IntN(6); v > 0 {
				b.Set(n, []string{"x", "xy", "y", "x.y", "é"}[v-1])
			}
		}
		if l := b.Labels(); !seen[l.String()] {
			seen[l.String()] = true
			series = append(series, handSeries{l, []handChunk{xorChunk(1000, 10, 1)}})
		}
	}
	slices.SortFunc(series, func(x, y handSeries) int { return labels.Compare(x.labels, y.labels) })
	bkt := objstore.NewInMemBucket()
	handBlock{n: 1, mint: 0, maxt: 2000, series: series}.write(t, bkt)
	eager := open(t, bkt, Config{MemoryBytesMax: 1 << 24, SeriesBatchSize: 7})
	lazy := open(t, bkt, Config{SeriesBatchSize: 7, LazyPostings: true, KeySeriesRatioMax: 0.01})
	types := []labels.MatchType{labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp}
	plain := []string{"", "x", "xy", "m1", "nope"}
	regexps := []string{"", ".*", ".+", "x|y", "x|", "x.*", "(x|xy)", "[^x]+", "m1|m2|nope", "^$", "|", "(?i:X)", ".*y", "m.?", "x\\.y"}
	for i := range 6000 {
		s := eager
		if i%2 > 0 {
			s = lazy
		}
		var ms []*labels.Matcher
		for range 1 + rnd.IntN(4) {
			typ, vs := types[rnd.IntN(4)], plain
			if typ == labels.MatchRegexp || typ == labels.MatchNotRegexp {
				vs = regexps
			}
			ms = append(ms, matcher(typ, names[rnd.IntN(len(names))], vs[rnd.IntN(len(vs))]))
		}
		var want, got []string
		for _, x := range series {
			if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(x.labels.Get(m.Name)) }) {
				want = append(want, x.labels.String())
			}
		}
		all, ws, err := drain(t, s, &store.SeriesRequest{MinTime: 0, MaxTime: 2000, Matchers: ms, SkipChunks: true})
		if err != nil || len(ws) > 0 {
			t.Fatal(ms, ws, err)
		}
		for _, x := range all {
			got = append(got, x.Labels.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%v (-want +got):\n%s", ms, diff)
		}
	}
	if n := testutil.ToFloat64(lazy.metrics.lazyPostings); n < 500 {
		t.Errorf("posting lists were left unread %v times", n)
	}
}

// Shows that an index of version 1, as Prometheus wrote it in 2017 and keeps it among its test data, reads as Prometheus
// itself reads it.
func TestIndexVersion1(t *testing.T) {
	pkg, err := build.Import("github.com/prometheus/prometheus/tsdb", ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(pkg.Dir, "testdata", "index_format_v1")
	m, err := block.ReadMetaDir(src)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), m.ULID.String())
	if err := os.CopyFS(dir, os.DirFS(src)); err != nil {
		t.Fatal(err)
	}
	// Files of the module cache are read-only.
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, 0o777)
	})
	if err != nil {
		t.Fatal(err)
	}
	pb, err := tsdb.OpenBlock(slog.New(slog.NewTextHandler(io.Discard, nil)), dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pb.Close()
	q, err := tsdb.NewBlockChunkQuerier(pb, m.MinTime, m.MaxTime)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	bkt := objstore.NewInMemBucket()
	upload(t, bkt, dir, labels.EmptyLabels())
	s := open(t, bkt, Config{})
	if v := s.blocks.Load().byID[m.ULID].header.IndexVersion(); v != 1 {
		t.Fatalf("index has version %d", v)
	}
	names, _, err := s.LabelNames(t.Context(), &store.LabelNamesRequest{MinTime: m.MinTime, MaxTime: m.MaxTime})
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		ms := []*labels.Matcher{matcher(labels.MatchRegexp, name, ".+")}
		var want []string
		ss := q.Select(context.Background(), true, nil, ms...)
		for ss.Next() {
			it := ss.At().Iterator(nil)
			for it.Next() {
				c := it.At()
				want = append(want, fmt.Sprintf("%s [%d, %d] %x", ss.At().Labels(), c.MinTime, c.MaxTime, c.Chunk.Bytes()))
			}
		}
		all, ws, err := drain(t, s, &store.SeriesRequest{MinTime: m.MinTime, MaxTime: m.MaxTime, Matchers: ms})
		if err != nil || len(ws) > 0 {
			t.Fatal(ws, err)
		}
		var got []string
		for _, x := range all {
			for _, c := range x.Chunks {
				got = append(got, fmt.Sprintf("%s [%d, %d] %x", x.Labels, c.MinTime, c.MaxTime, c.Raw.Data))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
			t.Errorf("%s: %d chunks (-want +got):\n%s", name, len(want), diff)
		}
	}
}

// Shows the whole way over S3: a bucket opened from a config, blocks uploaded to it and served from it.
func TestS3(t *testing.T) {
	backend := s3mem.New()
	if err := backend.CreateBucket("blocks"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	defer srv.Close()
	content := "type: S3\nconfig: {bucket: blocks, endpoint: '" + strings.TrimPrefix(srv.URL, "http://") +
		"', access_key: key, secret_key: secret, insecure: true, region: test, http_config: {idle_conn_timeout: 1ms}}\nprefix: metrics"
	bkt, err := koiosobjstore.New(log.NewNopLogger(), []byte(content), prometheus.NewRegistry(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer bkt.Close()
	threeBlocks(t, bkt)
	inmem := objstore.NewInMemBucket()
	threeBlocks(t, inmem)
	for _, how := range []block.Discovery{block.DiscoverConcurrent, block.DiscoverRecursive} {
		want, _, err := drain(t, open(t, inmem, Config{}), upRequest(store.Abort))
		if err != nil {
			t.Fatal(err)
		}
		got, ws, err := drain(t, open(t, bkt, Config{Discovery: how}), upRequest(store.Abort))
		if err != nil || len(ws) > 0 {
			t.Fatal(ws, err)
		}
		if diff := cmp.Diff(spell(t, want), spell(t, got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", how, diff)
		}
	}
}

// Shows that chunks and series longer than estimated are read whole, and counted as read again.
func TestRefetch(t *testing.T) {
	var vs []float64
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		vs = append(vs, rnd.Float64())
	}
	var many []handChunk
	for i := range int64(3000) {
		many = append(many, xorChunk(i*1000, 10, 1))
	}
	bkt := objstore.NewInMemBucket()
	handBlock{n: 1, mint: 0, maxt: 1 << 40, series: []handSeries{
		{ls("__name__", "big"), []handChunk{xorChunk(0, 10, vs...)}},
		{ls("__name__", "many"), many},
	}}.write(t, bkt)
	f := func(cfg Config, series, chunks bool) {
		t.Helper()
		s := open(t, bkt, cfg)
		all, ws, err := drain(t, s, &store.SeriesRequest{MinTime: 0, MaxTime: 1 << 40, Matchers: []*labels.Matcher{matcher(labels.MatchRegexp, "__name__", "big|many")}})
		if err != nil || len(ws) > 0 || len(all) != 2 {
			t.Fatal(len(all), ws, err)
		}
		if !slices.Equal(values(t, all[0].Chunks[0].Raw), vs) || len(all[1].Chunks) != 3000 {
			t.Error("wrong data")
		}
		refetched := func(c *prometheus.CounterVec) bool { return counterOf(t, c) > 0 }
		if refetched(s.metrics.seriesRefetches) != series || refetched(s.metrics.chunkRefetches) != chunks {
			t.Errorf("%+v: series read again %v, chunks %v", cfg, refetched(s.metrics.seriesRefetches), refetched(s.metrics.chunkRefetches))
		}
	}
	// What is known of the block says that chunks are small, so the big one is read again however much it may be.
	f(Config{EstimatedSeriesBytesMax: 1 << 20, EstimatedChunkBytesMax: 1 << 20}, false, true)
	f(Config{EstimatedSeriesBytesMax: 100, EstimatedChunkBytesMax: 100}, true, true)

	// The big chunk comes last, and the size of its file is not known.
	bkt = objstore.NewInMemBucket()
	handBlock{n: 1, mint: 0, maxt: 1 << 40, series: []handSeries{
		{ls("__name__", "big"), []handChunk{xorChunk(0, 10, vs...)}},
		{ls("__name__", "many"), many[:1]},
	}}.write(t, bkt)
	s := open(t, bkt, Config{})
	all, ws, err := drain(t, s, &store.SeriesRequest{MinTime: 0, MaxTime: 1 << 40, Matchers: []*labels.Matcher{eq("__name__", "big")}})
	if err != nil || len(ws) > 0 || !slices.Equal(values(t, all[0].Chunks[0].Raw), vs) {
		t.Fatal(len(all), ws, err)
	}
	if counterOf(t, s.metrics.chunkRefetches) != 1 {
		t.Error("not counted")
	}
}

func counterOf(t testing.TB, c *prometheus.CounterVec) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	fams, err := reg.Gather()
	if err != nil || len(fams) == 0 {
		t.Fatal(fams, err)
	}
	return fams[0].GetMetric()[0].GetCounter().GetValue()
}

// Shows that a request over more data than a window holds a window's worth at a time, and that series which are kept
// back for their order, or kept by the caller, stay what they are when the window moves on.
func TestWindows(t *testing.T) {
	const n, size = 400, 22_000
	rnd := rand.New(rand.NewPCG(7, 8))
	series := make([]handSeries, n)
	first := make([]float64, n)
	for i := range series {
		vs := make([]float64, 2500)
		for j := range vs {
			vs[j] = rnd.Float64()
		}
		first[i] = vs[0]
		// Each hundredth is followed by 99 that extend it.
		l := ls("__name__", "m", "b", fmt.Sprint(i/100))
		if i%100 > 0 {
			l = ls("__name__", "m", "b", fmt.Sprint(i/100), "c", fmt.Sprintf("%02d", i%100))
		}
		series[i] = handSeries{l, []handChunk{xorChunk(0, 10, vs...)}}
	}
	bkt := objstore.NewInMemBucket()
	handBlock{n: 1, mint: 0, maxt: 100_000, external: ls("zzz", "1"), series: series}.write(t, bkt)
	for _, replica := range []string{"none", "c", "zzz"} {
		const budget = 40 << 20
		s := open(t, bkt, Config{MemoryBytesMax: budget})
		cur, err := s.Series(t.Context(), &store.SeriesRequest{MinTime: 0, MaxTime: 100_000, Matchers: []*labels.Matcher{eq("__name__", "m")}, WithoutReplicaLabels: []string{replica}})
		if err != nil {
			t.Fatal(err)
		}
		var got []float64
		peak := int64(0)
		var kept []*store.Series
		for cur.Next() {
			peak = max(peak, s.memory.used())
			kept = append(kept, store.Keep(cur))
		}
		if cur.Err() != nil || len(cur.Warnings()) > 0 {
			t.Fatal(cur.Err(), cur.Warnings())
		}
		if err := cur.Close(); err != nil {
			t.Fatal(err)
		}
		for _, x := range kept {
			got = append(got, values(t, x.Chunks[0].Raw)[0])
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(first))
		if !slices.Equal(got, want) {
			t.Errorf("without %s: %d series, some of them wrong", replica, len(got))
		}
		// A removed label that is stored needs all series for sorting; else there are two windows of chunks, and the
		// slack of their slabs.
		if peak > windowBytesMax*4 && replica != "c" {
			t.Errorf("without %s: %d bytes held of %d", replica, peak, n*size)
		}
	}
}
