package startup

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"

	"github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/pkg/store/bucket"
)

// config is the object storage configuration of a bucket at an address.
func config(addr string) string {
	return fmt.Sprintf("type: S3\nconfig: {bucket: %s, endpoint: %q, insecure: true, access_key: a, secret_key: b, region: us-east-1}\n",
		bucketName, strings.TrimPrefix(addr, "http://"))
}

// Shows, counting every request at the server, what a store asks of a bucket: with an empty disk the listing, and one
// read of metadata and one of the index for each block; with a warm one, and at each look that finds nothing new, the
// listing only.
func TestRequests(t *testing.T) {
	const blocks = 500
	s := newS3(copies(t, blocks), 0)
	srv := httptest.NewServer(s)
	defer srv.Close()
	bkt, err := objstore.New(log.NewNopLogger(), []byte(config(srv.URL)), nil, "store")
	if err != nil {
		t.Fatal(err)
	}
	defer bkt.Close()
	dir := filepath.Join(t.TempDir(), "data")
	start := func() *bucket.Store {
		t.Helper()
		st, err := bucket.New(bkt, bucket.Config{DataDir: dir, SyncInterval: time.Hour}, log.NewNopLogger(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.InitialSync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(st.Blocks()); n != blocks {
			t.Errorf("%d blocks, want %d", n, blocks)
		}
		return st
	}
	want := func(what string, want map[string]int) {
		t.Helper()
		if diff := cmp.Diff(want, s.take()); diff != "" {
			t.Errorf("%s: requests (-want +got):\n%s", what, diff)
		}
	}
	const pages = (3*blocks + pageObjects - 1) / pageObjects
	st := start()
	want("empty disk", map[string]int{"list": pages, "get meta.json": blocks, "get range": blocks})
	if err := st.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("second look", map[string]int{"list": pages})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	st = start()
	want("warm disk", map[string]int{"list": pages})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "meta-syncer")); err != nil {
		t.Error(err)
	}
}
