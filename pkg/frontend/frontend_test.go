package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/tenancy"
)

// fake is a querier that answers as it is told, and a frontend before it.
type fake struct {
	*Frontend
	front  *httptest.Server
	logged bytes.Buffer

	mu    sync.Mutex
	asked []asked
}

// asked is a request that reached the querier.
type asked struct {
	Method, Path string
	Form         url.Values
	Header       http.Header
}

func newFake(t *testing.T, cfg Config, answer http.HandlerFunc) *fake {
	t.Helper()
	f := &fake{}
	below := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		f.mu.Lock()
		f.asked = append(f.asked, asked{r.Method, r.URL.Path, maps.Clone(r.Form), r.Header})
		f.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(below.Close)
	u, err := url.Parse(below.URL)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Downstream == nil {
		cfg.Downstream = u
	} else {
		cfg.Downstream = u.JoinPath(cfg.Downstream.Path)
	}
	if f.Frontend, err = New(cfg, log.NewLogfmtLogger(log.NewSyncWriter(&f.logged)), prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	f.front = httptest.NewServer(WithCORS(f.Frontend))
	t.Cleanup(f.front.Close)
	return f
}

// take returns what the querier was asked since the last time, in order of time ranges.
func (f *fake) take() []asked {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.asked
	f.asked = nil
	slices.SortStableFunc(all, func(a, b asked) int {
		x, _ := parseTime(a.Form.Get("start"))
		y, _ := parseTime(b.Form.Get("start"))
		return int(x - y)
	})
	return all
}

func (f *fake) do(t *testing.T, method, path, body string, header ...string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.front.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// steps answers a range query with the time as value at each step.
func steps(w http.ResponseWriter, r *http.Request) {
	start, _ := parseTime(r.Form.Get("start"))
	end, _ := parseTime(r.Form.Get("end"))
	step, _ := parseDuration(r.Form.Get("step"))
	var points []string
	for at := start; at <= end; at += step {
		points = append(points, fmt.Sprintf(`[%s,"%d"]`, formatTime(at), at))
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[%s]}],"stats":{"samples":{"totalQueryableSamples":%d,"peakSamples":7}}}}`, strings.Join(points, ","), len(points))
}

const rangePath = "/api/v1/query_range"

// Shows what reaches the querier of Grafana's range query, a form whose data source adds parameters to the URL: a form
// with both, at its path under the configured one, for the tenant and the organisation, with the headers that are named
// and the request's id, and nobody's cookies.
func TestGrafanaRangeQuery(t *testing.T) {
	f := newFake(t, Config{Downstream: &url.URL{Path: "/querier/"}, ForwardHeaders: []string{"x-grafana-user"}, OrgHeaders: []string{"X-Org", "X-Team"}, Range: RangeConfig{Align: true, PartialResponse: true}}, steps)
	code, header, body := f.do(t, "POST", rangePath+"?max_source_resolution=5m&dedup=true", "query=up&start=61&end=122.5&step=30",
		"THANOS-TENANT", "team-a", "X-Team", "org", "X-Grafana-User", "me", "Cookie", "secret", "X-Request-ID", "id-1", "Accept-Encoding", "zstd")
	if code != 200 || header.Get("Content-Type") != "application/json" || header.Get("Content-Encoding") != "" || !strings.Contains(body, `"values":[[60,"60000"],[90,"90000"],[120,"120000"]]`) {
		t.Errorf("%d %v %s", code, header, body)
	}
	got := f.take()
	if len(got) != 1 {
		t.Fatalf("the querier was asked %d times", len(got))
	}
	want := url.Values{"query": {"up"}, "start": {"60"}, "end": {"120"}, "step": {"30"}, "dedup": {"true"}, "max_source_resolution": {"5m"}, "partial_response": {"true"}}
	if d := cmp.Diff(want, got[0].Form); d != "" || got[0].Method != http.MethodPost || got[0].Path != "/querier"+rangePath {
		t.Errorf("%s %s %s", got[0].Method, got[0].Path, d)
	}
	for name, value := range map[string]string{"THANOS-TENANT": "team-a", "X-Scope-OrgID": "org", "X-Grafana-User": "me", "Cookie": "", "X-Request-ID": "id-1"} {
		if v := got[0].Header.Get(name); v != value {
			t.Errorf("header %s: %q, want %q", name, v, value)
		}
	}
}

// Shows who asks: the first of the headers for that, else the tenant's, else nobody.
func TestOrganisation(t *testing.T) {
	f := func(cfg Config, want string, header ...string) {
		t.Helper()
		fake := newFake(t, cfg, steps)
		fake.do(t, "POST", rangePath, "query=up&start=60&end=120&step=30", header...)
		if got := fake.take(); len(got) != 1 || got[0].Header.Get("X-Scope-OrgID") != want {
			t.Errorf("%v: %+v, want %s", header, got, want)
		}
	}
	f(Config{}, "anonymous")
	f(Config{}, "a", "THANOS-TENANT", "a")
	f(Config{Tenancy: tenancy.Config{Header: "X-T"}}, "b", "THANOS-TENANT", "a", "X-T", "b")
	f(Config{OrgHeaders: []string{"X-1", "X-2"}}, "c", "THANOS-TENANT", "a", "X-2", "c")
	f(Config{OrgHeaders: []string{"X-1", "X-2"}}, "a", "THANOS-TENANT", "a")
}

// Shows that what queriers say they have read is counted for who asked, over all parts, instant queries too, and that
// nothing is counted of what they don't say. (Killed: the series counted as bytes.)
func TestFetched(t *testing.T) {
	told := true
	f := newFake(t, Config{Range: RangeConfig{Split: SplitConfig{Interval: 3600_000}}}, func(w http.ResponseWriter, r *http.Request) {
		if told {
			w.Header().Set(promapi.FetchedSeriesHeader, "3")
			w.Header().Set(promapi.FetchedChunkBytesHeader, "500")
		} else {
			w.Header().Set(promapi.FetchedSeriesHeader, "-3")
		}
		if r.URL.Path == rangePath {
			steps(w, r)
		} else {
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"vector","result":[]}}`))
		}
	})
	ask := func() {
		f.do(t, "POST", rangePath, "query=up&start=0&end=7200&step=60", "THANOS-TENANT", "a")
		f.do(t, "POST", "/api/v1/query", "query=up&time=1", "THANOS-TENANT", "a")
	}
	ask()
	told = false
	ask()
	parts := 0
	for _, q := range f.take() {
		if q.Path == rangePath {
			parts++
		}
	}
	want := float64(parts/2 + 1)
	if series, bytes := testutil.ToFloat64(f.metrics.series.WithLabelValues("a")), testutil.ToFloat64(f.metrics.chunks.WithLabelValues("a")); parts < 4 || series != 3*want || bytes != 500*want {
		t.Errorf("%v series and %v bytes of %d parts", series, bytes, parts)
	}
}

