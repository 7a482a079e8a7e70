package bucket

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/tenancy"
)

func TestMain(m *testing.M) {
	// The client library of one provider starts a logger of its own when it is linked in.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/baidubce/bce-sdk-go/util/log.NewLogger.func1"))
}

// Shows that new blocks are loaded and gone ones dropped, that a cursor goes on over a block that was dropped under it,
// and that the block's files go away with its last cursor.
func TestSync(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	dir := t.TempDir()
	s := open(t, bkt, Config{DataDir: dir, MemoryBytesMax: 1 << 20})
	if d := s.Describe(); d.MinTime != math.MaxInt64 || d.MaxTime != math.MinInt64 || len(d.LabelSets) > 0 {
		t.Errorf("empty: %+v", d)
	}
	threeBlocks(t, bkt)
	sync := func(want int) {
		t.Helper()
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(s.Blocks()) != want || testutil.ToFloat64(s.metrics.blocksLoaded) != float64(want) {
			t.Errorf("%d blocks, want %d", len(s.Blocks()), want)
		}
	}
	sync(3)
	cur, err := s.Series(t.Context(), upRequest(store.Abort))
	if err != nil || !cur.Next() {
		t.Fatal(err)
	}
	if err := block.Delete(t.Context(), bkt, testID(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := block.MarkForDeletion(t.Context(), bkt, testID(1), "", time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	sync(1)
	header := filepath.Join(dir, testID(1).String(), "index-header")
	if _, err := os.Stat(header); err != nil {
		t.Errorf("removed under a cursor: %v", err)
	}
	n := 1
	for cur.Next() {
		n++
	}
	if n != 20 || cur.Err() != nil || len(cur.Warnings()) > 0 {
		t.Errorf("%d series, %v, %v", n, cur.Err(), cur.Warnings())
	}
	if err := cur.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(header); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
	if drops, loads := testutil.ToFloat64(s.metrics.blockDrops), testutil.ToFloat64(s.metrics.blockLoads); drops != 2 || loads != 3 {
		t.Errorf("%v drops, %v loads", drops, loads)
	}
	d := s.Describe()
	want := store.Description{
		LabelSets: []labels.Labels{ls("r", "b")}, MinTime: 0, MaxTime: 4000, Name: "bucket",
		TSDBs:  []store.TSDB{{Labels: ls("r", "b"), MinTime: 0, MaxTime: 4000}},
		Blocks: []store.BlockSet{{Labels: ls("r", "b"), Blocks: []store.Block{{ID: testID(3), MinTime: 0, MaxTime: 3999}}}}, OnlyBlocks: true, Replicas: true,
	}
	if diff := cmp.Diff(want, d, cmp.Comparer(labels.Equal)); diff != "" {
		t.Errorf("description (-want +got):\n%s", diff)
	}
}

// Shows that a store which has not looked at the bucket yet, or is closed, refuses requests: an empty answer would be
// taken for the whole. (Killed: a mutant that answers from the empty set.)
func TestNotReady(t *testing.T) {
	s, err := New(objstore.NewInMemBucket(), Config{DataDir: t.TempDir()}, log.NewNopLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, want bool) {
		t.Helper()
		cur, err := s.Series(t.Context(), &store.SeriesRequest{MaxTime: 5, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "b")}})
		if err == nil {
			cur.Close()
		}
		_, _, namesErr := s.LabelNames(t.Context(), &store.LabelNamesRequest{MaxTime: 5})
		for _, err := range []error{err, namesErr} {
			if (err != nil) != want || want && store.KindOf(err) != store.KindUnavailable {
				t.Errorf("%s: error %v", what, err)
			}
		}
	}
	refused("before the first look", true)
	if err := s.InitialSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused("after it", false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	refused("closed", true)
}

// Shows that a header on disk is used again after a restart, a damaged one fetched again, and what belongs to unknown
// blocks removed.
func TestRestart(t *testing.T) {
	bkt := &faultyBucket{Bucket: objstore.NewInMemBucket()}
	threeBlocks(t, bkt)
	dir := t.TempDir()
	open(t, bkt, Config{DataDir: dir})
	bkt.reset(nil)
	open(t, bkt, Config{DataDir: dir})
	if bkt.n != 0 {
		t.Errorf("%d reads after a restart", bkt.n)
	}
	if err := os.WriteFile(filepath.Join(dir, testID(1).String(), "index-header"), []byte("damaged"), 0o666); err != nil {
		t.Fatal(err)
	}
	unknown := filepath.Join(dir, testID(77).String())
	if err := os.MkdirAll(unknown, 0o777); err != nil {
		t.Fatal(err)
	}
	s := open(t, bkt, Config{DataDir: dir})
	if len(s.Blocks()) != 3 || bkt.n == 0 {
		t.Errorf("%d blocks, %d reads", len(s.Blocks()), bkt.n)
	}
	if _, err := os.Stat(unknown); !os.IsNotExist(err) {
		t.Errorf("unknown block: %v", err)
	}
}

// Shows that a block goes on being served while the one that replaces it can't be loaded.
func TestReplacementFails(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	s := open(t, bkt, Config{})
	handBlock{n: 50, mint: 0, maxt: 4000, external: ls("r", "a"), sources: []byte{1, 2}, series: []handSeries{{ls("__name__", "up", "i", "07"), []handChunk{xorChunk(1000, 10, 1)}}}}.write(t, bkt)
	index := bkt.Objects()[testID(50).String()+"/index"]
	if err := bkt.Upload(t.Context(), testID(50).String()+"/index", strings.NewReader("damaged")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !s.Loaded(testID(1)) || !s.Loaded(testID(2)) || s.Loaded(testID(50)) {
			t.Errorf("serving %d blocks", len(s.Blocks()))
		}
	}
	if err := bkt.Upload(t.Context(), testID(50).String()+"/index", strings.NewReader(string(index))); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Loaded(testID(1)) || s.Loaded(testID(2)) || !s.Loaded(testID(50)) {
		t.Errorf("serving %d blocks", len(s.Blocks()))
	}
}

// Shows that the first look is tried again for a while, that its error says what to check, and that a later look which
// fails changes nothing.
func TestInitialSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := &faultyBucket{Bucket: objstore.NewInMemBucket()}
		threeBlocks(t, bkt)
		tries, good := 0, math.MaxInt
		bkt.iterFault = func() error {
			if tries++; tries >= good {
				return nil
			}
			return errors.New("access denied")
		}
		s, err := New(bkt, Config{DataDir: t.TempDir(), SyncInterval: time.Minute}, log.NewNopLogger(), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		err = s.InitialSync(t.Context())
		if err == nil || !strings.Contains(err.Error(), "access denied; check that the bucket exists") || tries != 4 {
			t.Errorf("after %d tries: %v", tries, err)
		}
		tries, good = 0, 3
		if err := s.InitialSync(t.Context()); err != nil || len(s.Blocks()) != 3 {
			t.Errorf("%d blocks, %v", len(s.Blocks()), err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		tries, good = 0, math.MaxInt
		go func() { done <- s.Run(ctx) }()
		time.Sleep(150 * time.Second)
		synctest.Wait()
		if tries != 2 || len(s.Blocks()) != 3 {
			t.Errorf("%d looks, %d blocks", tries, len(s.Blocks()))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.InitialSync(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("ended context: %v", err)
		}
	})
}

// Shows that requests wait at the gate for each other, and that one whose time is over leaves.
func TestGate(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	s, reg := openWith(t, bkt, Config{SeriesConcurrency: 1})
	first, err := s.Series(t.Context(), upRequest(store.Warn))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("too late"))
	defer cancel()
	if _, err := s.Series(ctx, upRequest(store.Warn)); err == nil || !strings.Contains(err.Error(), "too late") {
		t.Errorf("second: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := drain(t, s, upRequest(store.Warn)); err != nil {
		t.Errorf("third: %v", err)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP thanos_bucket_store_series_gate_queries_in_flight x
# TYPE thanos_bucket_store_series_gate_queries_in_flight gauge
thanos_bucket_store_series_gate_queries_in_flight 0
`), "thanos_bucket_store_series_gate_queries_in_flight"); err != nil && !strings.Contains(err.Error(), "HELP") {
		t.Error(err)
	}
}

// Shows that a time range outside of the configured one is not served.
func TestTimeBounds(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	s := open(t, bkt, Config{MinTime: func() int64 { return 1050 }, MaxTime: func() int64 { return 1999 }})
	all, _, err := drain(t, s, upRequest(store.Abort))
	if err != nil {
		t.Fatal(err)
	}
	if got := spell(t, all); len(got) != 19 || !strings.Contains(got[0], "[1100, 1110]") {
		t.Errorf("answer: %q", got)
	}
	if d := s.Describe(); d.MinTime != 1050 || d.MaxTime != 1999 || len(s.Blocks()) != 2 {
		t.Errorf("description %+v, %d blocks", d, len(s.Blocks()))
	}
}

// Shows the metrics that are there, at 0, before the first request, and that a request moves those of its tenant.
func TestMetrics(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	s, reg := openWith(t, bkt, Config{})
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range fams {
		if len(f.GetMetric()) == 0 {
			t.Errorf("%s has no series", f.GetName())
		}
		names = append(names, f.GetName())
	}
	want := strings.Fields(`
		koios_store_damaged_blocks_total thanos_blocks_meta_base_cache_busts_total thanos_blocks_meta_base_syncs_total thanos_blocks_meta_modified
		thanos_blocks_meta_sync_duration_seconds thanos_blocks_meta_sync_failures_total thanos_blocks_meta_synced
		thanos_blocks_meta_syncs_total
		thanos_bucket_store_block_drop_failures_total thanos_bucket_store_block_drops_total
		thanos_bucket_store_block_load_duration_seconds thanos_bucket_store_block_load_failures_total
		thanos_bucket_store_block_loads_total thanos_bucket_store_blocks_last_loaded_timestamp_seconds
		thanos_bucket_store_blocks_loaded
		thanos_bucket_store_cached_postings_compressed_size_bytes_total thanos_bucket_store_cached_postings_compression_errors_total
		thanos_bucket_store_cached_postings_compression_time_seconds_total thanos_bucket_store_cached_postings_compressions_total
		thanos_bucket_store_cached_postings_original_size_bytes_total
		thanos_bucket_store_chunk_refetches_total
		thanos_bucket_store_chunks_fetch_duration_seconds thanos_bucket_store_chunks_fetch_duration_sum_seconds
		thanos_bucket_store_empty_postings_total thanos_bucket_store_indexheader_download_duration_seconds
		thanos_bucket_store_indexheader_lazy_load_duration_seconds thanos_bucket_store_indexheader_lazy_load_failed_total
		thanos_bucket_store_indexheader_lazy_load_total thanos_bucket_store_indexheader_lazy_unload_failed_total
		thanos_bucket_store_indexheader_lazy_unload_total
		thanos_bucket_store_indexheader_load_duration_seconds thanos_bucket_store_lazy_expanded_posting_groups_total
		thanos_bucket_store_lazy_expanded_posting_series_overfetched_size_bytes_total
		thanos_bucket_store_lazy_expanded_posting_size_bytes_total thanos_bucket_store_lazy_expanded_postings_total
		thanos_bucket_store_postings_fetch_duration_seconds thanos_bucket_store_postings_size_bytes
		thanos_bucket_store_queries_dropped_total
		thanos_bucket_store_sent_chunk_size_bytes thanos_bucket_store_series_blocks_queried
		thanos_bucket_store_series_data_fetched thanos_bucket_store_series_data_size_fetched_bytes
		thanos_bucket_store_series_data_size_touched_bytes thanos_bucket_store_series_data_touched
		thanos_bucket_store_series_fetch_duration_seconds thanos_bucket_store_series_fetch_duration_sum_seconds
		thanos_bucket_store_series_gate_queries_duration_seconds thanos_bucket_store_series_gate_queries_in_flight
		thanos_bucket_store_series_gate_queries_max thanos_bucket_store_series_gate_queries_total
		thanos_bucket_store_series_get_all_duration_seconds thanos_bucket_store_series_merge_duration_seconds
		thanos_bucket_store_series_refetches_total thanos_bucket_store_series_result_series
		thanos_consistency_delay_seconds
		thanos_store_index_cache_fetch_duration_seconds
		thanos_store_index_cache_hits_total thanos_store_index_cache_items thanos_store_index_cache_items_added_total
		thanos_store_index_cache_items_evicted_total thanos_store_index_cache_items_overflowed_total
		thanos_store_index_cache_items_size_bytes thanos_store_index_cache_max_item_size_bytes
		thanos_store_index_cache_max_size_bytes thanos_store_index_cache_requests_total
		thanos_store_index_cache_stored_data_size_bytes
		thanos_store_index_cache_total_size_bytes`)
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	cur, err := s.Series(tenancy.NewContext(t.Context(), "me"), upRequest(store.Warn))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := store.Drain(cur); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]*prometheus.HistogramVec{"blocks": s.metrics.blocksQueried, "series": s.metrics.resultSeries} {
		if n := testutil.CollectAndCount(h); n != 2 {
			t.Errorf("%s: %d tenants", name, n)
		}
	}
}
