package components

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/compact"
)

// compactFields are the fields of compact.Config that each flag of the compactor changes, and nothing else does.
var compactFields = map[string]string{
	"block-discovery-strategy": "Discovery", "block-files-concurrency": "FilesConcurrency", "block-meta-fetch-concurrency": "MetaFetchConcurrency",
	"compact.block-max-index-size": "Settings.IndexBytesMax", "compact.blocks-fetch-concurrency": "BlocksFetchConcurrency",
	"compact.cleanup-interval": "CleanupInterval", "compact.concurrency": "Concurrency", "compact.enable-vertical-compaction": "Settings.Vertical",
	"compact.progress-interval": "ProgressInterval", "compact.skip-block-with-out-of-order-chunks": "SkipDisorder",
	"consistency-delay": "ConsistencyDelay", "data-dir": "DataDir", "debug.accept-malformed-index": "Unsorted", "debug.halt-on-error": "ParkOnError",
	"debug.max-compaction-level": "Settings.Level", "deduplication.func": "Penalty", "deduplication.replica-label": "ReplicaLabels Settings.Vertical",
	"delete-delay": "DeleteDelay", "downsample.concurrency": "DownsampleConcurrency", "downsampling.disable": "Settings.Downsample",
	"hash-func": "Hash", "max-time": "MaxTime", "min-time": "MinTime",
	"retention.resolution-raw": "Settings.Retention", "retention.resolution-5m": "Settings.Retention", "retention.resolution-1h": "Settings.Retention",
	"selector.relabel-config": "Selector", "selector.relabel-config-file": "Selector", "wait-interval": "WaitInterval",
	// Ours.
	"compact.max-memory": "MemoryBytesMax", "compact.max-scratch": "ScratchBytesMax", "compact.stall-timeout": "StallAfter",
	"compact.stop-on-error": "StopOnError", "debug.partial-upload-age": "PartialAge",
}

// compactElsewhere are the flags of the compactor that have their effect outside of compact.Config, with the test that shows it.
var compactElsewhere = map[string]string{
	"http-address": "TestCompactServes", "http-grace-period": "TestOrderOfTheEnd", "http.config": "TestWebTLSAndUsers",
	"objstore.config": "TestCompactServes", "objstore.config-file": "TestCompactServes", "wait": "TestCompactWithoutWait",
	"bucket-web-label": "TestCompactServes", "disable-admin-operations": "TestCompactServes", "web.disable": "TestCompactWithoutPage",
	"web.disable-cors": "TestCompactServes", "web.external-prefix": "TestCompactServes", "web.route-prefix": "TestCompactServes",
	"block-viewer.global.sync-block-interval": "TestCompactServes", "block-viewer.global.sync-block-timeout": "TestCompactWithoutPage",
}

// flat are the fields of a configuration as text, those of Settings by themselves.
func flat(v reflect.Value, prefix string, into map[string]string) {
	for i := range v.NumField() {
		name, f := prefix+v.Type().Field(i).Name, v.Field(i)
		switch at, isFunc := f.Interface().(func() int64); {
		case f.Type() == reflect.TypeFor[compact.Settings]():
			flat(f, name+".", into)
		case isFunc:
			into[name] = fmt.Sprint(at() / time.Hour.Milliseconds()) // it may be relative to now
		case f.Kind() == reflect.Func:
		default:
			b, err := json.Marshal(f.Interface())
			if err != nil {
				panic(err)
			}
			into[name] = string(b)
		}
	}
}

