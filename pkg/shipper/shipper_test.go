package shipper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"

	"github.com/koios-metrics/koios/pkg/block"
)

var external = labels.FromStrings("cluster", "one", "replica", "a")

const hour = int64(time.Hour / time.Millisecond)

// testID makes the id of the n-th block.
func testID(n int) ulid.ULID {
	var id ulid.ULID
	_ = id.SetTime(uint64(1_700_000_000_000 + n))
	id[15] = byte(n)
	return id
}

// writeBlock makes a directory that looks like a block of two hours, the n-th of the TSDB in dir.
func writeBlock(t testing.TB, dir string, n int, change ...func(*block.Meta)) ulid.ULID {
	t.Helper()
	id := testID(n)
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{
		ULID: id, Version: 1, MinTime: int64(n) * 2 * hour, MaxTime: int64(n+1) * 2 * hour,
		Stats:      tsdb.BlockStats{NumSamples: 10, NumSeries: 2, NumChunks: 2},
		Compaction: tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{id}},
	}}
	for _, f := range change {
		f(m)
	}
	to := filepath.Join(dir, id.String())
	for name, size := range map[string]int{"chunks/000001": 400, "chunks/000002": 300, "index": 200, "tombstones": 9} {
		path := filepath.Join(to, name)
		check(t, os.MkdirAll(filepath.Dir(path), 0o777))
		check(t, os.WriteFile(path, []byte(strings.Repeat(fmt.Sprint(name, n, ";"), size)), 0o666))
	}
	check(t, block.WriteMetaDir(to, m))
	return id
}

func level2(m *block.Meta) { m.Compaction.Level = 2 }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newShipper(t testing.TB, dir string, bkt objstore.Bucket, change ...func(*Config)) *Shipper {
	t.Helper()
	cfg := Config{Labels: func() labels.Labels { return external }, Source: block.SourceSidecar}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(dir, bkt, cfg, log.NewNopLogger(), prometheus.NewRegistry())
	check(t, err)
	return s
}

// buckets are those that most tests run over: the file system's shows parts of objects.
var buckets = map[string]func(t testing.TB) objstore.Bucket{
	"memory": func(testing.TB) objstore.Bucket { return objstore.NewInMemBucket() },
	"filesystem": func(t testing.TB) objstore.Bucket {
		b, err := filesystem.NewBucket(t.TempDir())
		check(t, err)
		return b
	},
}

func overBuckets(t *testing.T, f func(t *testing.T, bkt objstore.Bucket)) {
	for name, bucket := range buckets {
		t.Run(name, func(t *testing.T) { f(t, bucket(t)) })
	}
}

