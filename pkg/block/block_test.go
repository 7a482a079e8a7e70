package block

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"
)

// writeBlockDir makes a directory that looks like a block; the index and the chunks are not read here.
func writeBlockDir(t testing.TB, id ulid.ULID, chunkFiles int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), id.String())
	if err := os.MkdirAll(filepath.Join(dir, ChunksDirname), 0o777); err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for i := range chunkFiles {
		write("chunks/00000"+string(rune('1'+i)), strings.Repeat("c", 100+i))
	}
	write("index", "index bytes")
	write("tombstones", "not uploaded")
	if err := WriteMetaDir(dir, newMeta(id)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newMeta(id ulid.ULID) *Meta {
	return &Meta{
		BlockMeta: tsdb.BlockMeta{
			ULID: id, MinTime: 1000, MaxTime: 2000, Version: 1,
			Stats:      tsdb.BlockStats{NumSamples: 3, NumSeries: 2, NumChunks: 2},
			Compaction: tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{id}},
		},
		Thanos: Thanos{Version: 1, Labels: map[string]string{"region": "<eu>"}, Source: SourceSidecar},
	}
}

func testID(n byte) ulid.ULID {
	var id ulid.ULID
	_ = id.SetTime(uint64(1_700_000_000_000))
	id[15] = n
	return id
}

// recordingBucket notes every write, and can refuse one, before or after it took effect.
type recordingBucket struct {
	objstore.Bucket
	mu    sync.Mutex
	log   []string
	fault func(op, name string) (err error, takesEffect bool)
}

func (b *recordingBucket) do(op, name string, f func() error) error {
	b.mu.Lock()
	b.log = append(b.log, op+" "+name)
	b.mu.Unlock()
	if b.fault != nil {
		if err, takesEffect := b.fault(op, name); err != nil {
			if takesEffect {
				if e := f(); e != nil {
					return e
				}
			}
			return err
		}
	}
	return f()
}

func (b *recordingBucket) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	return b.do("put", name, func() error { return b.Bucket.Upload(ctx, name, r, opts...) })
}

func (b *recordingBucket) Delete(ctx context.Context, name string) error {
	return b.do("delete", name, func() error { return b.Bucket.Delete(ctx, name) })
}

// Shows that an upload writes chunks, index and meta.json in this order and nothing else, and that meta.json lists them.
func TestUploadOrder(t *testing.T) {
	id := testID(1)
	dir := writeBlockDir(t, id, 2)
	inmem := objstore.NewInMemBucket()
	bkt := &recordingBucket{Bucket: inmem}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("x", 3600))
	meta, err := Upload(t.Context(), bkt, dir, UploadOptions{Hash: HashSHA256, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	p := "put " + id.String() + "/"
	if diff := cmp.Diff([]string{p + "chunks/000001", p + "chunks/000002", p + "index", p + "meta.json"}, bkt.log); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"000001", "000002"}, meta.Thanos.SegmentFiles); diff != "" {
		t.Error(diff)
	}
	b := inmem.Objects()[id.String()+"/meta.json"]
	want := `{
	"ulid": "` + id.String() + `",
	"minTime": 1000,
	"maxTime": 2000,
	"stats": {
		"numSamples": 3,
		"numSeries": 2,
		"numChunks": 2
	},
	"compaction": {
		"level": 1,
		"sources": [
			"` + id.String() + `"
		]
	},
	"version": 1,
	"thanos": {
		"version": 1,
		"labels": {
			"region": "\u003ceu\u003e"
		},
		"downsample": {
			"resolution": 0
		},
		"source": "sidecar",
		"segment_files": [
			"000001",
			"000002"
		],
		"files": [
			{
				"rel_path": "chunks/000001",
				"size_bytes": 100,
				"hash": {
					"hashFunc": "SHA256",
					"value": "1c0ab1928c9ae4d778aef9a13d8475f96f0171e72a0a21b7e54d4fa46c0ff74d"
				}
			},
			{
				"rel_path": "chunks/000002",
				"size_bytes": 101,
				"hash": {
					"hashFunc": "SHA256",
					"value": "X"
				}
			},
			{
				"rel_path": "index",
				"size_bytes": 11,
				"hash": {
					"hashFunc": "SHA256",
					"value": "X"
				}
			},
			{
				"rel_path": "meta.json"
			}
		],
		"index_stats": {},
		"upload_time": "2026-01-02T02:04:05Z"
	}
}
`
	mask := func(s string) string {
		lines := strings.Split(s, "\n")
		for i, l := range lines {
			if strings.Contains(l, `"value": `) {
				lines[i] = `					"value": "X"`
			}
		}
		return strings.Join(lines, "\n")
	}
	if diff := cmp.Diff(mask(want), mask(string(b))); diff != "" {
		t.Errorf("meta.json (-want +got):\n%s", diff)
	}
	back, err := ParseMeta(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(meta, back); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
	if !meta.Thanos.Files[0].Hash.matches(filepath.Join(dir, "chunks", "000001")) {
		t.Error("checksum does not match its own file")
	}
}