// Shows that what is no range query, instant query, or request for labels and series goes through as it came and as it
// answers, while it is still being written, with the headers of both sides.
func TestPassThrough(t *testing.T) {
	more := make(chan struct{})
	f := newFake(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/status/buildinfo" {
			w.Header().Set("X-Thing", "1")
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, r.URL.RawQuery+r.Header.Get("Cookie"))
			return
		}
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, "second")
	})
	code, header, body := f.do(t, "GET", "/api/v1/status/buildinfo?a=1&b", "", "Cookie", "c=d")
	if code != http.StatusTeapot || header.Get("X-Thing") != "1" || len(header.Values("Access-Control-Allow-Origin")) != 1 || body != "a=1&bc=d" {
		t.Errorf("%d %v %q", code, header, body)
	}
	resp, err := http.Get(f.front.URL + "/api/v1/rules")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "first" {
		t.Errorf("%q %v", b, err)
	}
	close(more)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "second" {
		t.Errorf("%q %v", rest, err)
	}
}

// Shows that a bad query gets the querier's own status, text and headers, and is asked once; that one with an unknown
// parameter goes down with it; and that a range that is too long is refused here.
func TestErrorsAreTheQueriers(t *testing.T) {
	f := newFake(t, Config{Range: RangeConfig{Attempts: 3, LengthMax: 3600_000}, InstantAttempts: 3}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = fmt.Fprintf(w, `{"status":"error","errorType":"execution","error":%q}`, r.Form.Get("query")+r.Form.Get("surprise"))
	})
	for path, body := range map[string]string{
		rangePath: "query=up&start=60&end=120&step=30", rangePath + "?surprise=!": "query=up(&start=60&end=120&step=30", "/api/v1/query": "query=up", "/api/v1/labels": "start=1&end=2",
	} {
		code, header, text := f.do(t, "POST", path, body)
		if code != 422 || header.Get("Content-Type") != "application/json" || !strings.HasPrefix(text, `{"status":"error","errorType":"execution"`) {
			t.Errorf("%s: %d %v %s", path, code, header, text)
		}
		if got := f.take(); len(got) != 1 || strings.Contains(path, "!") && got[0].Form.Get("surprise") != "!" {
			t.Errorf("%s: the querier was asked %+v", path, got)
		}
	}
	code, _, text := f.do(t, "POST", rangePath, "query=up&start=60&end=7200&step=30")
	if code != 400 || !strings.Contains(text, "bad_data") || len(f.take()) != 0 {
		t.Errorf("%d %s", code, text)
	}
	if code, _, text := f.do(t, "POST", rangePath, "query="+strings.Repeat("x", formBytesMax)); code != 413 {
		t.Errorf("a body that is too long: %d %.100s", code, text)
	}
	if code, _, text := f.do(t, "POST", rangePath, "query=up", "THANOS-TENANT", "../x"); code != 400 {
		t.Errorf("a tenant that is none: %d %s", code, text)
	}
}

