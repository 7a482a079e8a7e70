package components

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/cache"
)

// A prefix is a path, or the path of a URL; the root is nothing.
func TestPathPrefix(t *testing.T) {
	f := func(s, want string) {
		t.Helper()
		if got, err := pathPrefix(s); err != nil || got != want {
			t.Errorf("%q: %q %v: want %q", s, got, err, want)
		}
	}
	f("", "")
	f("/", "")
	f("thanos", "/thanos")
	f("/thanos/", "/thanos")
	f("/a//b/", "/a/b")
	f("http://name.ns:10902", "")
	f("http://name.ns:10902/", "")
	f("https://name.ns/pre/fix/", "/pre/fix")
	for _, s := range []string{"http://[", "/a{b}", "/a b"} {
		if got, err := pathPrefix(s); err == nil {
			t.Errorf("%q is read as %q", s, got)
		}
	}
}

func FuzzPathPrefix(f *testing.F) {
	f.Add("/thanos")
	f.Add("http://name.ns:10902/x")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := pathPrefix(s)
		if err == nil && p != "" && (!strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/")) {
			t.Errorf("%q is read as %q", s, p)
		}
	})
}

// Labels are name="value", with or without quotes.
func TestParseLabels(t *testing.T) {
	ls, err := parseLabels([]string{`a="b"`, `c=d`, `e="quo\"te"`, `f="a=b"`})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"a": "b", "c": "d", "e": `quo"te`, "f": "a=b"}, ls.Map()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, s := range []string{"a", "=b", `a="b`, `a="b"c`, ""} {
		if ls, err := parseLabels([]string{s}); err == nil {
			t.Errorf("%q is read as %s", s, ls)
		}
	}
}

func FuzzParseLabels(f *testing.F) {
	f.Add(`a="b"`)
	f.Fuzz(func(_ *testing.T, s string) { _, _ = parseLabels([]string{s}) })
}