// Every flag of the compactor that the reference has, and every one of ours, changes the part of the configuration that it
// is about and nothing else, or has a test of its own. (The parts have theirs in pkg/compact.)
func TestCompactFlagsReachTheCompactor(t *testing.T) {
	selector := "[{action: keep, source_labels: [a], regex: b}]"
	file := filepath.Join(t.TempDir(), "selector.yml")
	if err := os.WriteFile(file, []byte(selector), 0o600); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"compact.block-max-index-size": "1GB", "compact.max-memory": "1MB", "compact.max-scratch": "1MB", "deduplication.func": "penalty", "hash-func": "SHA256",
		"max-time": "-2h", "min-time": "-2h", "block-discovery-strategy": "recursive", "data-dir": t.TempDir(), "debug.max-compaction-level": "2",
		"selector.relabel-config": selector, "selector.relabel-config-file": file,
	}
	config := func(args ...string) map[string]string {
		t.Helper()
		c := &compactFlags{}
		cl := newCommandLine("koios", os.Stderr, []Component{{name: "compact", bind: func(fs *flags) runner {
			c.bind(fs)
			return nil
		}}})
		if !strings.HasPrefix(strings.Join(args, " "), "--compact.max-scratch") {
			args = append(args, "--compact.max-scratch=7GB") // the free space changes by itself
		}
		if _, err := cl.app.Parse(args); err != nil {
			t.Fatal(args, err)
		}
		cfg, err := c.config(newProcess("compact", cl.commands[0].flags, testLogger(t, t.Output())))
		if err != nil {
			t.Fatal(args, err)
		}
		into := map[string]string{}
		flat(reflect.ValueOf(cfg), "", into)
		return into
	}
	def := config()
	flags := map[string]bool{}
	for _, r := range referenceRows(t)["compact"] {
		flags[r.name] = true
	}
	for name := range ours["compact"] {
		flags[name] = true
	}
	cl := newCommandLine("koios", os.Stderr, All())
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		fields, wired := compactFields[name]
		test, elsewhere := compactElsewhere[name]
		switch {
		case later["compact"][name] != "":
		case elsewhere && !hasTest(t, test):
			t.Errorf("--%s: there is no test %s", name, test)
		case !wired && !elsewhere:
			t.Errorf("--%s: nothing shows its effect", name)
		case wired:
			arg := otherThanDefault(t, cl.chosen("compact").flags.get(name))
			if v, ok := values[name]; ok {
				arg = []string{"--" + name + "=" + v}
			}
			var changed []string
			for field, text := range config(arg...) {
				if text != def[field] {
					changed = append(changed, field)
				}
			}
			slices.Sort(changed)
			if d := cmp.Diff(fields, strings.Join(changed, " ")); d != "" {
				t.Errorf("%v changes (-want +got):\n%s", arg, d)
			}
		}
	}
}

// hasTest tells whether this package has a test.
func hasTest(t *testing.T, name string) bool {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(f string) bool {
		b, err := os.ReadFile(f)
		return err == nil && strings.Contains(string(b), "func "+name+"(")
	})
}

// putMeta puts the metadata of a block into a bucket of files.
func putMeta(t *testing.T, bucket string, labels map[string]string) ulid.ULID {
	t.Helper()
	m := &block.Meta{}
	m.ULID, m.Version = ulid.MustNew(ulid.Now(), rand.Reader), 1
	m.MinTime, m.MaxTime = time.Now().Add(-4*time.Hour).UnixMilli(), time.Now().Add(-2*time.Hour).UnixMilli()
	m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{m.ULID}
	m.Thanos = block.Thanos{Version: 1, Labels: labels, Source: block.SourceSidecar}
	dir := filepath.Join(bucket, m.ULID.String())
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := block.WriteMetaDir(dir, m); err != nil {
		t.Fatal(err)
	}
	return m.ULID
}

// blocksAt asks /api/v1/blocks.
func blocksAt(t *testing.T, url string) (label string, ids []string, fault string) {
	t.Helper()
	_, text := get(t, url)
	var page struct {
		Data struct {
			Label  string
			Blocks []struct{ ULID string }
			Err    *string
		}
	}
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	for _, b := range page.Data.Blocks {
		ids = append(ids, b.ULID)
	}
	if page.Data.Err != nil {
		fault = *page.Data.Err
	}
	return page.Data.Label, ids, fault
}

func fileBucket(dir string) string {
	return "--objstore.config={type: FILESYSTEM, config: {directory: " + dir + "}}"
}

