package bucket

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	koiosobjstore "github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// writeBlock writes samples for which want is true as one block and uploads it. It returns nothing if there are none.
func writeBlock(t testing.TB, bkt objstore.Bucket, data storetest.Data, want func(ts int64) bool, edit ...func(*block.Meta)) (id ulid.ULID) {
	t.Helper()
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(slog.New(slog.NewTextHandler(io.Discard, nil)), dir, tsdb.DefaultBlockDuration)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	n := 0
	for _, s := range data.Series {
		app := w.Appender(context.Background())
		for _, smp := range s.Samples {
			if !want(smp.T) {
				continue
			}
			n++
			if smp.H != nil || smp.FH != nil {
				_, err = app.AppendHistogram(0, s.Labels, smp.T, smp.H, smp.FH)
			} else {
				_, err = app.Append(0, s.Labels, smp.T, smp.V)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if n == 0 {
		return id
	}
	if id, err = w.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	upload(t, bkt, filepath.Join(dir, id.String()), data.External, edit...)
	return id
}

// upload uploads a local block under external labels, after editing its metadata.
func upload(t testing.TB, bkt objstore.Bucket, dir string, external labels.Labels, edit ...func(*block.Meta)) {
	t.Helper()
	m, err := block.ReadMetaDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	m.Thanos.Labels, m.Thanos.Source = external.Map(), block.SourceTest
	for _, f := range edit {
		f(m)
	}
	if err := block.WriteMetaDir(dir, m); err != nil {
		t.Fatal(err)
	}
	if _, err := block.Upload(t.Context(), bkt, dir, block.UploadOptions{AllowNoLabels: true}); err != nil {
		t.Fatal(err)
	}
}

func always(int64) bool { return true }

// open makes a Store over a bucket and looks at it once.
func open(t testing.TB, bkt objstore.BucketReader, cfg Config) *Store {
	t.Helper()
	s, _ := openWith(t, bkt, cfg)
	return s
}

func openWith(t testing.TB, bkt objstore.BucketReader, cfg Config) (*Store, *prometheus.Registry) {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	reg := prometheus.NewRegistry()
	s, err := New(bkt, cfg, log.NewNopLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := s.memory.used(); n != 0 {
			t.Errorf("%d bytes of the budget were not given back", n)
		}
	})
	if err := s.InitialSync(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s, reg
}

// The suite that every Store passes, over blocks in different arrangements, buckets and configurations.
func TestConformance(t *testing.T) {
	const gib = 1 << 30
	inmem := func(testing.TB) objstore.Bucket { return objstore.NewInMemBucket() }
	for name, c := range map[string]struct {
		bucket func(testing.TB) objstore.Bucket
		cfg    Config
		parts  []func(ts int64) bool
	}{
		"one block":    {inmem, Config{MemoryBytesMax: gib}, []func(int64) bool{always}},
		"tiny batches": {inmem, Config{MemoryBytesMax: gib, SeriesBatchSize: 1, EstimatedSeriesBytesMax: 1, EstimatedChunkBytesMax: 1, PostingOffsetSampling: 1}, []func(int64) bool{always}},
		"cached":       {inmem, Config{MemoryBytesMax: gib, IndexCacheBytesMax: 4096}, []func(int64) bool{always}},
		"same twice":   {inmem, Config{MemoryBytesMax: gib}, []func(int64) bool{always, always}},
		"three in time": {inmem, Config{MemoryBytesMax: gib, SeriesBatchSize: 3}, []func(int64) bool{
			func(ts int64) bool { return ts < storetest.Base+100_000 },
			func(ts int64) bool { return ts >= storetest.Base+100_000 && ts < storetest.Base+1_000_000 },
			func(ts int64) bool { return ts >= storetest.Base+1_000_000 },
		}},
		"interleaved": {inmem, Config{MemoryBytesMax: gib}, []func(int64) bool{
			func(ts int64) bool { return ts/1000%2 == 0 }, func(ts int64) bool { return ts/1000%2 != 0 },
		}},
		"file system": {func(t testing.TB) objstore.Bucket {
			bkt, err := koiosobjstore.NewFilesystem(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return bkt
		}, Config{Discovery: block.DiscoverRecursive}, []func(int64) bool{always}},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
				bkt := c.bucket(t)
				for i, part := range c.parts {
					// Blocks of equal sources would be duplicates; these have a source each.
					writeBlock(t, bkt, data, part, func(m *block.Meta) { m.Compaction.Level = i + 1 })
				}
				return open(t, bkt, c.cfg)
			})
		})
	}
}