// The blocks page gets what is served and how the last look at the bucket went; marks reach the bucket
// unless that is forbidden; what is wrong with a request is said.
func TestBlocksAPI(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	id := ulid.MustNew(1, nil)
	meta := &block.Meta{}
	meta.ULID, meta.Version = id, 1
	meta.Thanos.Labels = map[string]string{"cluster": "a"}
	api := &blocksAPI{label: "cluster", loaded: func() []*block.Meta { return []*block.Meta{meta} }, bkt: bkt, logger: log.NewNopLogger()}

	list := func(query string) (v struct {
		Status string
		Data   struct {
			Label       string
			Blocks      []map[string]any
			RefreshedAt string
			Err         *string
		}
	}) {
		rec := httptest.NewRecorder()
		api.list(rec, httptest.NewRequest(http.MethodGet, "/api/v1/blocks"+query, nil))
		if err := json.Unmarshal(rec.Body.Bytes(), &v); err != nil || v.Status != "success" {
			t.Fatalf("%v in %s", err, rec.Body)
		}
		return v
	}
	api.synced(nil)
	v := list("?view=loaded")
	if v.Data.Label != "cluster" || len(v.Data.Blocks) != 1 || v.Data.Blocks[0]["ulid"] != id.String() || v.Data.Err != nil || strings.HasPrefix(v.Data.RefreshedAt, "0001") {
		t.Errorf("loaded view %+v", v)
	}
	api.synced(errors.New("bucket is away"))
	if v := list("?view=loaded"); v.Data.Err == nil || *v.Data.Err != "bucket is away" {
		t.Errorf("after a failure %+v", v)
	}
	if v := list(""); v.Data.Blocks == nil || len(v.Data.Blocks) != 0 {
		t.Errorf("global view %+v", v)
	}

	mark := func(wantCode int, wantText string, params ...string) {
		t.Helper()
		form := url.Values{}
		for i := 0; i < len(params); i += 2 {
			form.Set(params[i], params[i+1])
		}
		req := httptest.NewRequest(http.MethodPost, "/api/v1/blocks/mark", strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		rec := httptest.NewRecorder()
		api.mark(rec, req)
		if rec.Code != wantCode || !strings.Contains(rec.Body.String(), wantText) {
			t.Errorf("%v: %d %s: want %d %s", params, rec.Code, rec.Body, wantCode, wantText)
		}
	}
	exists := func(name string) bool {
		ok, err := bkt.Exists(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	mark(400, "id and action are required", "id", id.String())
	mark(400, "is no block id", "id", "x", "action", "DELETION")
	mark(400, "want DELETION or NO_COMPACTION", "id", id.String(), "action", "BURN")
	if len(bkt.Objects()) != 0 {
		t.Errorf("objects after refusals: %v", bkt.Objects())
	}
	mark(204, "", "id", id.String(), "action", "DELETION", "detail", "d")
	mark(204, "", "id", id.String(), "action", "NO_COMPACTION", "detail", "d")
	if !exists(id.String()+"/deletion-mark.json") || !exists(id.String()+"/no-compact-mark.json") {
		t.Error("marks are missing")
	}
	api.readOnly = true
	mark(400, "Admin operations are disabled", "id", id.String(), "action", "DELETION")
}

// The index cache has the size that is asked for in memory, and keeps what is asked for; one in another process takes none.
func TestIndexCacheConfig(t *testing.T) {
	f := func(text string, bytes, itemBytes uint64, items string, remote cache.Type, fault string) {
		t.Helper()
		got, err := parseIndexCache([]byte(text), 7)
		if fault != "" {
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("%s: %v: want %s", text, err, fault)
			}
			return
		}
		if err != nil || got.bytes != bytes || got.itemBytes != itemBytes || strings.Join(got.items, " ") != items {
			t.Errorf("%s: %+v %v", text, got, err)
		}
		if (got.remote != nil) != (remote != "") || got.remote != nil && got.remote.Type != remote {
			t.Errorf("%s: it is in %+v", text, got.remote)
		}
	}
	f("", 7, 0, "", "", "")
	f("type: IN-MEMORY", 250<<20, 0, "", "", "")
	f("type: in-memory\nconfig: {max_size: 1GB, max_item_size: 1MB}", 1<<30, 1<<20, "", "", "")
	f("type: in-memory\nconfig: {max_size: 1MB}", 1<<20, 0, "", "", "")
	f("type: IN-MEMORY\nconfig: {max_size: 0}", 250<<20, 0, "", "", "")
	f("type: MEMCACHED\nconfig: {addresses: [a]}\nttl: 24h", 0, 0, "", cache.Memcached, "")
	f("type: REDIS\nconfig: {addr: a}\nenabled_items: [Series]", 0, 0, "Series", cache.Redis, "")
	f("type: IN-MEMORY\nenabled_items: [Postings, ExpandedPostings]", 250<<20, 0, "Postings ExpandedPostings", "", "")
	f("type: IN-MEMORY\nenabled_items: [Chunks]", 0, 0, "", "", `"Chunks"`)
	f("type: TAPE", 0, 0, "", "", `"TAPE"`)
	f("typ: IN-MEMORY", 0, 0, "", "", "typ")
	f("type: IN-MEMORY\nconfig: {max_size: much}", 0, 0, "", "", `"much"`)
	f("type: IN-MEMORY\nconfig: {max_size: 1MB, max_item_size: 2MB}", 0, 0, "", "", "max_item_size")
	if c, err := parseIndexCache([]byte("type: MEMCACHED\nconfig: {addresses: [a]}\nttl: 3h"), 0); err != nil || c.remote.Memcached.Expiration != 3*time.Hour {
		t.Errorf("ttl: %+v, %v", c.remote, err)
	}
}

func FuzzIndexCacheConfig(f *testing.F) {
	f.Add([]byte("type: IN-MEMORY\nconfig: {max_size: 1GB}"))
	f.Add([]byte("type: MEMCACHED\nconfig: {addresses: [a], max_item_size: 1MiB, dns_provider_update_interval: 3s}\nttl: 3h\nenabled_items: [Series]"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseIndexCache(b, 0) })
}