// The compactor serves its API under the prefix that it is told, with the label, without CORS and without marks if so told;
// the view of the whole bucket is looked at again after its interval.
func TestCompactServes(t *testing.T) {
	bucket := t.TempDir()
	first := putMeta(t, bucket, map[string]string{"a": "1"})
	file := filepath.Join(t.TempDir(), "bucket.yml")
	if err := os.WriteFile(file, []byte("type: FILESYSTEM\nconfig: {directory: "+bucket+"}"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "compact", "--wait", "--http-address=127.0.0.1:0", "--data-dir="+t.TempDir(), "--objstore.config-file="+file,
		"--bucket-web-label=cluster", "--disable-admin-operations", "--web.disable-cors", "--web.external-prefix=/outside", "--web.route-prefix=/inside",
		"--block-viewer.global.sync-block-interval=1s", "--max-time=-1h", "--min-time=-1w")
	u := p.url(t) + "/inside"
	var label string
	var ids []string
	waitFor(t, "the first look", func() bool { label, ids, _ = blocksAt(t, u+"/api/v1/blocks"); return len(ids) == 1 })
	if label != "cluster" || ids[0] != first.String() {
		t.Errorf("label %q, blocks %v", label, ids)
	}
	second := putMeta(t, bucket, map[string]string{"a": "1"})
	waitFor(t, "another look", func() bool { _, ids, _ = blocksAt(t, u+"/api/v1/blocks"); return slices.Contains(ids, second.String()) })
	resp, err := http.PostForm(u+"/api/v1/blocks/mark", url.Values{"id": {first.String()}, "action": {"DELETION"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a mark is answered %s", resp.Status)
	}
	req, err := http.NewRequest(http.MethodGet, u+"/api/v1/status/flags", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "http://elsewhere")
	if resp, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%s with headers %v", resp.Status, resp.Header)
	}
	if code, _ := get(t, u+"/api/v1/compact"); code != http.StatusOK {
		t.Errorf("the page of the compactor answers %d", code)
	}
}

// Without a page nobody looks at the whole bucket for it; a look that takes too long is said to.
func TestCompactWithoutPage(t *testing.T) {
	bucket := t.TempDir()
	putMeta(t, bucket, map[string]string{"a": "1"})
	arguments := []string{"compact", "--wait", "--http-address=127.0.0.1:0", fileBucket(bucket), "--block-viewer.global.sync-block-interval=1s"}
	off := start(t, append(arguments, "--data-dir="+t.TempDir(), "--web.disable")...)
	late := start(t, append(arguments, "--data-dir="+t.TempDir(), "--block-viewer.global.sync-block-timeout=1ns")...)
	waitFor(t, "a look that took too long", func() bool {
		_, _, fault := blocksAt(t, late.url(t)+"/api/v1/blocks")
		return strings.Contains(fault, "deadline")
	})
	// The compactor has looked by then, and nobody else.
	waitFor(t, "a pass", func() bool {
		_, text := get(t, off.url(t)+"/metrics")
		return strings.Contains(text, "\nthanos_compact_iterations_total 1\n")
	})
	if _, text := get(t, off.url(t)+"/metrics"); !strings.Contains(text, "\nthanos_bucket_uiblocks_meta_syncs_total 0\n") {
		t.Error("somebody looks for the page")
	}
}

// Without --wait everything is done once and the process ends.
func TestCompactWithoutWait(t *testing.T) {
	p := start(t, "compact", "--http-address=127.0.0.1:0", "--data-dir="+t.TempDir(), fileBucket(t.TempDir()))
	if code := p.end(t); code != 0 {
		t.Errorf("code %d", code)
	}
}

// tools bucket web serves the blocks that its filters leave, marks them, and looks again after its interval.
func TestBucketWeb(t *testing.T) {
	bucket := t.TempDir()
	mine := putMeta(t, bucket, map[string]string{"a": "1"})
	putMeta(t, bucket, map[string]string{"a": "2"})
	p := start(t, "tools", "bucket", "web", "--http-address=127.0.0.1:0", fileBucket(bucket), "--label=a", "--web.external-prefix=/blocks",
		"--selector.relabel-config=[{action: keep, source_labels: [a], regex: 1}]", "--refresh=1s", "--timeout=1m")
	u := p.url(t)
	var label string
	var ids []string
	waitFor(t, "the first look", func() bool { label, ids, _ = blocksAt(t, u+"/blocks/api/v1/blocks"); return len(ids) > 0 })
	if label != "a" || !slices.Equal(ids, []string{mine.String()}) {
		t.Errorf("label %q, blocks %v", label, ids)
	}
	if _, loaded, _ := blocksAt(t, u+"/blocks/api/v1/blocks?view=loaded"); !slices.Equal(ids, loaded) {
		t.Errorf("loaded %v", loaded)
	}
	waitFor(t, "ready", func() bool { code, _ := get(t, u+"/-/ready"); return code == http.StatusOK })
	another := putMeta(t, bucket, map[string]string{"a": "1"})
	waitFor(t, "another look", func() bool {
		_, ids, _ = blocksAt(t, u+"/blocks/api/v1/blocks")
		return slices.Contains(ids, another.String())
	})
	resp, err := http.PostForm(u+"/blocks/api/v1/blocks/mark", url.Values{"id": {mine.String()}, "action": {"NO_COMPACTION"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if _, err := os.Stat(filepath.Join(bucket, mine.String(), block.NoCompactMarkFilename)); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("%s, %v", resp.Status, err)
	}
	past := start(t, "tools", "bucket", "web", "--http-address=127.0.0.1:0", fileBucket(bucket), "--max-time=-1d", "--disable-admin-operations")
	waitFor(t, "a look at none", func() bool { code, _ := get(t, past.url(t)+"/-/ready"); return code == http.StatusOK })
	if _, ids, fault := blocksAt(t, past.url(t)+"/api/v1/blocks"); len(ids) != 0 || fault != "" {
		t.Errorf("blocks %v %s", ids, fault)
	}
	if resp, err = http.PostForm(past.url(t)+"/api/v1/blocks/mark", url.Values{"id": {mine.String()}, "action": {"DELETION"}}); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a mark is answered %s", resp.Status)
	}
}
