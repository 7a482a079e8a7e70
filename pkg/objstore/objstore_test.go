package objstore

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
)

// Shows that ranges of an object in a directory are those of the provider, whatever they begin and end with, that they
// tell their size, and that an object which is not there is known for that.
func TestFilesystemRanges(t *testing.T) {
	bkt, err := NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := bkt.Upload(t.Context(), "a/b", strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	f := func(off, length int64, want string) {
		t.Helper()
		for _, b := range []objstore.BucketReader{bkt, bkt.Bucket} {
			r, err := b.GetRange(t.Context(), "a/b", off, length)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || string(got) != want {
				t.Errorf("%T: %d bytes from %d on are %q (%v), want %q", b, length, off, got, err, want)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		r, err := bkt.GetRange(t.Context(), "a/b", off, length)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if n, err := objstore.TryToGetSize(r); err != nil || n != int64(len(want)) {
			t.Errorf("%d bytes from %d on say they are %d (%v)", length, off, n, err)
		}
	}
	f(0, 10, "0123456789")
	f(3, 4, "3456")
	f(3, -1, "3456789")
	f(8, 100, "89")
	f(10, 1, "")
	f(11, -1, "")
	f(0, 0, "")
	if _, err := bkt.GetRange(t.Context(), "a/c", 0, 1); !bkt.IsObjNotFoundErr(err) {
		t.Errorf("an object that is not there: %v", err)
	}
	if r, err := bkt.GetRange(t.Context(), "a", 0, 1); err == nil {
		_ = r.Close()
		t.Error("a directory was read")
	}
}

// Shows that every wrong config is refused with an error that says what to change.
func TestRefusedConfigs(t *testing.T) {
	f := func(content, want string) {
		t.Helper()
		_, err := New(log.NewNopLogger(), []byte(content), prometheus.NewRegistry(), "test")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", content, err, want)
		}
	}
	f("", "is empty: set type to one of S3, GCS")
	f("  \n", "is empty")
	f("config: {}", "has no type")
	f("type: S4", `unknown type "S4", use one of S3`)
	f("type: S3\nbuckt: x", "the keys are type, config and prefix")
	f("{", "parse object storage config")
	f("- type: S3", "parse object storage config")
	f("type: FILESYSTEM", "set config.directory")
	f("type: filesystem\nconfig: {directory: ''}", "set config.directory")
	f("type: FILESYSTEM\nconfig: dir", "config must hold the keys")
	f("type: S3\nconfig: {bucket: b}", "no s3 endpoint in config file; check the keys below config")
	f("type: S3\nconfig: {bucket: b, endpoint: e, accesskey: k}", "accesskey")
	f("type: S3\nconfig: {bucket: b, endpoint: e, access_key: k}", "no s3 secret_key")
	f("type: AZURE\nconfig: {}", "type AZURE")
	f("type: FILESYSTEM\nconfig: {directory: x}\nhedging_config: {enabled: true}", "hedging_config")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	f("type: FILESYSTEM\nconfig: {directory: "+file+"}", "is no directory")
}

func put(t testing.TB, bkt objstore.Bucket, name, content string) {
	t.Helper()
	if err := bkt.Upload(t.Context(), name, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func list(t testing.TB, bkt objstore.BucketReader, dir string, opts ...objstore.IterOption) (names []string) {
	t.Helper()
	if err := bkt.Iter(t.Context(), dir, func(n string) error { names = append(names, n); return nil }, opts...); err != nil {
		t.Fatal(err)
	}
	return names
}

func get(t testing.TB, bkt objstore.BucketReader, name string, off, length int64) string {
	t.Helper()
	r, err := bkt.GetRange(t.Context(), name, off, length)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// exercise does with a bucket what the components do, below a prefix.
func exercise(t *testing.T, bkt objstore.Bucket) {
	put(t, bkt, "A/index", "0123456789")
	put(t, bkt, "A/chunks/000001", "c")
	put(t, bkt, "B/meta.json", "old")
	put(t, bkt, "B/meta.json", "new")
	if diff := cmp.Diff([]string{"A/", "B/"}, list(t, bkt, "")); diff != "" {
		t.Errorf("root (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"A/chunks/000001", "A/index"}, list(t, bkt, "A/", objstore.WithRecursiveIter())); diff != "" {
		t.Errorf("A (-want +got):\n%s", diff)
	}
	if got := get(t, bkt, "A/index", 3, 4); got != "3456" {
		t.Errorf("range: %q", got)
	}
	if got := get(t, bkt, "B/meta.json", 0, 100); got != "new" {
		t.Errorf("written twice: %q", got)
	}
	if _, err := bkt.Get(t.Context(), "A/meta.json"); !bkt.IsObjNotFoundErr(err) {
		t.Errorf("absent object: %v", err)
	}
	if ok, err := bkt.Exists(t.Context(), "A/meta.json"); ok || err != nil {
		t.Errorf("absent object: %v %v", ok, err)
	}
	if err := bkt.Delete(t.Context(), "B/meta.json"); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"A/"}, list(t, bkt, "")); diff != "" {
		t.Errorf("after deletion (-want +got):\n%s", diff)
	}
}

// Shows a bucket in a directory behind a config with a prefix, with its metrics at 0 before use.
func TestFilesystem(t *testing.T) {
	dir := t.TempDir()
	reg := prometheus.NewRegistry()
	bkt, err := New(log.NewNopLogger(), []byte("type: filesystem\nconfig: {directory: "+dir+"}\nprefix: /a/b/"), reg, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer bkt.Close()
	for name, series := range map[string]int{
		"thanos_objstore_bucket_operations_total": 7, "thanos_objstore_bucket_operation_failures_total": 7,
		"thanos_objstore_bucket_operation_duration_seconds": 7, "thanos_objstore_bucket_operation_fetched_bytes_total": 3,
		"thanos_objstore_bucket_operation_transferred_bytes": 3, "thanos_objstore_bucket_last_successful_upload_time": 1,
	} {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n != series {
			t.Errorf("%s: %d series, %v", name, n, err)
		}
	}
	exercise(t, bkt)
	if _, err := os.Stat(filepath.Join(dir, "a", "b", "A", "index")); err != nil {
		t.Error(err)
	}
	if err := bkt.Upload(t.Context(), "../../../x", strings.NewReader("")); err == nil {
		t.Error("wrote outside of the bucket")
	}
}

type brokenReader struct{ n int }

func (r *brokenReader) Read(b []byte) (int, error) {
	if r.n++; r.n > 1 {
		return 0, errors.New("source broke")
	}
	return copy(b, "half"), nil
}

// Shows that an upload that breaks leaves what was there before, and nothing to be listed.
func TestFilesystemUploadIsWhole(t *testing.T) {
	dir := t.TempDir()
	bkt, err := NewFilesystem(dir)
	if err != nil {
		t.Fatal(err)
	}
	put(t, bkt, "A/meta.json", "whole")
	if err := bkt.Upload(t.Context(), "A/meta.json", &brokenReader{}); err == nil || !strings.Contains(err.Error(), "source broke") {
		t.Errorf("error: %v", err)
	}
	if err := bkt.Upload(t.Context(), "B/meta.json", &brokenReader{}); err == nil {
		t.Error("no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := bkt.Upload(ctx, "A/meta.json", strings.NewReader("late")); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
	if got := get(t, bkt, "A/meta.json", 0, -1); got != "whole" {
		t.Errorf("got %q", got)
	}

	// What a killed process left is not listed, and goes away when it is old.
	left := filepath.Join(dir, uploadsDirname, "upload-1")
	if err := os.WriteFile(left, []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, opts := range [][]objstore.IterOption{nil, {objstore.WithRecursiveIter()}} {
		for _, name := range list(t, bkt, "", opts...) {
			if strings.Contains(name, "upload") {
				t.Errorf("listed %s", name)
			}
		}
	}
	old := time.Now().Add(-2 * uploadAgeMax)
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFilesystem(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("old leftover: %v", err)
	}
}

// Shows the S3 client against an S3 server.
func TestS3(t *testing.T) {
	backend := s3mem.New()
	if err := backend.CreateBucket("blocks"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(backend).Server())
	defer srv.Close()
	content := "type: S3\nconfig:\n  bucket: blocks\n  endpoint: " + strings.TrimPrefix(srv.URL, "http://") +
		"\n  access_key: key\n  secret_key: secret\n  insecure: true\n  region: test\nprefix: p"
	reg := prometheus.NewRegistry()
	bkt, err := New(log.NewNopLogger(), []byte(content), reg, "test")
	if err != nil {
		t.Fatal(err)
	}
	exercise(t, bkt)
	if n, err := testutil.GatherAndCount(reg, "thanos_objstore_bucket_operations_total"); err != nil || n != 7 {
		t.Error(n, err)
	}
}

// Shows that no bytes break the parser, and that what it admits has a known type.
func FuzzParse(f *testing.F) {
	f.Add([]byte("type: S3\nconfig: {bucket: b}\nprefix: p"))
	f.Add([]byte("type: filesystem\nconfig:\n  directory: /x"))
	f.Add([]byte("type: {}\nconfig: []"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err == nil && !strings.Contains(listTypes(), string(c.Type)) {
			t.Fatalf("admitted type %q", c.Type)
		}
	})
}
