package compact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	thanos "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/pkg/objstore/faulty"
)

type point struct {
	t int64
	v float64
}

func (p point) T() int64                      { return p.t }
func (p point) F() float64                    { return p.v }
func (p point) H() *histogram.Histogram       { return nil }
func (p point) FH() *histogram.FloatHistogram { return nil }
func (p point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample           { return p }
func (p point) ST() int64                     { return 0 }

// world is a bucket with a clock, and what was ever put into it.
type world struct {
	t    *testing.T
	bkt  *faulty.Bucket
	dir  string
	now  time.Time
	want map[string]map[int64]float64 // samples by series and time
}

// memoryDir is a directory that needs no disk, where there is one: each object is synced, and no power goes off here.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "koios-compact-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: memoryDir(t), now: time.UnixMilli(100 * 24 * hour), want: map[string]map[int64]float64{}}
	fs, err := objstore.NewFilesystem(filepath.Join(w.dir, "bucket"))
	if err != nil {
		t.Fatal(err)
	}
	w.bkt = faulty.New(fs)
	return w
}

// put uploads a block of some series with a sample a minute.
func (w *world) put(from, to int64, ext map[string]string, series int) ulid.ULID {
	w.t.Helper()
	var ss []storage.Series
	for i := range series {
		ls := labels.FromStrings("__name__", "m", "i", fmt.Sprint(i))
		var samples []chunks.Sample
		key := GroupKey(0, ext) + ls.String()
		if w.want[key] == nil {
			w.want[key] = map[int64]float64{}
		}
		for ts := from; ts < to; ts += 60_000 {
			v := float64(ts/60_000 + int64(i))
			samples = append(samples, point{ts, v})
			w.want[key][ts] = v
		}
		ss = append(ss, storage.NewListSeries(ls, samples))
	}
	tmp := w.t.TempDir()
	dir, err := tsdb.CreateBlock(ss, tmp, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := block.ReadMetaDir(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	m.MinTime, m.MaxTime = from, to
	m.Thanos.Labels, m.Thanos.Source = ext, block.SourceSidecar
	if err := block.WriteMetaDir(dir, m); err != nil {
		w.t.Fatal(err)
	}
	if _, err := block.Upload(w.t.Context(), w.bkt, dir, block.UploadOptions{}); err != nil {
		w.t.Fatal(err)
	}
	return m.ULID
}

// config is one for tests: everything on, nothing waits.
func (w *world) config() Config {
	return Config{
		DataDir: filepath.Join(w.dir, "data"), Settings: Settings{Level: 4, Downsample: true},
		DeleteDelay: 48 * time.Hour, Concurrency: 2, Now: func() time.Time { return w.now }, ParkOnError: true,
		MetaFetchConcurrency: 4,
	}
}

func (w *world) compactor(cfg Config) *Compactor {
	w.t.Helper()
	c, err := New(w.bkt, cfg, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		w.t.Fatal(err)
	}
	c.retryAfter = time.Millisecond
	return c
}

// live are the blocks that are not marked for deletion.
func (w *world) live() map[ulid.ULID]*block.Meta {
	w.t.Helper()
	ctx := context.Background()
	metas := map[ulid.ULID]*block.Meta{}
	err := w.bkt.Bucket.Iter(ctx, "", func(name string) error {
		id, ok := block.ParseID(name)
		if !ok {
			return nil
		}
		m, err := block.GetMeta(ctx, w.bkt.Bucket, id)
		if errors.Is(err, block.ErrPartial) {
			return nil
		}
		mark, merr := block.ReadDeletionMark(ctx, w.bkt.Bucket, id)
		if mark == nil {
			metas[id] = m
		}
		return errors.Join(err, merr)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return metas
}

// check compares the raw samples of all live blocks with what was put there: each once.
func (w *world) check() {
	w.t.Helper()
	got := map[string]map[int64]float64{}
	for id, m := range w.live() {
		if m.Resolution() != 0 {
			continue
		}
		dir := filepath.Join(w.t.TempDir(), id.String())
		if _, err := block.Download(context.Background(), w.bkt.Bucket, id, dir, 1); err != nil {
			w.t.Fatal(err)
		}
		w.read(dir, m, got)
	}
	if d := cmp.Diff(w.want, got); d != "" {
		w.t.Errorf("samples (-want +got):\n%.2000s", d)
	}
}

func (w *world) read(dir string, m *block.Meta, got map[string]map[int64]float64) {
	w.t.Helper()
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer b.Close()
	q, err := tsdb.NewBlockQuerier(b, m.MinTime, m.MaxTime)
	if err != nil {
		w.t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*"))
	for set.Next() {
		key := GroupKey(0, m.Thanos.Labels) + set.At().Labels().String()
		if got[key] == nil {
			got[key] = map[int64]float64{}
		}
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			ts, v := it.At()
			if _, twice := got[key][ts]; twice {
				w.t.Errorf("%s at %d is there twice", key, ts)
			}
			got[key][ts] = v
		}
		if it.Err() != nil {
			w.t.Error(it.Err())
		}
	}
	if set.Err() != nil {
		w.t.Error(set.Err())
	}
}

// shape lists the live blocks as hours, level and resolution.
func (w *world) shape() (lines []string) {
	for _, m := range w.live() {
		lines = append(lines, fmt.Sprintf("%s %d-%d level %d", GroupKey(m.Resolution(), m.Thanos.Labels), m.MinTime/hour, m.MaxTime/hour, m.Compaction.Level))
	}
	slices.Sort(lines)
	return lines
}

// Shows a pass over a bucket from end to end: two days of blocks become one, and one of 5m beside it; sources are
// marked, deleted after the delay, and nothing else is left; another pass does nothing.
func TestPass(t *testing.T) {
	w := newWorld(t)
	for h := int64(0); h < 48; h += 2 {
		w.put(h*hour, (h+2)*hour, map[string]string{"x": "1"}, 3)
	}
	w.put(48*hour, 50*hour, map[string]string{"x": "1"}, 3)
	w.put(0, 2*hour, map[string]string{"x": "2"}, 2)
	w.now = time.UnixMilli(52 * hour)
	c := w.compactor(w.config())
	if err := c.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{`5m{x="1"} 0-48 level 2`, `raw{x="1"} 0-48 level 2`, `raw{x="1"} 48-50 level 1`, `raw{x="2"} 0-2 level 1`}
	if d := cmp.Diff(want, w.shape()); d != "" {
		t.Fatalf("(-want +got):\n%s", d)
	}
	w.check()
	if err := w.bkt.Iter(t.Context(), leasesDir+"/", func(name string) error { t.Errorf("lease left: %s", name); return nil }); err != nil {
		t.Fatal(err)
	}
	calls := len(w.writes())
	if err := c.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := w.writes(); len(again) != calls {
		t.Errorf("a second pass wrote: %v", again[calls:])
	}

	w.now = w.now.Add(49 * time.Hour)
	cfg := w.config()
	cfg.Settings.Level, cfg.Settings.Downsample = 0, false
	if err := w.compactor(cfg).RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	live := w.live()
	err := w.bkt.Bucket.Iter(t.Context(), "", func(name string) error {
		if id, ok := block.ParseID(name); ok && live[id] == nil {
			t.Errorf("left: %s", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(cfg.workDir()); err != nil || len(entries) > 0 {
		t.Error("scratch space is not empty", entries, err)
	}
	w.check()
}

// writes are the uploads and deletions so far, without the ids of blocks.
func (w *world) writes() (names []string) {
	for _, c := range w.bkt.Calls() {
		if (c.Op == faulty.Upload || c.Op == faulty.Delete) && !strings.HasPrefix(c.Name, leasesDir) {
			names = append(names, string(c.Op)+" "+c.Name)
		}
	}
	return names
}

// inMemory is a bucket with the files of a directory. It is fast, because nothing is synced to a disk.
func inMemory(t *testing.T, dir string) *thanos.InMemBucket {
	t.Helper()
	bkt := thanos.NewInMemBucket()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, ".uploads") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return bkt.Upload(t.Context(), filepath.ToSlash(rel), bytes.NewReader(b))
	})
	if err != nil {
		t.Fatal(err)
	}
	return bkt
}

// Shows that a corrupt block costs only itself: it gets its marks with the cause, the rest of its group is merged in the
// same pass, and nothing halts.
func TestCorruptBlock(t *testing.T) {
	w := newWorld(t)
	ext := map[string]string{"x": "1"}
	w.put(0, 2*hour, ext, 1)
	w.put(2*hour, 4*hour, ext, 1)
	bad := w.put(4*hour, 6*hour, ext, 1)
	w.put(6*hour, 8*hour, ext, 1)
	w.put(8*hour, 10*hour, ext, 1)
	name := block.Object(bad, "chunks/000001")
	if err := w.bkt.Bucket.Upload(t.Context(), name, strings.NewReader("damaged")); err != nil {
		t.Fatal(err)
	}
	w.now = time.UnixMilli(11 * hour)
	c := w.compactor(w.config())
	if err := c.RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{`raw{x="1"} 0-4 level 2`, `raw{x="1"} 4-6 level 1`, `raw{x="1"} 6-8 level 1`, `raw{x="1"} 8-10 level 1`}
	if d := cmp.Diff(want, w.shape()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	mark, err := block.ReadNoCompactMark(t.Context(), w.bkt, bad)
	if err != nil || mark == nil || !strings.Contains(mark.Details, "set aside by koios") {
		t.Errorf("no-compact mark %+v %v", mark, err)
	}
	if m, err := block.ReadNoDownsampleMark(t.Context(), w.bkt, bad); err != nil || m == nil {
		t.Error(m, err)
	}
	if ok, err := w.bkt.Exists(t.Context(), block.Object(bad, SetAsideFilename)); !ok || err != nil {
		t.Error("no mark of our own", err)
	}
	if h := testutil.ToFloat64(c.metrics.halted); h != 0 {
		t.Error("halted", h)
	}
}
