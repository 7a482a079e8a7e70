package standalone

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors/version"
	"go.uber.org/goleak"

	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/test/answer"
)

// running is a Standalone that runs until the test, or stop, ends it.
type running struct {
	*Standalone
	url      string
	greeting *words
	logged   *words
	stop     func()
}

// words collects what is written. All methods may be called in parallel.
type words struct {
	mtx sync.Mutex
	buf bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mtx.Lock()
	defer w.mtx.Unlock()
	return w.buf.Write(p)
}

func (w *words) String() string {
	w.mtx.Lock()
	defer w.mtx.Unlock()
	return w.buf.String()
}

// local fills in what every test wants: short intervals and ports that the kernel picks.
func local(cfg Config) Config {
	cfg.HTTP = serve.HTTPConfig{Address: "127.0.0.1:0", GracePeriod: 5 * time.Second}
	cfg.GRPC = serve.GRPCConfig{Address: "127.0.0.1:0", GracePeriod: 5 * time.Second}
	cfg.SelfInterval = 200 * time.Millisecond
	cfg.ShipInterval = 100 * time.Millisecond
	cfg.SyncInterval = 200 * time.Millisecond
	return cfg
}

// start runs a Standalone and waits until it is ready.
func start(t *testing.T, cfg Config) *running {
	t.Helper()
	r := &running{greeting: &words{}, logged: &words{}}
	cfg = local(cfg)
	cfg.Greeting = r.greeting
	logger := log.NewLogfmtLogger(r.logged)
	reg := prometheus.NewRegistry()
	reg.MustRegister(version.NewCollector("thanos"))
	probe := serve.NewProbe("standalone", logger, reg)
	s, err := New(cfg, probe, logger, reg)
	if err != nil {
		t.Fatal(err)
	}
	r.Standalone, r.url = s, "http://"+s.http.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("end: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
		if t.Failed() {
			t.Log(r.logged)
		}
	})
	t.Cleanup(r.stop)
	eventually(t, "ready", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it ended before it was ready: %v\n%s", err, r.logged)
		default:
		}
		return probe.IsReady()
	})
	return r
}

// ask asks a PromQL question at a time.
func (r *running) ask(t *testing.T, expr string, at time.Time) *answer.Answer {
	t.Helper()
	a, err := answer.Ask(t.Context(), r.url, answer.At(expr, at))
	if err != nil {
		t.Fatalf("%s: %v\n%s", expr, err, r.logged)
	}
	return a
}