// Shows that a querier in trouble is asked again, and that what stays is a clear error in the usual form: after 5xx, half
// an answer, text that is no answer, and nobody there.
func TestTroubleBelow(t *testing.T) {
	f := func(name string, wantCode int, wantText string, answer http.HandlerFunc) {
		t.Helper()
		fake := newFake(t, Config{Range: RangeConfig{Attempts: 2}, InstantAttempts: 2, Metadata: MetadataConfig{Attempts: 2}}, answer)
		code, _, text := fake.do(t, "POST", rangePath, "query=up&start=60&end=120&step=30")
		if code != wantCode || !strings.Contains(text, wantText) {
			t.Errorf("%s: %d %s, want %d %s", name, code, text, wantCode, wantText)
		}
		if got := fake.take(); len(got) != 2 {
			t.Errorf("%s: the querier was asked %d times", name, len(got))
		}
	}
	f("500", 500, "oh", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "oh", http.StatusInternalServerError) })
	f("half an answer", 503, `"errorType":"unavailable"`, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[`)
	})
	f("no answer", 503, "read the querier's answer", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	f("a vector", 503, "read the querier's answer", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	})
	calls := 0
	healed := newFake(t, Config{Range: RangeConfig{Attempts: 2}}, func(w http.ResponseWriter, r *http.Request) {
		if calls++; calls == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		steps(w, r)
	})
	if code, _, text := healed.do(t, "POST", rangePath, "query=up&start=60&end=120&step=30"); code != 200 {
		t.Errorf("once more: %d %s", code, text)
	}
}

// Shows that a client that goes away takes its question along.
func TestClientLeaves(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	f := newFake(t, Config{Range: RangeConfig{Attempts: 5}}, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.front.URL+rangePath+"?query=up&start=60&end=120&step=30", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-begun; cancel() }()
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Error("there is an answer")
	}
	<-ended
}

// Shows the statistics: asked for though the client did not, told in the header and the log, and not in the answer;
// and what the log of slow requests says.
func TestStatisticsAndSlowLog(t *testing.T) {
	f := newFake(t, Config{ForceStats: true, SlowQuery: -1, SlowQueryUserHeader: "X-User", Range: RangeConfig{Split: SplitConfig{Interval: 3600_000}}}, steps)
	_, header, body := f.do(t, "POST", rangePath, "query=up&start=0&end=7200&step=60", "X-User", "me", "X-Dashboard-Uid", "d1", "X-Panel-Id", "7")
	if !strings.HasPrefix(header.Get("Server-Timing"), "querier_wall_time;dur=") || !strings.Contains(header.Get("Server-Timing"), ", response_time;dur=") {
		t.Errorf("Server-Timing: %q", header.Get("Server-Timing"))
	}
	if strings.Contains(body, "stats") {
		t.Error("the answer has statistics that nobody asked for")
	}
	for _, a := range f.take() {
		if a.Form.Get("stats") != "all" {
			t.Errorf("asked without: %v", a.Form)
		}
	}
	f.front.Close() // waits for the log
	for _, want := range []string{
		"msg=\"slow query detected\" method=POST", "path=/api/v1/query_range", "remote_user=me", "time_taken_ms=", "grafana_dashboard_uid=d1", "grafana_panel_id=7", "trace_id=-",
		"param_query=up", "param_end=7200", "query_range_hours=2", "query_range_human=2h", "peak_samples=7", "total_samples_loaded=121",
	} {
		if !strings.Contains(f.logged.String(), want) {
			t.Errorf("the log lacks %s: %s", want, f.logged.String())
		}
	}
}

// Shows that statistics that the client asks for are those of all parts together.
func TestStatisticsOfParts(t *testing.T) {
	f := newFake(t, Config{Range: RangeConfig{Split: SplitConfig{Interval: 3600_000}}}, steps)
	_, _, body := f.do(t, "POST", rangePath, "query=up&start=0&end=7200&step=60&stats=all")
	if !strings.Contains(body, `"stats":{"samples":{"totalQueryableSamples":121,"peakSamples":7}}`) {
		t.Error(body[len(body)-200:])
	}
}

// Shows that the missing beginning of an answer is asked for at coarser resolutions, only where the resolution is left
// open, and that what is there stays.
func TestDownsampledBeginning(t *testing.T) {
	f := newFake(t, Config{Range: RangeConfig{Downsampled: true}}, func(w http.ResponseWriter, r *http.Request) {
		from := map[string]int64{"auto": 300, "0s": 300, "5m": 120, "1h": 60}[r.Form.Get("max_source_resolution")]
		start, _ := parseTime(r.Form.Get("start"))
		r.Form.Set("start", formatTime(max(start, from*1000)))
		steps(w, r)
	})
	resolutions := func(form string) (s string) {
		_, _, body := f.do(t, "POST", rangePath, form)
		for _, a := range f.take() {
			s += fmt.Sprintf("%s %s-%s ", a.Form.Get("max_source_resolution"), a.Form.Get("start"), a.Form.Get("end"))
		}
		var r struct {
			Data struct{ Result []struct{ Values [][2]any } }
		}
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			t.Fatal(err)
		}
		if vs := r.Data.Result[0].Values; len(vs) > 0 {
			s += fmt.Sprintf("%v %d", vs[0][0], len(vs))
		}
		return s
	}
	if got := resolutions("query=up&start=60&end=600&step=60&max_source_resolution=auto"); got != "auto 60-600 5m 60-240 1h 60-60 60 10" {
		t.Error(got)
	}
	if got := resolutions("query=up&start=60&end=600&step=60&max_source_resolution=0s"); got != "0s 60-600 300 6" {
		t.Error(got)
	}
	if got := testutil.ToFloat64(f.metrics.extra); got != 2 {
		t.Errorf("%v extra queries are counted", got)
	}
}

// memory is a cache without bounds.
type memory struct {
	mu      sync.Mutex
	entries map[string][]byte
}

func (m *memory) Fetch(_ context.Context, keys []string) [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = m.entries[k]
	}
	return out
}

func (m *memory) Store(es ...cache.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range es {
		m.entries[e.Key] = e.Value
	}
}

func (m *memory) Close() error { return nil }

// Shows what is kept of range queries: a second, a longer and a coarser question ask for what is new alone; what may
// change, what has other parameters, another tenant, or says not to keep it is asked for each time.
func TestResultsCache(t *testing.T) {
	now := time.Unix(10_000, 0)
	for _, compress := range []bool{false, true} {
		kept := &memory{entries: map[string][]byte{}}
		note, control := "", ""
		f := newFake(t, Config{Now: func() time.Time { return now }, Range: RangeConfig{
			Align: true, Split: SplitConfig{Interval: 100_000_000, Parallel: 2}, Cache: kept, Freshness: time.Minute, Compress: compress,
		}}, func(w http.ResponseWriter, r *http.Request) {
			if control != "" {
				w.Header().Set("Cache-Control", control)
			}
			if note != "" {
				_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":[]},"warnings":[%q]}`, note)
				return
			}
			steps(w, r)
		})
		ask := func(form, want string, header ...string) {
			t.Helper()
			code, _, body := f.do(t, "POST", rangePath, form, header...)
			got := ""
			for _, a := range f.take() {
				got += a.Form.Get("start") + "-" + a.Form.Get("end") + " "
			}
			if code != 200 || strings.TrimSpace(got) != want {
				t.Errorf("%s %v: %d, the querier was asked for %q, want %q: %.100s", form, header, code, got, want, body)
			}
			if note != "" || strings.Contains(form, "query=time") {
				return
			}
			q, err := url.ParseQuery(form)
			if err != nil {
				t.Fatal(err)
			}
			whole := httptest.NewRecorder()
			steps(whole, &http.Request{Form: q})
			if a, _, _ := strings.Cut(whole.Body.String(), `,"stats"`); !strings.HasPrefix(body, a) {
				t.Errorf("%s: got %s, want %s", form, body, a)
			}
		}
		ask("query=up&start=1000&end=2000&step=100", "1000-2000")
		ask("query=up&start=1000&end=2000&step=100", "")
		ask("query=up&start=1500&end=1700&step=100", "")
		ask("query=up&start=800&end=2300&step=100", "800-900 2100-2300")
		ask("query=up&start=800&end=2300&step=100", "")
		ask("query=up%20&start=800&end=2300&step=100", "") // the same in canonical form
		ask("query=up&start=1000&end=2000&step=100&timeout=30", "")

		ask("query=up&start=1000&end=2000&step=100&dedup=false", "1000-2000")
		ask("query=up&start=1000&end=2000&step=100&storeMatch[]=a", "1000-2000")
		ask("query=up&start=1000&end=2000&step=100&replicaLabels[]=a", "1000-2000")
		ask("query=up&start=1000&end=2000&step=100&partial_response=true", "1000-2000")
		ask("query=up&start=1000&end=2000&step=100&max_source_resolution=5m", "1000-2000")
		ask("query=up&start=1000&end=2000&step=100&lookback_delta=5m", "1000-2000")
		ask("query=up&start=1000&end=2000&step=100&engine=prometheus", "1000-2000")
		ask("query=up&start=1000&end=2000&step=100", "1000-2000", "THANOS-TENANT", "other")
		ask("query=up&start=1000&end=2000&step=100", "", "THANOS-TENANT", "other")

		for range 2 { // never kept
			ask("query=up&start=1000&end=2000&step=100&surprise=1", "1000-2000")
			ask("query=up&start=1000&end=2000&step=100&stats=all", "1000-2000")
			ask("query=up&start=1000&end=2000&step=100", "1000-2000", "Cache-Control", "no-store")
			ask("query=up+offset+-9000s&start=1000&end=2000&step=100", "1000-2000")
			ask("query=up+@+9990&start=1000&end=2000&step=100", "1000-2000")
			ask("query=up+@+end()&start=9900&end=9980&step=20", "9900-9980")
		}
		ask("query=up&start=9800&end=10000&step=20", "9800-10000")
		ask("query=up&start=9800&end=10000&step=20", "9960-10000") // newer than a minute
		ask("query=up+offset+-200s&start=9600&end=9900&step=20", "9600-9900")
		ask("query=up+offset+-200s&start=9600&end=9900&step=20", "9760-9900")

		ask("query=up&start=3000&end=4000&step=10", "3000-4000")
		ask("query=up&start=3000&end=4000&step=20", "") // thinned
		ask("query=up&start=3000&end=4020&step=20", "3000-4020")

		for _, n := range []string{"data of a store is missing", "some replica is gone"} {
			note = n
			ask("query=half&start=1000&end=2000&step=100", "1000-2000")
			ask("query=half&start=1000&end=2000&step=100", "1000-2000")
		}
		note, control = "PromQL warning: x", "no-store"
		ask("query=half&start=1000&end=2000&step=100", "1000-2000")
		control = ""
		ask("query=half&start=1000&end=2000&step=100", "1000-2000")
		ask("query=half&start=1000&end=2000&step=100", "")          // with its annotation
		ask("query=half&start=1000&end=1900&step=100", "1000-1900") // whose annotation that is nobody knows
		note = ""

		before := testutil.ToFloat64(f.metrics.unreadable)
		for k, v := range kept.entries {
			kept.entries[k] = v[:len(v)-1]
		}
		ask("query=up&start=1000&end=2000&step=100", "1000-2000")
		ask("query=up&start=1000&end=2000&step=100", "")
		if testutil.ToFloat64(f.metrics.unreadable) == before {
			t.Error("damaged entries are not counted")
		}
	}
}