func objects(t testing.TB, bkt objstore.Bucket) map[string]string {
	t.Helper()
	all := map[string]string{}
	check(t, bkt.Iter(context.Background(), "", func(name string) error {
		r, err := bkt.Get(context.Background(), name)
		if err != nil {
			return err
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		all[name] = string(b)
		return err
	}, objstore.WithRecursiveIter()))
	return all
}

// checkWhole fails unless the bucket holds exactly these blocks of the TSDB in dir, byte for byte, the
// shipper file says so, and nothing is left over.
func checkWhole(t testing.TB, dir string, bkt objstore.Bucket, ids ...ulid.ULID) {
	t.Helper()
	got := objects(t, bkt)
	want := map[string]string{}
	for _, id := range ids {
		for _, name := range []string{"chunks/000001", "chunks/000002", "index"} {
			b, err := os.ReadFile(filepath.Join(dir, id.String(), name))
			check(t, err)
			want[block.Object(id, name)] = string(b)
		}
		name := block.Object(id, block.MetaFilename)
		m, err := block.ParseMeta([]byte(got[name]))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m.ULID != id || !labels.Equal(m.Labels(), external) || m.Thanos.Source != block.SourceSidecar || len(m.Thanos.Files) != 4 || m.Thanos.UploadTime.IsZero() {
			t.Fatalf("meta.json of %s: %+v", id, m)
		}
		want[name] = got[name]
		local, err := block.ReadMetaDir(filepath.Join(dir, id.String()))
		check(t, err)
		if len(local.Thanos.Labels) > 0 {
			t.Fatalf("the TSDB's own meta.json of %s has been changed: %+v", id, local.Thanos)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("bucket (-want +got):\n%s", diff)
	}
	known, err := readShipperFile(filepath.Join(dir, DefaultMetaFileName))
	check(t, err)
	if diff := cmp.Diff(ids, known); diff != "" {
		t.Fatalf("shipper file (-want +got):\n%s", diff)
	}
	if left, _ := os.ReadDir(stagingDir(dir)); len(left) > 0 {
		t.Fatalf("left over in %s: %v", stagingDir(dir), left)
	}
}

// Shows which objects a round uploads, and in which order: blocks by time whatever their names, of each
// the chunks, the index, and meta.json last.
func TestUploadOrder(t *testing.T) {
	overBuckets(t, func(t *testing.T, bkt objstore.Bucket) {
		dir := t.TempDir()
		first := writeBlock(t, dir, 5, func(m *block.Meta) { m.MinTime, m.MaxTime = 0, 2*hour })
		second := writeBlock(t, dir, 4)
		empty := writeBlock(t, dir, 6, func(m *block.Meta) { m.Stats = tsdb.BlockStats{} })
		compacted := writeBlock(t, dir, 7, level2)
		check(t, os.Mkdir(filepath.Join(dir, "wal"), 0o777))
		check(t, os.Mkdir(filepath.Join(dir, testID(9).String()+".tmp-for-creation"), 0o777))

		f := newFaulty(bkt)
		s := newShipper(t, dir, f)
		n, err := s.Sync(context.Background())
		check(t, err)
		if n != 2 {
			t.Fatalf("uploaded %d blocks, want 2 (not %s and %s)", n, empty, compacted)
		}
		var want []string
		for _, id := range []ulid.ULID{first, second} {
			for _, o := range []string{"chunks/000001", "chunks/000002", "index", "meta.json"} {
				want = append(want, block.Object(id, o))
			}
		}
		if diff := cmp.Diff(want, f.uploads); diff != "" {
			t.Fatalf("uploads (-want +got):\n%s", diff)
		}
		checkWhole(t, dir, bkt, first, second)

		// A second round knows it all and does not ask the bucket.
		f.steps = 0
		n, err = s.Sync(context.Background())
		check(t, err)
		if n != 0 || f.steps != 0 {
			t.Fatalf("second round: %d uploads, %d requests", n, f.steps)
		}
	})
}

// Shows the exact bytes of the shipper file, which Prometheus and Thanos read, and that it forgets blocks
// that the TSDB has deleted.
func TestShipperFile(t *testing.T) {
	dir, bkt := t.TempDir(), objstore.NewInMemBucket()
	path := filepath.Join(dir, DefaultMetaFileName)
	s := newShipper(t, dir, bkt)
	expect := func(want string) {
		t.Helper()
		_, err := s.Sync(context.Background())
		check(t, err)
		got, err := os.ReadFile(path)
		check(t, err)
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
	expect("{\n\t\"version\": 1,\n\t\"uploaded\": null\n}\n")
	a, b := writeBlock(t, dir, 1), writeBlock(t, dir, 2)
	expect(fmt.Sprintf("{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t%q,\n\t\t%q\n\t]\n}\n", a, b))
	check(t, os.RemoveAll(filepath.Join(dir, a.String())))
	expect(fmt.Sprintf("{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t%q\n\t]\n}\n", b))
}

// Shows that external labels win over those in a local meta.json, which stay otherwise, that checksums
// are added on request, and that a block without any label is refused before the bucket is touched.
func TestLabelsAndHashes(t *testing.T) {
	dir, bkt := t.TempDir(), objstore.NewInMemBucket()
	id := writeBlock(t, dir, 1, func(m *block.Meta) {
		m.Thanos.Labels = map[string]string{"cluster": "other", "team": "x"}
	})
	f := newFaulty(bkt)
	none := newShipper(t, dir, f, func(c *Config) { c.Labels = labels.EmptyLabels })
	if _, err := none.Sync(context.Background()); !errors.Is(err, ErrNoLabels) || f.steps != 0 {
		t.Fatalf("without labels: error %v, %d requests", err, f.steps)
	}
	_, err := newShipper(t, dir, f, func(c *Config) { c.Hash = block.HashSHA256; c.Concurrency = 4 }).Sync(context.Background())
	check(t, err)
	m, err := block.ParseMeta(bkt.Objects()[block.Object(id, "meta.json")])
	check(t, err)
	if diff := cmp.Diff(map[string]string{"cluster": "one", "replica": "a", "team": "x"}, m.Thanos.Labels); diff != "" {
		t.Fatalf("labels (-want +got):\n%s", diff)
	}
	for _, file := range m.Thanos.Files {
		if (file.Hash == nil) != (file.RelPath == "meta.json") {
			t.Fatalf("hash of %s: %v", file.RelPath, file.Hash)
		}
	}
}

// Shows that a round comes to the right end whatever the shipper file says: lost, damaged, of another
// version, or stale.
func TestShipperFileLostOrStale(t *testing.T) {
	for name, content := range map[string]string{
		"lost": "", "empty": "\n", "cut": `{"version":1,"uplo`, "no JSON": "\x00\x00\x00", "other version": `{"version":2,"uploaded":[]}`,
		"bad id": `{"version":1,"uploaded":["x"]}`, "stale": `{"version":1,"uploaded":null}`,
		"of others": `{"version":1,"uploaded":["` + testID(77).String() + `"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			overBuckets(t, func(t *testing.T, bkt objstore.Bucket) {
				dir := t.TempDir()
				a, b := writeBlock(t, dir, 1), writeBlock(t, dir, 2)
				_, err := newShipper(t, dir, bkt).Sync(context.Background())
				check(t, err)
				c := writeBlock(t, dir, 3)
				path := filepath.Join(dir, DefaultMetaFileName)
				check(t, os.Remove(path))
				if content != "" {
					check(t, os.WriteFile(path, []byte(content), 0o666))
				}
				before := objects(t, bkt)
				n, err := newShipper(t, dir, bkt).Sync(context.Background())
				check(t, err)
				if n != 1 {
					t.Fatalf("uploaded %d blocks, want 1", n)
				}
				checkWhole(t, dir, bkt, a, b, c)
				after := objects(t, bkt)
				for name := range before {
					if before[name] != after[name] {
						t.Fatalf("%s was uploaded again", name)
					}
				}
			})
		})
	}
}

// Shows what a dead process may leave behind, in the TSDB and in the bucket, and that the next round
// makes it good.
func TestLeftovers(t *testing.T) {
	overBuckets(t, func(t *testing.T, bkt objstore.Bucket) {
		dir, ctx := t.TempDir(), context.Background()
		a, b := writeBlock(t, dir, 1), writeBlock(t, dir, 2)
		// Staging directories of a block half linked, and of one that the TSDB has deleted since.
		for _, id := range []ulid.ULID{a, testID(70)} {
			check(t, os.MkdirAll(filepath.Join(stagingDir(dir), id.String(), "chunks"), 0o777))
			check(t, os.WriteFile(filepath.Join(stagingDir(dir), id.String(), "chunks", "000001"), []byte("old"), 0o666))
		}
		// In the bucket: chunks cut off, and a meta.json cut off.
		check(t, bkt.Upload(ctx, block.Object(a, "chunks/000001"), strings.NewReader("chun")))
		check(t, bkt.Upload(ctx, block.Object(b, "index"), strings.NewReader("")))
		check(t, bkt.Upload(ctx, block.Object(b, "meta.json"), strings.NewReader(`{"ulid":"01`)))
		n, err := newShipper(t, dir, bkt).Sync(ctx)
		check(t, err)
		if n != 2 {
			t.Fatalf("uploaded %d blocks, want 2", n)
		}
		checkWhole(t, dir, bkt, a, b)
	})
}

// Shows that marks in the bucket are respected: a block marked for deletion has been uploaded; one that
// is just being deleted waits until it is gone, and those after it don't.
func TestDeletionMarks(t *testing.T) {
	dir, bkt, ctx := t.TempDir(), objstore.NewInMemBucket(), context.Background()
	a := writeBlock(t, dir, 1)
	s := newShipper(t, dir, bkt)
	_, err := s.Sync(ctx)
	check(t, err)
	mark := block.Object(a, block.DeletionMarkFilename)
	check(t, bkt.Upload(ctx, mark, strings.NewReader(`{"version":1}`)))
	check(t, os.Remove(filepath.Join(dir, DefaultMetaFileName)))
	if n, err := s.Sync(ctx); n != 0 || err != nil {
		t.Fatalf("marked: %d uploads, error %v", n, err)
	}

	b := writeBlock(t, dir, 2)
	check(t, os.Remove(filepath.Join(dir, DefaultMetaFileName)))
	check(t, bkt.Delete(ctx, block.Object(a, block.MetaFilename)))
	n, err := s.Sync(ctx)
	if n != 1 || err == nil || !strings.Contains(err.Error(), mark) {
		t.Fatalf("half deleted: %d uploads, error %v", n, err)
	}
	check(t, block.Delete(ctx, bkt, a))
	n, err = s.Sync(ctx)
	check(t, err)
	if n != 1 {
		t.Fatalf("deleted: %d uploads, want the one that waited", n)
	}
	checkWhole(t, dir, bkt, a, b)
}

// Shows what becomes of compacted blocks: passed over by default; on request uploaded if nothing in the
// bucket with the same labels overlaps. One that overlaps is refused, and the blocks after it go on.
func TestCompacted(t *testing.T) {
	overBuckets(t, func(t *testing.T, bkt objstore.Bucket) {
		dir, ctx := t.TempDir(), context.Background()
		a := writeBlock(t, dir, 1)
		_, err := newShipper(t, dir, bkt).Sync(ctx)
		check(t, err)

		other := t.TempDir() // The other replica's block covers the time of d.
		writeBlock(t, other, 50, func(m *block.Meta) { m.MinTime, m.MaxTime = 16*hour, 18*hour })
		_, err = newShipper(t, other, bkt, func(c *Config) {
			c.Labels = func() labels.Labels { return labels.FromStrings("cluster", "one", "replica", "b") }
		}).Sync(ctx)
		check(t, err)
		check(t, bkt.Upload(ctx, "01HF000000000000000000000X/meta.json", strings.NewReader("no JSON")))

		overlapping := writeBlock(t, dir, 7, level2, func(m *block.Meta) { m.MinTime, m.MaxTime = 2*hour, 6*hour })
		d := writeBlock(t, dir, 8, level2)
		e := writeBlock(t, dir, 9)
		twice := writeBlock(t, dir, 10, level2, func(m *block.Meta) { m.MinTime, m.MaxTime = 18*hour+hour, 22*hour })

		s := newShipper(t, dir, bkt, func(c *Config) { c.UploadCompacted = true })
		n, err := s.Sync(ctx)
		if n != 2 {
			t.Fatalf("uploaded %d blocks, want %s and %s; error %v", n, d, e, err)
		}
		for _, id := range []ulid.ULID{overlapping, twice} {
			if err == nil || !strings.Contains(err.Error(), "compacted block "+id.String()+" overlaps") {
				t.Fatalf("error does not name %s: %v", id, err)
			}
		}
		if got := testutil.ToFloat64(s.metrics.compactedDone); got != 0 {
			t.Fatalf("thanos_shipper_upload_compacted_done is %v", got)
		}
		for _, id := range []ulid.ULID{overlapping, twice} {
			check(t, os.RemoveAll(filepath.Join(dir, id.String())))
		}
		_, err = s.Sync(ctx)
		check(t, err)
		if got := testutil.ToFloat64(s.metrics.compactedDone); got != 1 {
			t.Fatalf("thanos_shipper_upload_compacted_done is %v", got)
		}
		known, err := readShipperFile(filepath.Join(dir, DefaultMetaFileName))
		check(t, err)
		if diff := cmp.Diff([]ulid.ULID{a, d, e}, known); diff != "" {
			t.Fatalf("shipper file (-want +got):\n%s", diff)
		}
	})
}

// Shows that damage in the TSDB stops a round with a message that names the way out, that
// SkipCorrupted goes past it, and that a block which goes away is no damage.
func TestCorrupted(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"meta.json cut":    func(dir string) error { return os.Truncate(filepath.Join(dir, "meta.json"), 20) },
		"meta.json gone":   func(dir string) error { return os.Remove(filepath.Join(dir, "meta.json")) },
		"index gone":       func(dir string) error { return os.Remove(filepath.Join(dir, "index")) },
		"chunks gone":      func(dir string) error { return os.RemoveAll(filepath.Join(dir, "chunks")) },
		"of another block": func(dir string) error { return os.Rename(dir, filepath.Join(filepath.Dir(dir), testID(40).String())) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, bkt, ctx := t.TempDir(), objstore.NewInMemBucket(), context.Background()
			bad, good := writeBlock(t, dir, 1), writeBlock(t, dir, 2)
			check(t, damage(filepath.Join(dir, bad.String())))
			s := newShipper(t, dir, bkt)
			n, err := s.Sync(ctx)
			if n != 0 || err == nil || !strings.Contains(err.Error(), "--shipper.skip-corrupted-blocks") {
				t.Fatalf("%d uploads, error %v", n, err)
			}
			if got := testutil.ToFloat64(s.metrics.corrupted); got != 1 {
				t.Fatalf("thanos_shipper_corrupted_blocks_total is %v", got)
			}
			n, err = newShipper(t, dir, bkt, func(c *Config) { c.SkipCorrupted = true }).Sync(ctx)
			check(t, err)
			if n != 1 {
				t.Fatalf("%d uploads, want 1", n)
			}
			checkWhole(t, dir, bkt, good)
		})
	}
	t.Run("gone", func(t *testing.T) {
		dir, bkt := t.TempDir(), objstore.NewInMemBucket()
		gone, good := writeBlock(t, dir, 1), writeBlock(t, dir, 2)
		f := newFaulty(bkt)
		f.before = func(step int) {
			check(t, os.RemoveAll(filepath.Join(dir, gone.String())))
		}
		n, err := newShipper(t, dir, f).Sync(context.Background())
		check(t, err)
		if n != 1 {
			t.Fatalf("%d uploads, want 1", n)
		}
		known, err := readShipperFile(filepath.Join(dir, DefaultMetaFileName))
		check(t, err)
		if diff := cmp.Diff([]ulid.ULID{good}, known); diff != "" {
			t.Fatalf("shipper file (-want +got):\n%s", diff)
		}
	})
}

// Shows that a TSDB which deletes a block in the middle of its upload takes nothing away from it.
func TestDeletedDuringUpload(t *testing.T) {
	dir, bkt := t.TempDir(), objstore.NewInMemBucket()
	id := writeBlock(t, dir, 1)
	kept := t.TempDir()
	writeBlock(t, kept, 1)
	f := newFaulty(bkt)
	f.beforeUpload = func() { check(t, os.RemoveAll(filepath.Join(dir, id.String()))) }
	n, err := newShipper(t, dir, f).Sync(context.Background())
	check(t, err)
	if n != 1 {
		t.Fatalf("%d uploads, want 1", n)
	}
	check(t, writeShipperFile(filepath.Join(kept, DefaultMetaFileName), []ulid.ULID{id}))
	checkWhole(t, kept, bkt, id)
}

// Shows that everything in the TSDB but the shipper file stays as it was, bytes and times.
func TestTSDBUntouched(t *testing.T) {
	dir := t.TempDir()
	writeBlock(t, dir, 1)
	look := func() []string {
		var all []string
		check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == DefaultMetaFileName {
				return err
			}
			i, err := d.Info()
			all = append(all, fmt.Sprint(path, i.Size(), i.Mode(), i.ModTime()))
			return err
		}))
		return all
	}
	before := look()
	_, err := newShipper(t, dir, objstore.NewInMemBucket()).Sync(context.Background())
	check(t, err)
	if after := look(); !slices.Equal(before, after) {
		t.Fatal(cmp.Diff(before, after))
	}
}