func (r *running) metric(t *testing.T, name string) float64 {
	t.Helper()
	mfs, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, mf := range mfs {
		if mf.GetName() == name {
			return mf.GetMetric()[0].GetGauge().GetValue() + mf.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// On an empty folder it scrapes itself, says what to try, and that query has an answer; after a restart
// what was scraped is still there. Nothing is left running.
func TestFromNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir := filepath.Join(t.TempDir(), "data")
	r := start(t, Config{DataDir: dir})
	var at time.Time
	eventually(t, "the first answer", func() bool {
		at = time.Now()
		a := r.ask(t, tryQuery, at)
		return len(a.Series) == 1 && a.Series[0].Points[0].Value == 1 && a.Series[0].Labels["job"] == selfJob &&
			a.Series[0].Labels["koios"] == "standalone"
	})
	eventually(t, "the greeting", func() bool { return strings.Contains(r.greeting.String(), "/api/v1/query?query="+tryQuery) })
	for _, page := range []string{"/", "/metrics", "/-/healthy", "/-/ready", "/api/v1/stores", "/api/v1/labels"} {
		res, err := http.Get(r.url + page)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s answers %s", page, res.Status)
		}
	}
	if n := len(r.ask(t, "prometheus_tsdb_head_series", time.Now()).Series); n != 1 {
		t.Errorf("%d series of a metric of its own, want 1", n)
	}
	r.stop()

	r = start(t, Config{DataDir: dir})
	if a := r.ask(t, tryQuery, at); len(a.Series) != 1 {
		t.Errorf("after a restart there are %d series of the time before it, want 1", len(a.Series))
	}
	r.stop()
}

// Blocks of the TSDB are copied to the bucket. While a block is in both places, and when it is in the
// bucket only, answers are the same, with the external labels of the scrape file.
func TestBlocksMoveToTheBucket(t *testing.T) {
	dir := t.TempDir()
	file := writeFile(t, "prometheus.yml", "global: {external_labels: {site: home}}\n")
	begin := time.Now().Truncate(2 * time.Hour).Add(-24 * time.Hour)
	first := writeBlock(t, filepath.Join(dir, "tsdb"), begin, 2*time.Hour)
	writeBlock(t, filepath.Join(dir, "tsdb"), begin.Add(2*time.Hour), 2*time.Hour)
	r := start(t, Config{DataDir: dir, ScrapeFile: file, Retention: time.Hour})
	question := func() string {
		t.Helper()
		a := r.ask(t, `old{site="home"}[5h]`, begin.Add(4*time.Hour))
		if len(a.Series) != 1 || len(a.Series[0].Points) != 240 {
			t.Fatalf("%+v", a.Series)
		}
		for _, p := range a.Series[0].Points {
			if p.Value*1000 != float64(p.Millis) {
				t.Errorf("%v at %d", p.Value, p.Millis)
			}
		}
		return fmt.Sprint(a.Series, a.Warnings)
	}
	before := question()
	eventually(t, "the first block is in the bucket", func() bool {
		_, err := os.Stat(filepath.Join(dir, "bucket", first.String(), "meta.json"))
		return err == nil
	})
	if got := question(); got != before {
		t.Errorf("answer changed to\n%s", got)
	}
	eventually(t, "the first block has left the TSDB", func() bool {
		_, err := os.Stat(filepath.Join(dir, "tsdb", first.String()))
		return os.IsNotExist(err)
	})
	if got := question(); got != before {
		t.Errorf("answer changed to\n%s", got)
	}
}

// A block that is broken, in the TSDB or in the bucket, costs itself only: the rest is answered.
func TestBrokenBlocks(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now().Truncate(2 * time.Hour).Add(-24 * time.Hour)
	after := begin.Add(2 * time.Hour)
	lost := writeBlock(t, filepath.Join(dir, "tsdb"), begin, 2*time.Hour)
	kept := writeBlock(t, filepath.Join(dir, "tsdb"), after, 2*time.Hour)
	truncate(t, filepath.Join(dir, "tsdb", lost.String(), "index"))

	r := start(t, Config{DataDir: dir})
	if n := r.metric(t, "koios_standalone_blocks_set_aside"); n != 1 {
		t.Errorf("%v blocks are set aside, want 1", n)
	}
	eventually(t, "the good block is in the bucket", func() bool {
		_, err := os.Stat(filepath.Join(dir, "bucket", kept.String(), "meta.json"))
		return err == nil
	})
	r.stop()

	// The one in the bucket breaks too; the copy in the TSDB still answers.
	truncate(t, filepath.Join(dir, "bucket", kept.String(), "index"))
	if err := os.RemoveAll(filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	r = start(t, Config{DataDir: dir})
	if a := r.ask(t, `count_over_time(old[2h])`, after.Add(2*time.Hour-time.Minute)); len(a.Series) != 1 || a.Series[0].Points[0].Value != 120 {
		t.Errorf("%+v", a.Series)
	}
}

// A bucket that does not answer leaves recent data to be had, with a warning about what is missing.
func TestBucketIsAway(t *testing.T) {
	r := start(t, Config{DataDir: t.TempDir(), firstLook: 100 * time.Millisecond, Bucket: []byte(`
type: S3
config: {bucket: b, endpoint: "127.0.0.1:1", insecure: true, access_key: k, secret_key: s, max_retries: 1}
`)})
	var a *answer.Answer
	eventually(t, "recent data is answered", func() bool {
		a = r.ask(t, tryQuery, time.Now())
		return len(a.Series) == 1
	})
	if len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], bucketName) {
		t.Errorf("warnings %q", a.Warnings)
	}
}