// Shows, for each step of an upload refused, and reported as failed though stored, that the block is not visible unless
// it is whole, and that uploading again leaves it whole.
func TestUploadFaults(t *testing.T) {
	for step := range 4 {
		for _, takesEffect := range []bool{false, true} {
			id := testID(2)
			dir := writeBlockDir(t, id, 2)
			inmem := objstore.NewInMemBucket()
			n := 0
			bkt := &recordingBucket{Bucket: inmem, fault: func(string, string) (error, bool) {
				n++
				if n-1 == step {
					return errors.New("refused"), takesEffect
				}
				return nil, false
			}}
			if _, err := Upload(t.Context(), bkt, dir, UploadOptions{}); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Fatalf("step %d: error is %v", step, err)
			}
			visible, err := Exists(t.Context(), bkt, id)
			if err != nil {
				t.Fatal(err)
			}
			if want := step == 3 && takesEffect; visible != want {
				t.Errorf("step %d, took effect %v: visible %v", step, takesEffect, visible)
			}
			if _, err := Upload(t.Context(), bkt, dir, UploadOptions{}); err != nil {
				t.Fatal(err)
			}
			var names []string
			for name := range inmem.Objects() {
				names = append(names, strings.TrimPrefix(name, id.String()+"/"))
			}
			slices.Sort(names)
			if diff := cmp.Diff([]string{"chunks/000001", "chunks/000002", "index", "meta.json"}, names); diff != "" {
				t.Errorf("step %d: objects (-want +got):\n%s", step, diff)
			}
		}
	}
}