// Shows that contradictions in the configuration are explained.
func TestConfigValidate(t *testing.T) {
	f := func(want string, change func(*Config)) {
		t.Helper()
		cfg := Config{Labels: func() labels.Labels { return external }}
		change(&cfg)
		if err := cfg.Validate(); (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	f("", func(*Config) {})
	f("--hash-func", func(c *Config) { c.Hash = "MD5" })
	f("--shipper.upload-concurrency", func(c *Config) { c.Concurrency = -1 })
	f("--shipper.meta-file-name", func(c *Config) { c.MetaFileName = "../x" })
}

// Shows the names of all metrics, which are there at 0 from the first scrape.
func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	newMetrics(reg)
	var got []string
	fams, err := reg.Gather()
	check(t, err)
	for _, f := range fams {
		got = append(got, f.GetName())
	}
	want := []string{
		"thanos_shipper_corrupted_blocks_total", "thanos_shipper_dir_sync_failures_total", "thanos_shipper_dir_syncs_total",
		"thanos_shipper_upload_compacted_done", "thanos_shipper_upload_failures_total", "thanos_shipper_uploads_total",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
}

// Whatever bytes stand in a shipper file, it is either understood or refused; what is understood and
// written again is the same.
func FuzzParseShipperFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"uploaded":["` + testID(1).String() + `"]}`))
	f.Add([]byte(`{"version":1,"uploaded":null}`))
	f.Add([]byte(`{"version":1`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := parseShipperFile(b)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "f")
		check(t, writeShipperFile(path, ids))
		again, err := readShipperFile(path)
		check(t, err)
		if !slices.Equal(ids, again) {
			t.Fatal(cmp.Diff(ids, again))
		}
	})
}