// A scrape file is followed when it is read again; one that can't be used, or that would change external
// labels, is refused and changes nothing.
func TestReload(t *testing.T) {
	file := writeFile(t, "prometheus.yml", "")
	r := start(t, Config{DataDir: t.TempDir(), ScrapeFile: file})
	reload := func(yaml string) int {
		t.Helper()
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		res, err := http.Post(r.url+"/-/reload", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	good := fmt.Sprintf("scrape_configs: [{job_name: again, scrape_interval: 200ms, scrape_timeout: 200ms, static_configs: [{targets: [%q]}]}]", strings.TrimPrefix(r.url, "http://"))
	if code := reload(good); code != http.StatusOK || r.metric(t, "koios_standalone_config_last_reload_successful") != 1 {
		t.Errorf("a good file: status %d", code)
	}
	for _, bad := range []string{"scrape_configs: [", "global: {external_labels: {a: b}}"} {
		if code := reload(bad); code != http.StatusInternalServerError || r.metric(t, "koios_standalone_config_last_reload_successful") != 0 {
			t.Errorf("%s: status %d", bad, code)
		}
	}
	eventually(t, "the new target is scraped", func() bool { return len(r.ask(t, `up{job="again"}`, time.Now()).Series) == 1 })
}

// What can't work is refused before anything runs, with words that say what to do.
func TestRefusals(t *testing.T) {
	f := func(cfg Config, want string) {
		t.Helper()
		reg := prometheus.NewRegistry()
		_, err := New(cfg, serve.NewProbe("standalone", log.NewNopLogger(), reg), log.NewNopLogger(), reg)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	dir := t.TempDir()
	f(local(Config{DataDir: writeFile(t, "file", "")}), "data folder")
	f(local(Config{DataDir: dir, ScrapeFile: "no/such/file"}), "no/such/file")
	f(local(Config{DataDir: dir, ScrapeFile: writeFile(t, "bad.yml", "scrape_configs: [")}), "bad.yml")
	f(local(Config{DataDir: dir, Bucket: []byte("type: TAPE")}), "TAPE")
	f(local(Config{DataDir: dir, Retention: -1}), "retention")
	web := local(Config{DataDir: dir})
	web.HTTP.WebConfigFile = writeFile(t, "web.yml", "")
	f(web, "--config.file")
	twice := local(Config{DataDir: dir})
	twice.HTTP.Address = "nowhere"
	f(twice, "nowhere")
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func truncate(t *testing.T, file string) {
	t.Helper()
	if err := os.Truncate(file, 64); err != nil {
		t.Fatal(err)
	}
}

// Range queries go through the frontend, which finds them again, and answer as the querier itself does; everything else of the
// API passes. A frontend that keeps nothing asks the querier each time.
func TestFrontendBeforeTheQuerier(t *testing.T) {
	for _, keep := range []int64{0, 10 << 20} {
		dir := t.TempDir()
		begin := time.Now().Truncate(2 * time.Hour).Add(-24 * time.Hour)
		writeBlock(t, filepath.Join(dir, "tsdb"), begin, 2*time.Hour)
		r := start(t, Config{DataDir: dir, AnswerBytesMax: keep})
		text := func(path string, form url.Values) string {
			t.Helper()
			res, err := http.PostForm(r.url+path, form)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			b, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s %v %s", path, res.Status, err, b)
			}
			return string(b)
		}
		form := url.Values{"query": {"old"}, "start": {fmt.Sprint(begin.Unix() + 7)}, "end": {fmt.Sprint(begin.Unix() + 7000)}, "step": {"60"}}
		var first string
		eventually(t, "the bucket was looked into", func() bool {
			first = text("/api/v1/query_range", form)
			return !strings.Contains(first, `"warnings"`)
		})
		asked := func() float64 {
			t.Helper()
			return r.requests(t, "query_range")
		}
		if !strings.Contains(first, fmt.Sprintf("[%d,", begin.Unix()+7)) {
			t.Errorf("the range is not the one that was asked: %.300s", first)
		}
		before := asked()
		// The querier adds an analysis, which nobody asked for and which is not kept.
		plain := func(s string) string { return strings.Replace(strings.TrimSpace(s), `,"analysis":{}`, "", 1) }
		if again := text("/api/v1/query_range", form); plain(again) != plain(first) {
			t.Errorf("asked again: %s\nat first: %s", again, first)
		}
		if got, want := asked()-before, map[bool]float64{true: 0, false: 1}[keep > 0]; got != want {
			t.Errorf("keeping %d bytes: the querier was asked %v times, want %v", keep, got, want)
		}
		// With a parameter that the frontend does not know it is the querier that answers.
		form.Set("surprise", "1")
		if direct := text("/api/v1/query_range", form); plain(direct) != plain(first) {
			t.Errorf("the querier: %.500s\nthe frontend: %.500s", direct, first)
		}
		if got := text("/api/v1/labels", url.Values{"match[]": {"old"}}); !strings.Contains(got, "__name__") {
			t.Errorf("labels of all time: %s", got)
		}
		if got := text("/api/v1/query", url.Values{"query": {"1+1"}}); !strings.Contains(got, `"2"`) {
			t.Errorf("instant query: %s", got)
		}
		r.stop()
	}
}

// requests returns how many requests a handler has answered.
func (r *running) requests(t *testing.T, handler string) (n float64) {
	t.Helper()
	mfs, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, mf := range mfs {
		for _, m := range mf.GetMetric() {
			for _, l := range m.GetLabel() {
				if mf.GetName() == "http_requests_total" && l.GetName() == "handler" && l.GetValue() == handler {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}