// Shows the requests for labels and series: each part of the range is asked for, what is settled is kept by exact
// parts, and lists are joined; a limit leaves the request whole.
func TestMetadata(t *testing.T) {
	now := time.Unix(10_000, 0)
	kept := &memory{entries: map[string][]byte{}}
	warning := ""
	f := newFake(t, Config{Now: func() time.Time { return now }, Metadata: MetadataConfig{
		SplitMs: 1000_000, RangeMs: 500_000, Parallel: 2, Cache: kept, Freshness: time.Minute, PartialResponse: true, Attempts: 2,
	}}, func(w http.ResponseWriter, r *http.Request) {
		data := fmt.Sprintf(`["all","%s"]`, r.Form.Get("start"))
		if strings.HasSuffix(r.URL.Path, "series") {
			data = fmt.Sprintf(`[{"a":"all"},{"a":"%s"}]`, r.Form.Get("start"))
		}
		_, _ = fmt.Fprintf(w, `{"status":"success","data":%s%s}`, data, warning)
	})
	ask := func(path, form, wantAsked, want string) {
		t.Helper()
		code, _, body := f.do(t, "GET", path+"?"+form, "")
		got := ""
		for _, a := range f.take() {
			if a.Form.Get("partial_response") != "true" {
				t.Errorf("partial_response is %q", a.Form.Get("partial_response"))
			}
			got += a.Method + " " + a.Form.Get("start") + "-" + a.Form.Get("end") + " "
		}
		if code != 200 || strings.TrimSpace(got) != wantAsked || body != want {
			t.Errorf("%s?%s: %d, the querier was asked for %q, want %q: %s, want %s", path, form, code, got, wantAsked, body, want)
		}
	}
	ask("/api/v1/labels", "", "POST 9500-9999.999 POST 10000-10000", `{"status":"success","data":["10000","9500","all"]}`)
	ask("/api/v1/labels", "start=500&end=2500", "POST 500-999.999 POST 1000-1999.999 POST 2000-2500", `{"status":"success","data":["1000","2000","500","all"]}`)
	ask("/api/v1/labels", "start=500&end=2600", "POST 2000-2600", `{"status":"success","data":["1000","2000","500","all"]}`)
	ask("/api/v1/labels", "start=500&end=2600&match[]=up", "POST 500-999.999 POST 1000-1999.999 POST 2000-2600", `{"status":"success","data":["1000","2000","500","all"]}`)
	ask("/api/v1/label/a/values", "start=1000&end=1999.999", "GET 1000-1999.999", `{"status":"success","data":["all","1000"]}`)
	ask("/api/v1/label/a/values", "start=1000&end=1999.999", "", `{"status":"success","data":["all","1000"]}`)
	ask("/api/v1/label/b/values", "start=1000&end=1999.999", "GET 1000-1999.999", `{"status":"success","data":["all","1000"]}`)
	ask("/api/v1/series", "start=1000&end=2000&match[]=up", "POST 1000-1999.999 POST 2000-2000", `{"status":"success","data":[{"a":"1000"},{"a":"2000"},{"a":"all"}]}`)
	ask("/api/v1/series", "start=1000&end=2000&match[]=up", "", `{"status":"success","data":[{"a":"1000"},{"a":"2000"},{"a":"all"}]}`)
	ask("/api/v1/labels", "start=500&end=2500&limit=3", "POST 500-2500", `{"status":"success","data":["all","500"]}`)
	ask("/api/v1/labels", "start=9000&end=9990", "POST 9000-9990", `{"status":"success","data":["all","9000"]}`)
	ask("/api/v1/labels", "start=9000&end=9990", "POST 9000-9990", `{"status":"success","data":["all","9000"]}`)
	warning = `,"warnings":["a store is away"]`
	ask("/api/v1/labels", "start=5000&end=5500", "POST 5000-5500", `{"status":"success","data":["all","5000"],"warnings":["a store is away"]}`)
	ask("/api/v1/labels", "start=5000&end=5500", "POST 5000-5500", `{"status":"success","data":["all","5000"],"warnings":["a store is away"]}`)
	warning = ""
	for k := range kept.entries {
		kept.entries[k] = []byte("\x01[")
	}
	ask("/api/v1/series", "start=1000&end=2000&match[]=up", "POST 1000-1999.999 POST 2000-2000", `{"status":"success","data":[{"a":"1000"},{"a":"2000"},{"a":"all"}]}`)
}

