package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
)

func putMeta(t testing.TB, bkt objstore.Bucket, m *Meta) {
	t.Helper()
	b, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	put(t, bkt, Object(m.ULID, MetaFilename), string(b))
}

func put(t testing.TB, bkt objstore.Bucket, name, content string) {
	t.Helper()
	if err := bkt.Upload(t.Context(), name, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func shortIDs(metas map[ulid.ULID]*Meta) []int {
	ns := []int{}
	for id := range metas {
		ns = append(ns, int(id[15]))
	}
	slices.Sort(ns)
	return ns
}

// faultyBucket counts reads and fails those that fault names.
type faultyBucket struct {
	objstore.Bucket
	mu    sync.Mutex
	log   []string
	fault func(op, name string) error
}

func (b *faultyBucket) note(op, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, op+" "+name)
	if b.fault == nil {
		return nil
	}
	return b.fault(op, name)
}

func (b *faultyBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := b.note("get", name); err != nil {
		return nil, err
	}
	return b.Bucket.Get(ctx, name)
}

func (b *faultyBucket) Exists(ctx context.Context, name string) (bool, error) {
	if err := b.note("exists", name); err != nil {
		return false, err
	}
	return b.Bucket.Exists(ctx, name)
}

func (b *faultyBucket) Iter(ctx context.Context, dir string, f func(string) error, o ...objstore.IterOption) error {
	if err := b.note("iter", dir); err != nil {
		return err
	}
	return b.Bucket.Iter(ctx, dir, f, o...)
}

func newFetcher(t testing.TB, bkt objstore.BucketReader, cfg FetcherConfig) (*Fetcher, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	f, err := NewFetcher(bkt, cfg, log.NewNopLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	return f, reg
}

func synced(t testing.TB, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, fam := range fams {
		if fam.GetName() == "thanos_blocks_meta_synced" {
			for _, m := range fam.GetMetric() {
				got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	return got
}

// Shows, for both ways of discovery, that good blocks are found beside every kind of bad one, and what is counted.
func TestFetcherBadBlocks(t *testing.T) {
	for _, how := range []Discovery{DiscoverConcurrent, DiscoverRecursive} {
		t.Run(string(how), func(t *testing.T) {
			bkt := objstore.NewInMemBucket()
			putMeta(t, bkt, newMeta(testID(1)))
			putMeta(t, bkt, newMeta(testID(2)))
			put(t, bkt, Object(testID(3), "chunks", "000001"), "x")       // half uploaded
			put(t, bkt, Object(testID(4), MetaFilename), `{"ulid":`)      // truncated
			put(t, bkt, Object(testID(5), MetaFilename), `{"version":7}`) // other version
			put(t, bkt, Object(testID(6), MetaFilename), "")              // empty
			wrong := newMeta(testID(7))                                   // under another name
			b, _ := wrong.Bytes()
			put(t, bkt, Object(testID(8), MetaFilename), string(b))
			put(t, bkt, "debug/metas/"+testID(9).String()+".json", "{}") // no block
			put(t, bkt, "README", "hello")

			f, reg := newFetcher(t, bkt, FetcherConfig{Discovery: how})
			for _, state := range initialStates {
				if v, ok := synced(t, reg)[string(state)]; !ok || v != 0 {
					t.Errorf("state %q is not 0 before the first look", state)
				}
			}
			for range 2 {
				v, err := f.Fetch(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]int{1, 2}, shortIDs(v.Metas)); diff != "" {
					t.Errorf("blocks (-want +got):\n%s", diff)
				}
				if len(v.Partial) != 5 || len(v.Failed) != 0 {
					t.Errorf("partial %v, failed %v", v.Partial, v.Failed)
				}
				if !errors.Is(v.Partial[testID(3)], ErrPartial) {
					t.Errorf("half-uploaded block: %v", v.Partial[testID(3)])
				}
				got := synced(t, reg)
				if got["loaded"] != 2 || got["no-meta-json"] != 1 || got["corrupted-meta-json"] != 4 {
					t.Errorf("states: %v", got)
				}
			}
			want := `
# HELP thanos_blocks_meta_sync_failures_total Looks at the bucket that failed or left the metadata of some block unknown.
# TYPE thanos_blocks_meta_sync_failures_total counter
thanos_blocks_meta_sync_failures_total 0
# HELP thanos_blocks_meta_syncs_total Looks at the bucket for block metadata.
# TYPE thanos_blocks_meta_syncs_total counter
thanos_blocks_meta_syncs_total 2
`
			if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "thanos_blocks_meta_syncs_total", "thanos_blocks_meta_sync_failures_total"); err != nil {
				t.Error(err)
			}
		})
	}
}

// Shows that metadata is fetched once, also over a restart with a cache on disk; that a damaged cache is replaced; and
// that a block which goes takes its cache along.
func TestFetcherCache(t *testing.T) {
	bkt := &faultyBucket{Bucket: objstore.NewInMemBucket()}
	putMeta(t, bkt, newMeta(testID(1)))
	putMeta(t, bkt, newMeta(testID(2)))
	dir := filepath.Join(t.TempDir(), "meta-syncer")
	gets := func(f *Fetcher) (n int) {
		t.Helper()
		bkt.log = nil
		v, err := f.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range bkt.log {
			if strings.HasPrefix(l, "get ") {
				n++
			}
		}
		if len(v.Partial)+len(v.Failed) > 0 {
			t.Fatal(v)
		}
		return n
	}
	f, _ := newFetcher(t, bkt, FetcherConfig{CacheDir: dir})
	if n := gets(f); n != 2 {
		t.Errorf("first look: %d gets", n)
	}
	if n := gets(f); n != 0 {
		t.Errorf("second look: %d gets", n)
	}
	f, _ = newFetcher(t, bkt, FetcherConfig{CacheDir: dir})
	if n := gets(f); n != 0 {
		t.Errorf("after a restart: %d gets", n)
	}
	if err := os.WriteFile(filepath.Join(dir, testID(1).String(), "meta.json"), []byte("{"), 0o666); err != nil {
		t.Fatal(err)
	}
	f, reg := newFetcher(t, bkt, FetcherConfig{CacheDir: dir})
	if n := gets(f); n != 1 {
		t.Errorf("after damage: %d gets", n)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP thanos_blocks_meta_base_cache_busts_total Cached metadata that was thrown away because it was unreadable or older than its object.
# TYPE thanos_blocks_meta_base_cache_busts_total counter
thanos_blocks_meta_base_cache_busts_total 1
`), "thanos_blocks_meta_base_cache_busts_total"); err != nil {
		t.Error(err)
	}
	if err := Delete(t.Context(), bkt, testID(1)); err != nil {
		t.Fatal(err)
	}
	gets(f)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != testID(2).String() {
		t.Errorf("left in the cache: %v", entries)
	}
}

// Shows that with the recursive listing metadata that was written anew is read anew.
func TestFetcherRecursiveNewer(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	putMeta(t, bkt, newMeta(testID(1)))
	for _, dir := range []string{"", t.TempDir()} {
		f, _ := newFetcher(t, bkt, FetcherConfig{Discovery: DiscoverRecursive, CacheDir: dir})
		if _, err := f.Fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		m := newMeta(testID(1))
		m.Thanos.Labels = map[string]string{"changed": dir + "x"}
		putMeta(t, bkt, m)
		if err := bkt.ChangeLastModified(Object(testID(1), MetaFilename), time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		v, err := f.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if v.Metas[testID(1)].Thanos.Labels["changed"] != dir+"x" {
			t.Errorf("old metadata with cache %q", dir)
		}
	}
}

// Shows that a block whose metadata can't be reached fails alone, stays in the view when it was known, and that a
// bucket that can't be listed fails the look and keeps what is known for the next.
func TestFetcherFaults(t *testing.T) {
	bkt := &faultyBucket{Bucket: objstore.NewInMemBucket()}
	putMeta(t, bkt, newMeta(testID(1)))
	putMeta(t, bkt, newMeta(testID(2)))
	f, reg := newFetcher(t, bkt, FetcherConfig{})
	f.wide = true // each block is asked for
	look := func(want ...int) View {
		t.Helper()
		v, err := f.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, shortIDs(v.Metas)); diff != "" {
			t.Errorf("blocks (-want +got):\n%s", diff)
		}
		return v
	}
	bkt.fault = func(op, name string) error {
		if strings.Contains(name, testID(2).String()) {
			return errors.New("timeout")
		}
		return nil
	}
	if v := look(1); v.Failed[testID(2)] == nil {
		t.Error("not reported as failed")
	}
	if got := synced(t, reg); got["failed"] != 1 || got["loaded"] != 1 {
		t.Errorf("states: %v", got)
	}
	bkt.fault = nil
	look(1, 2)
	bkt.fault = func(op, name string) error {
		if op == "exists" {
			return errors.New("timeout")
		}
		return nil
	}
	if v := look(1, 2); len(v.Failed) != 2 {
		t.Errorf("failed: %v", v.Failed)
	}
	bkt.fault = func(op, name string) error {
		if op == "iter" {
			return errors.New("access denied")
		}
		return nil
	}
	if _, err := f.Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "list blocks: access denied") {
		t.Errorf("error: %v", err)
	}
	bkt.fault, bkt.log = nil, nil
	look(1, 2)
	for _, l := range bkt.log {
		if strings.HasPrefix(l, "get") {
			t.Errorf("fetched again: %s", l)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Fetch(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

// Shows which blocks each filter takes out.
func TestFilters(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000).Add(time.Hour)
	f := func(name string, filter Filter, want string, ms ...*Meta) {
		t.Helper()
		metas := map[ulid.ULID]*Meta{}
		for i, m := range ms {
			m.ULID = testID(byte(i + 1))
			metas[m.ULID] = m
		}
		var out []string
		err := filter.Filter(t.Context(), metas, func(id ulid.ULID, s State) { out = append(out, fmt.Sprintf("%d %s", id[15], s)) })
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(out)
		if got := strings.Join(out, ", "); got != want || len(metas) != len(ms)-len(out) {
			t.Errorf("%s: excluded %q, want %q", name, got, want)
		}
	}
	times := func(mint, maxt int64) *Meta { m := newMeta(testID(1)); m.MinTime, m.MaxTime = mint, maxt; return m }
	fixed := func(ms int64) func() int64 { return func() int64 { return ms } }
	f("time", TimePartition(fixed(100), fixed(200)), "1 time-excluded, 4 time-excluded",
		times(0, 99), times(0, 100), times(200, 300), times(201, 300), times(0, 1000))
	f("all time", TimePartition(fixed(math.MinInt64), fixed(math.MaxInt64)), "", times(0, 99))

	lbls := func(kv ...string) *Meta {
		m := newMeta(testID(1))
		m.Thanos.Labels = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m.Thanos.Labels[kv[i]] = kv[i+1]
		}
		return m
	}
	sel := func(s string) Filter {
		cfgs, err := ParseSelector([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return LabelShard(cfgs)
	}
	f("keep", sel("- {action: keep, source_labels: [r], regex: a}"), "2 label-excluded, 3 label-excluded", lbls("r", "a"), lbls("r", "b"), lbls("s", "a"))
	f("block id", sel("- {action: drop, source_labels: [__block_id], regex: .*2}"), "2 label-excluded", lbls("r", "a"), lbls("r", "b"))
	f("hashmod", sel("- {action: hashmod, source_labels: [r], target_label: shard, modulus: 2}\n- {action: keep, source_labels: [shard], regex: \"0\"}"),
		"2 label-excluded", lbls("r", "e"), lbls("r", "a"))
	f("no config", LabelShard(nil), "", lbls())

	up := func(s Source, age time.Duration) *Meta {
		m := newMeta(testID(1))
		m.Thanos.Source = s
		if age > 0 {
			m.Thanos.UploadTime = now.Add(-age)
		}
		return m
	}
	f("consistency", ConsistencyDelay(30*time.Minute, func() time.Time { return now }), "1 too-fresh",
		up(SourceSidecar, time.Minute), up(SourceSidecar, time.Hour), up(SourceCompactor, time.Minute), up(SourceBucketRepair, time.Minute), up(SourceSidecar, 0))

	src := func(res int64, label string, ids ...byte) *Meta {
		m := newMeta(testID(1))
		m.Thanos.Labels["x"], m.Thanos.Downsample.Resolution = label, res
		m.Compaction.Sources = nil
		for _, n := range ids {
			m.Compaction.Sources = append(m.Compaction.Sources, testID(100+n))
		}
		return m
	}
	f("duplicates", Duplicates(), "1 duplicate, 2 duplicate, 5 duplicate",
		src(0, "a", 1), src(0, "a", 2, 3), src(0, "a", 1, 2, 3), src(0, "a", 3, 4), src(0, "a", 2, 1, 3),
		src(0, "b", 1), src(Resolution5m, "a", 1), src(0, "a"))
}

// Shows that only selecting actions are admitted, with an error that says which entry is wrong.
func TestParseSelector(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		_, err := ParseSelector([]byte(in))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", in, err)
		}
	}
	f("", "")
	f("- {action: keep, source_labels: [a], regex: b}", "")
	f("- {action: keep, source_labels: [a], regex: b}\n- {target_label: x}", `entry 2 has action "replace"`)
	f("- {action: hashmod, target_label: x}", "entry 1")
	f("- ", "entry 1 is empty")
	f("a: b", "parse selector relabel config")
	f("- {action: keep, regex: '('}", "parse selector relabel config")
}

// Shows that marks hide blocks only after the delay, that malformed marks count as none, and that one which can't be
// read counts as it did before.
func TestDeletionMarks(t *testing.T) {
	bkt := &faultyBucket{Bucket: objstore.NewInMemBucket()}
	now := time.Unix(1_700_000_000, 0)
	for n, age := range map[byte]time.Duration{1: 25 * time.Hour, 2: 23 * time.Hour} {
		if _, err := MarkForDeletion(t.Context(), bkt, testID(n), "", now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, bkt, Object(testID(3), DeletionMarkFilename), "{")
	put(t, bkt, Object(testID(4), DeletionMarkFilename), `{"version":3}`)
	f := NewDeletionMarks(bkt, 24*time.Hour, 2, log.NewNopLogger())
	f.now = func() time.Time { return now }
	look := func() []int {
		metas := map[ulid.ULID]*Meta{}
		for n := range byte(5) {
			metas[testID(n+1)] = newMeta(testID(n + 1))
		}
		if err := f.Filter(t.Context(), metas, func(ulid.ULID, State) {}); err != nil {
			t.Fatal(err)
		}
		return shortIDs(metas)
	}
	want := []int{2, 3, 4, 5}
	if diff := cmp.Diff(want, look()); diff != "" {
		t.Error(diff)
	}
	bkt.fault = func(op, name string) error { return errors.New("timeout") }
	if diff := cmp.Diff(want, look()); diff != "" {
		t.Error(diff)
	}
	if len(f.Marks()) != 2 {
		t.Errorf("marks: %v", f.Marks())
	}
}

// BenchmarkDuplicates finds duplicates among 20,000 blocks of which each ninth holds the eight before it.
func BenchmarkDuplicates(b *testing.B) {
	var all []*Meta
	for i := range 20000 {
		var id ulid.ULID
		_ = id.SetTime(uint64(i + 1))
		m := newMeta(id)
		if i%9 == 8 {
			m.Compaction.Sources = nil
			for _, c := range all[i-8:] {
				m.Compaction.Sources = append(m.Compaction.Sources, c.ULID)
			}
		}
		all = append(all, m)
	}
	b.ReportAllocs()
	for b.Loop() {
		metas := make(map[ulid.ULID]*Meta, len(all))
		for _, m := range all {
			metas[m.ULID] = m
		}
		n := 0
		_ = Duplicates().Filter(b.Context(), metas, func(ulid.ULID, State) { n++ })
		if n == 0 {
			b.Fatal("no duplicates")
		}
	}
}
