package components

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/indexheader"
	"github.com/koios-metrics/koios/pkg/store/bucket"
	"github.com/koios-metrics/koios/test/bulk"
)

// wholeDay writes a block of a day in UTC.
func wholeDay(t *testing.T, dir string) ulid.ULID {
	t.Helper()
	const day = 24 * 3600_000
	id, err := bulk.Write(t.Context(), dir, bulk.Spec{
		From: 19_700 * day, Interval: day / 240, Samples: 240, Series: bulk.Counters("up", 5), External: map[string]string{"replica": "a"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A store tells in /api/v1/blocks what it serves, and what it has set aside and why; it hides what the bucket of
// --objstore-parquet.config has, and only if there is one; and with --no-cache-index-header its data directory holds no
// index header when it has ended. With --web.disable there is no page, and the API as before.
func TestStoreBlocks(t *testing.T) {
	dir, parquet, data := t.TempDir(), t.TempDir(), t.TempDir()
	served, broken, converted := wholeDay(t, dir), wholeDay(t, dir), wholeDay(t, dir)
	if err := os.WriteFile(filepath.Join(dir, broken.String(), block.IndexFilename), []byte("no index"), 0o666); err != nil {
		t.Fatal(err)
	}
	description := protowire.AppendString(protowire.AppendTag(nil, 6, protowire.BytesType), converted.String())
	if err := os.WriteFile(filepath.Join(parquet, "meta.pb"), description, 0o666); err != nil {
		t.Fatal(err)
	}
	conf := func(dir string) string { return "{type: FILESYSTEM, config: {directory: " + dir + "}}" }
	headers := func() int {
		files, err := filepath.Glob(filepath.Join(data, "*", indexheader.Filename))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	// run returns the ids of what is served and of what is set aside.
	run := func(flags ...string) (loaded, aside []string) {
		t.Helper()
		p := start(t, append(append([]string{"store"}, anyPort...), append(flags, "--data-dir="+data, "--objstore.config="+conf(dir))...)...)
		u := p.url(t)
		waitFor(t, "ready", func() bool { status, _ := get(t, u+"/-/ready"); return status == 200 })
		var body struct {
			Data struct {
				Blocks   []*block.Meta `json:"blocks"`
				SetAside []asideView   `json:"setAside"`
			} `json:"data"`
		}
		_, text := get(t, u+"/api/v1/blocks?view=loaded")
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			t.Fatal(err, text)
		}
		for _, m := range body.Data.Blocks {
			loaded = append(loaded, m.ULID.String())
		}
		for _, b := range body.Data.SetAside {
			aside = append(aside, b.ID.String())
			if b.Cause == "" || b.Meta == nil || b.Meta.MinTime == 0 {
				t.Errorf("set aside is %+v", b)
			}
		}
		if headers() == 0 {
			t.Error("a store that runs has no index headers")
		}
		if status, _ := get(t, u+"/"); slices.Contains(flags, "--web.disable") && status != 404 {
			t.Errorf("a page without a page answers %d", status)
		}
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := p.end(t); code != 0 {
			t.Errorf("ended with %d", code)
		}
		return loaded, aside
	}
	ids := func(ids ...ulid.ULID) (out []string) {
		for _, id := range ids {
			out = append(out, id.String())
		}
		return out
	}
	loaded, aside := run()
	if diff := cmp.Diff(ids(served, converted), loaded); diff != "" {
		t.Errorf("served (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ids(broken), aside); diff != "" {
		t.Errorf("set aside (-want +got):\n%s", diff)
	}
	if n := headers(); n != 2 {
		t.Errorf("%d index headers are kept, want 2", n)
	}
	loaded, _ = run("--objstore-parquet.config="+conf(parquet), "--no-cache-index-header", "--web.disable")
	if diff := cmp.Diff(ids(served), loaded); diff != "" {
		t.Errorf("served beside Parquet (-want +got):\n%s", diff)
	}
	if n := headers(); n != 0 {
		t.Errorf("%d index headers are left, want none", n)
	}
}

// The flags about index headers mean in the configuration what they say.
func TestStoreHeaderFlags(t *testing.T) {
	type headers struct {
		Idle          time.Duration
		OnUse, Forget bool
		Sampling      int
	}
	f := func(want headers, args ...string) {
		t.Helper()
		c := &storeFlags{}
		one := Component{name: "store", help: "x", bind: func(fs *flags) runner { c.bind(fs); return c.run }}
		cl := newCommandLine("store", io.Discard, []Component{one})
		name, err := cl.app.Parse(append(args, "--objstore.config={type: FILESYSTEM, config: {directory: d}}"))
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := c.config(newProcess("store", cl.chosen(name).flags, log.NewNopLogger()), func() time.Duration { return 0 })
		if err != nil {
			t.Fatal(err)
		}
		got := func(cfg bucket.Config) headers {
			return headers{cfg.IndexHeaderIdleTimeout, cfg.IndexHeadersOnUse, cfg.ForgetIndexHeaders, cfg.PostingOffsetSampling}
		}(cfg)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", strings.Join(args, " "), diff)
		}
	}
	const lazy = "--store.enable-index-header-lazy-reader"
	f(headers{Sampling: 32})
	f(headers{Sampling: 32, Idle: 5 * time.Minute}, lazy)
	f(headers{Sampling: 32, Idle: time.Minute, OnUse: true}, lazy, "--store.index-header-lazy-reader-idle-timeout=1m", "--store.index-header-lazy-download-strategy=lazy")
	f(headers{Sampling: 32}, "--store.index-header-lazy-reader-idle-timeout=1m", "--store.index-header-lazy-download-strategy=lazy")
	f(headers{Sampling: 7, Forget: true}, "--no-cache-index-header", "--store.index-header-posting-offsets-in-mem-sampling=7")
}