// Shows that the frontend is ready while the queriers say so of themselves.
func TestReady(t *testing.T) {
	code := 200
	f := newFake(t, Config{}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	if err := f.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if code = 503; f.Ready(t.Context()) == nil {
		t.Error("ready before queriers that are not")
	}
	if got := f.take(); got[0].Path != "/-/ready" {
		t.Errorf("asked %s", got[0].Path)
	}
}

// Shows that configurations that make no sense are refused with what is wrong.
func TestConfig(t *testing.T) {
	u := &url.URL{Scheme: "http", Host: "querier"}
	f := func(cfg Config, want string) {
		t.Helper()
		if _, err := New(cfg, log.NewNopLogger(), prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	f(Config{}, "downstream URL")
	f(Config{Downstream: &url.URL{Scheme: "ftp", Host: "x"}}, "downstream URL")
	f(Config{Downstream: u, Range: RangeConfig{Cache: struct{ cache.Cache }{}}}, "results cache needs")
	f(Config{Downstream: u, Metadata: MetadataConfig{Cache: struct{ cache.Cache }{}}}, "cache of labels needs")
	f(Config{Downstream: u, Shards: 1000}, "1000 shards")
	f(Config{Downstream: u, Range: RangeConfig{Split: SplitConfig{Interval: -1}}}, "negative")
	f(Config{Downstream: u, Queue: QueueConfig{Weights: map[string]float64{"a": 0}}}, "weight of tenant a")
	f(Config{Downstream: u, Tenancy: tenancy.Config{CertificateField: "x"}}, "certificate field")
}