// Shows what an upload refuses to start: no labels, a wrong directory name, a missing index, a broken meta.json.
func TestUploadRefuses(t *testing.T) {
	f := func(want string, spoil func(dir string) string) {
		t.Helper()
		dir := spoil(writeBlockDir(t, testID(3), 1))
		bkt := &recordingBucket{Bucket: objstore.NewInMemBucket()}
		_, err := Upload(t.Context(), bkt, dir, UploadOptions{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
		if len(bkt.log) > 0 {
			t.Errorf("wrote %v", bkt.log)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	f("no external labels", func(dir string) string {
		m := newMeta(testID(3))
		m.Thanos.Labels = nil
		must(WriteMetaDir(dir, m))
		return dir
	})
	f("the names must be equal", func(dir string) string {
		other := filepath.Join(filepath.Dir(dir), testID(4).String())
		must(os.Rename(dir, other))
		return other
	})
	f("no such file", func(dir string) string { must(os.Remove(filepath.Join(dir, "index"))); return dir })
	f("decode JSON", func(dir string) string {
		must(os.WriteFile(filepath.Join(dir, "meta.json"), []byte("{"), 0o666))
		return dir
	})
}

// Shows that a deletion takes meta.json first and the mark last, and that one which stopped anywhere can be repeated.
func TestDeleteOrder(t *testing.T) {
	id := testID(5)
	for stop := range 6 {
		inmem := objstore.NewInMemBucket()
		dir := writeBlockDir(t, id, 2)
		if _, err := Upload(t.Context(), inmem, dir, UploadOptions{}); err != nil {
			t.Fatal(err)
		}
		if ok, err := MarkForDeletion(t.Context(), inmem, id, "outdated block", time.Unix(77, 0)); err != nil || !ok {
			t.Fatal(ok, err)
		}
		n := 0
		bkt := &recordingBucket{Bucket: inmem, fault: func(string, string) (error, bool) {
			n++
			if n-1 == stop {
				return errors.New("refused"), false
			}
			return nil, false
		}}
		err := Delete(t.Context(), bkt, id)
		if stop < 5 {
			if err == nil {
				t.Fatalf("step %d: no error", stop)
			}
			bkt.fault = nil
			err = Delete(t.Context(), bkt, id)
		} else {
			d := "delete " + id.String() + "/"
			want := []string{d + "meta.json", d + "chunks/000001", d + "chunks/000002", d + "index", d + "deletion-mark.json"}
			slices.Sort(bkt.log[1:4])
			if diff := cmp.Diff(want, bkt.log); diff != "" {
				t.Errorf("deletes (-want +got):\n%s", diff)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if left := inmem.Objects(); len(left) > 0 {
			t.Errorf("step %d: left %d objects", stop, len(left))
		}
	}
	if err := Delete(t.Context(), objstore.NewInMemBucket(), id); err != nil {
		t.Errorf("nothing to delete: %v", err)
	}
}

// Shows that a download brings everything but marks, and fetches files with a known checksum only once.
func TestDownload(t *testing.T) {
	id := testID(6)
	inmem := objstore.NewInMemBucket()
	src := writeBlockDir(t, id, 2)
	if _, err := Upload(t.Context(), inmem, src, UploadOptions{Hash: HashSHA256}); err != nil {
		t.Fatal(err)
	}
	if _, err := MarkForDeletion(t.Context(), inmem, id, "", time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	bkt := &countingBucket{Bucket: inmem}
	dst := filepath.Join(t.TempDir(), id.String())
	for round, want := range []int{4, 1} {
		bkt.gets = 0
		if _, err := Download(t.Context(), bkt, id, dst, 1); err != nil {
			t.Fatal(err)
		}
		if bkt.gets != want {
			t.Errorf("round %d: %d gets, want %d", round, bkt.gets, want)
		}
	}
	for _, name := range []string{"chunks/000001", "chunks/000002", "index"} {
		a, _ := os.ReadFile(filepath.Join(src, name))
		b, _ := os.ReadFile(filepath.Join(dst, name))
		if len(a) == 0 || !bytes.Equal(a, b) {
			t.Errorf("%s differs", name)
		}
	}
	if _, err := os.Stat(filepath.Join(dst, DeletionMarkFilename)); err == nil {
		t.Error("downloaded the mark")
	}
}

type countingBucket struct {
	objstore.Bucket
	gets int
}

func (b *countingBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	b.gets++
	return b.Bucket.Get(ctx, name)
}

// Shows the bytes of the marks, that a second one changes nothing, and how bad ones read.
func TestMarks(t *testing.T) {
	id := testID(7)
	bkt := objstore.NewInMemBucket()
	now := time.Unix(1700000000, 5)
	for _, first := range []bool{true, false} {
		for name, mark := range map[string]func() (bool, error){
			"deletion":      func() (bool, error) { return MarkForDeletion(t.Context(), bkt, id, "", now) },
			"no-compact":    func() (bool, error) { return MarkForNoCompact(t.Context(), bkt, id, NoCompactIndexSize, "big", now) },
			"no-downsample": func() (bool, error) { return MarkForNoDownsample(t.Context(), bkt, id, NoDownsampleManual, "", now) },
		} {
			if ok, err := mark(); err != nil || ok != first {
				t.Errorf("%s: %v %v", name, ok, err)
			}
		}
	}
	got := map[string]string{}
	for name, b := range bkt.Objects() {
		got[strings.TrimPrefix(name, id.String()+"/")] = string(b)
	}
	want := map[string]string{
		"deletion-mark.json":      `{"id":"` + id.String() + `","version":1,"deletion_time":1700000000}`,
		"no-compact-mark.json":    `{"id":"` + id.String() + `","version":1,"details":"big","no_compact_time":1700000000,"reason":"index-size-exceeding"}`,
		"no-downsample-mark.json": `{"id":"` + id.String() + `","version":1,"no_downsample_time":1700000000,"reason":"manual"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("marks (-want +got):\n%s", diff)
	}
	if m, err := ReadNoCompactMark(t.Context(), bkt, id); err != nil || m.Reason != NoCompactIndexSize || m.Details != "big" {
		t.Error(m, err)
	}

	if m, err := ReadDeletionMark(t.Context(), bkt, testID(8)); m != nil || err != nil {
		t.Error("absent:", m, err)
	}
	put := func(s string) {
		if err := bkt.Upload(t.Context(), Object(id, DeletionMarkFilename), strings.NewReader(s)); err != nil {
			t.Fatal(err)
		}
	}
	put("{")
	if m, err := ReadDeletionMark(t.Context(), bkt, id); m != nil || !errors.Is(err, ErrMarkUndecodable) {
		t.Error("undecodable:", m, err)
	}
	put(`{"version":2}`)
	if m, err := ReadDeletionMark(t.Context(), bkt, id); m != nil || err == nil || errors.Is(err, ErrMarkUndecodable) {
		t.Error("version 2:", m, err)
	}
}

// Shows which directory names are blocks.
func TestParseID(t *testing.T) {
	f := func(dir string, want bool) {
		t.Helper()
		if _, ok := ParseID(dir); ok != want {
			t.Errorf("%q: %v", dir, ok)
		}
	}
	id := testID(1).String()
	f(id, true)
	f(id+"/", true)
	f(strings.ToLower(id), false)
	f(id+"x", false)
	f("debug/", false)
	f("", false)
	f("8ZZZZZZZZZZZZZZZZZZZZZZZZZ", false)
}

// Shows that reading takes what others write: no version, unknown fields, nulls; and refuses what can't be used.
func TestParseMeta(t *testing.T) {
	f := func(in, wantErr string) *Meta {
		t.Helper()
		m, err := ParseMeta([]byte(in))
		if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("%s: error %v, want %q", in, err, wantErr)
		}
		return m
	}
	id := testID(1).String()
	m := f(`{"ulid":"`+id+`","minTime":1,"maxTime":2,"version":1,"new":{},"thanos":{"labels":null,"extensions":null,"rewrites":[{"sources":null,"deletions_applied":null}],"new":1}}`, "")
	if m != nil && m.Thanos.Extensions != nil {
		t.Error("null extensions kept")
	}
	m = f(`{"ulid":"`+id+`","version":1,"thanos":{"labels":{"a":"b"},"extensions":{"x":[1]},"rewrites":[{"deletions_applied":[{"matchers":"{a=\"b\"}"}]}]}}`, "")
	if m != nil {
		b, err := m.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseMeta(b)
		if err != nil {
			t.Fatal(err)
		}
		b2, _ := again.Bytes()
		if diff := cmp.Diff(string(b), string(b2)); diff != "" {
			t.Error(diff)
		}
	}
	f(``, "decode JSON")
	f(`null`, "version is 0")
	f(`{"ulid":"x","version":1}`, "decode JSON")
	f(`{"ulid":"`+id+`","version":2}`, "version is 2")
	f(`{"ulid":"`+id+`","version":1,"thanos":{"version":9}}`, "thanos.version is 9")
	f(`{"version":1}`, "ulid is missing")
	f(`{"ulid":"`+id+`","version":1,"minTime":2,"maxTime":1}`, "after maxTime")
	f(`{"ulid":"`+id+`","version":1,"thanos":{"downsample":{"resolution":-1}}}`, "negative")
}

// Shows that no bytes break the reader, and that what is written reads back the same.
func FuzzParseMeta(f *testing.F) {
	b, err := newMeta(testID(1)).Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"version":1,"thanos":{"extensions":{"a":"<"}}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := ParseMeta(in)
		if err != nil {
			return
		}
		b, err := m.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseMeta(b)
		if err != nil {
			t.Fatalf("wrote what can't be read: %v", err)
		}
		b2, err := again.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, b2) {
			t.Fatalf("%s\n%s", b, b2)
		}
	})
}
