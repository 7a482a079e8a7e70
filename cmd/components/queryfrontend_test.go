package components

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// recordingQuerier answers as a querier with one series does, and notes what it is asked.
type recordingQuerier struct {
	url string

	mtx   sync.Mutex
	asked []askedQuerier
	busy  int // requests that are being answered
	most  int // as many as they have been at a time, since the last look
	// mostLast is what most was at the last look.
	mostLast int
}

type askedQuerier struct {
	path   string
	form   url.Values
	header http.Header
}

func newRecordingQuerier(t *testing.T) *recordingQuerier {
	t.Helper()
	q := &recordingQuerier{}
	s := httptest.NewServer(q)
	t.Cleanup(s.Close)
	q.url = s.URL
	return q
}

// ServeHTTP implements http.Handler.
func (q *recordingQuerier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/api/") {
		return // the readiness page
	}
	_ = r.ParseForm()
	q.mtx.Lock()
	q.asked = append(q.asked, askedQuerier{r.URL.Path, r.Form, r.Header.Clone()})
	q.busy++
	q.most = max(q.most, q.busy)
	q.mtx.Unlock()
	defer func() {
		q.mtx.Lock()
		q.busy--
		q.mtx.Unlock()
	}()
	query := r.Form.Get("query") + r.Form.Get("match[]")
	switch {
	case strings.Contains(query, "broken"):
		http.Error(w, "broken", http.StatusInternalServerError)
	case strings.Contains(query, "hanging"):
		<-r.Context().Done()
	case strings.Contains(query, "slow"):
		time.Sleep(20 * time.Millisecond)
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/query_range"):
		number := func(name string) int64 { f, _ := strconv.ParseFloat(r.Form.Get(name), 64); return int64(f) }
		var points []string
		if !strings.Contains(query, "nothing") {
			for at := number("start"); at <= number("end"); at += max(1, number("step")) {
				points = append(points, fmt.Sprintf(`[%d,"1"]`, at))
			}
		}
		result := ""
		if len(points) > 0 {
			result = `{"metric":{"a":"b"},"values":[` + strings.Join(points, ",") + `]}`
		}
		stats := ""
		if r.Form.Get("stats") != "" {
			stats = `,"stats":{"samples":{"totalQueryableSamples":5,"peakSamples":3}}`
		}
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":[%s]%s}}`, result, stats)
	case strings.HasSuffix(r.URL.Path, "/query"):
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	default:
		_, _ = io.WriteString(w, `{"status":"success","data":["a","b"]}`)
	}
}

// take returns what was asked since the last time, and forgets it.
func (q *recordingQuerier) take() []askedQuerier {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	all := q.asked
	q.asked, q.mostLast, q.most = nil, q.most, 0
	return all
}

// flagWorld is a query frontend that was started with some flags.
type flagWorld struct {
	*testing.T
	*recordingQuerier
	program *program
	base    string
}

// ask sends a form and returns status, headers, the body, and what the querier was asked for it.
func (w *flagWorld) ask(path, form string, header ...string) (*http.Response, string, []askedQuerier) {
	w.Helper()
	w.take()
	req, err := http.NewRequestWithContext(w.Context(), http.MethodPost, w.base+"/api/v1/"+path, strings.NewReader(form))
	if strings.HasSuffix(path, "/values") {
		req, err = http.NewRequestWithContext(w.Context(), http.MethodGet, w.base+"/api/v1/"+path+"?"+form, nil)
	}
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return resp, string(b), w.take()
}

// want fails unless a request makes the querier be asked so often.
func (w *flagWorld) want(n int, path, form string, header ...string) []askedQuerier {
	w.Helper()
	_, body, asked := w.ask(path, form, header...)
	if len(asked) != n {
		w.Errorf("%s %s: the querier was asked %d times, want %d: %.200s", path, form, len(asked), n, body)
		return make([]askedQuerier, n)
	}
	return asked
}

// only fails unless all questions have a parameter with a value.
func (w *flagWorld) only(asked []askedQuerier, name, value string) {
	w.Helper()
	for _, a := range asked {
		if a.form.Get(name) != value {
			w.Errorf("the querier was asked with %s=%q, want %q", name, a.form.Get(name), value)
		}
	}
}

func (w *flagWorld) metric(line string) bool {
	_, text := get(w.T, w.base+"/metrics")
	return strings.Contains(text, line)
}

const requestLog = "{http: {options: {level: DEBUG, decision: {log_start: true, log_end: true}}, config: []}, options: {level: DEBUG, decision: {log_start: true, log_end: true}}}"

const inMemory = "{type: IN-MEMORY, config: {max_size: 1MB}}"

// frontendFlagCases are frontends with flags and what these make of requests; by their names, the flags of the reference
// table. What a flag does is seen beside the first case, which has the defaults.
var frontendFlagCases = []struct {
	flags []string
	// files are contents of flags that name a file.
	files map[string]string
	check func(w *flagWorld)
}{
	{flags: []string{"--http-address=127.0.0.1:0"}, check: func(w *flagWorld) {
		w.only(w.want(1, "query_range", "query=up&start=1003&end=2003&step=10"), "start", "1000")
		w.only(w.want(3, "query_range", "query=up&start=1000&end=180000&step=100"), "partial_response", "true")
		w.want(1, "query_range", "query=xrate(up[5m])&start=1000&end=180000&step=100")
		w.want(1, "query_range", "query=mad_over_time(up[5m])&start=1000&end=180000&step=100")
		w.want(3, "query_range", "query=nothing&start=1000&end=2000&step=10&max_source_resolution=auto") // and at 5m and 1h
		if resp, _, _ := w.ask("query_range", "query=up&start=1000&end=2000&step=10", "Accept-Encoding", "gzip"); resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			w.Errorf("headers %v", resp.Header)
		}
		w.only(w.want(1, "labels", "start=1000&end=2000"), "partial_response", "true")
		w.want(5, "query_range", "query=broken&start=1000&end=2000&step=10")
	}},
	{flags: []string{"--no-query-range.align-range-with-step", "--query-range.split-interval=1h", "--no-query-range.partial-response", "--query-range.max-query-length=10h",
		"--query-range.max-query-parallelism=1", "--query-range.max-retries-per-request=2", "--query.max-retries-per-request=3", "--no-query-range.request-downsampled", "--web.disable-cors"}, check: func(w *flagWorld) {
		w.only(w.want(1, "query_range", "query=up&start=1003&end=2003&step=10"), "start", "1003")
		w.only(w.want(5, "query_range", "query=up&start=0&end=17000&step=10"), "partial_response", "false")
		if resp, body, asked := w.ask("query_range", "query=up&start=0&end=36010&step=10"); resp.StatusCode != http.StatusBadRequest || len(asked) > 0 {
			w.Errorf("a range that is too long: %d %s", resp.StatusCode, body)
		}
		if w.want(5, "query_range", "query=slow&start=0&end=17000&step=10"); w.mostLast != 1 {
			w.Errorf("%d parts at a time", w.mostLast)
		}
		w.want(2, "query_range", "query=broken&start=1000&end=2000&step=10")
		w.want(3, "query", "query=broken")
		w.want(1, "query_range", "query=nothing&start=1000&end=2000&step=10&max_source_resolution=auto")
		if resp, _, _ := w.ask("query_range", "query=up&start=1000&end=2000&step=10"); resp.Header.Get("Access-Control-Allow-Origin") != "" {
			w.Errorf("headers %v", resp.Header)
		}
	}},
	{flags: []string{"--query-range.split-interval=0", "--query-range.min-split-interval=1h", "--query-range.max-split-interval=10h", "--query-range.horizontal-shards=4"}, check: func(w *flagWorld) {
		w.want(1, "query_range", "query=up&start=36000&end=37000&step=10")
		w.want(5, "query_range", "query=up&start=28800&end=57590&step=10") // of a fourth each, cut at multiples of it
	}},
	{flags: []string{"--query-range.response-cache-config=" + inMemory, "--query-range.response-cache-max-freshness=2h", "--labels.response-cache-config=" + inMemory, "--labels.response-cache-max-freshness=2h"}, check: func(w *flagWorld) {
		w.want(1, "query_range", "query=up&start=1000&end=2000&step=10")
		w.want(0, "query_range", "query=up&start=1000&end=2000&step=10")
		hourAgo := time.Now().Unix() - 3600
		recent := fmt.Sprintf("query=up&start=%d&end=%d&step=10", hourAgo, hourAgo)
		w.want(1, "query_range", recent)
		w.want(1, "query_range", recent)
		w.want(1, "labels", "start=1000&end=2000")
		w.want(0, "labels", "start=1000&end=2000")
		recent = fmt.Sprintf("start=%d&end=%d", hourAgo, hourAgo)
		w.want(1, "labels", recent)
		w.want(1, "labels", recent)
		w.want(1, "query_range", "query=up&start=100000&end=110000&step=10")
		if w.metric(`querier_cache_memory_bytes{cache="query_range",tripperware="query_range"} 0`) || !w.metric("querier_cache_memory_bytes") {
			w.Error("nothing is kept")
		}
	}},
	{files: map[string]string{"query-range.response-cache-config-file": inMemory, "labels.response-cache-config-file": inMemory}, flags: []string{"--cache-compression-type=snappy"}, check: func(w *flagWorld) {
		for _, n := range []int{1, 0} {
			w.want(n, "query_range", "query=up&start=10000&end=20000&step=1")
			w.want(n, "labels", "start=1000&end=2000")
		}
		// 10,001 points of `[10000,"1"],` are 130 kB, and compress well.
		if !w.metric(`cortex_cache_value_size_bytes_bucket{method="store",name="in-memory",tripperware="query_range",le="65536"} 1`) {
			_, text := get(w.T, w.base+"/metrics")
			w.Errorf("the entry is not compressed: %s", text)
		}
		hourAgo := time.Now().Unix() - 3600
		recent := fmt.Sprintf("query=up&start=%d&end=%d&step=10", hourAgo, hourAgo)
		w.want(1, "query_range", recent)
		w.want(0, "query_range", recent) // an hour is not fresh where nothing is said
	}},
	{flags: []string{"--labels.split-interval=1h", "--labels.max-query-parallelism=1", "--labels.max-retries-per-request=2", "--no-labels.partial-response", "--labels.default-time-range=3h"}, check: func(w *flagWorld) {
		w.only(w.want(4, "labels", "start=3600&end=14500"), "partial_response", "false")
		w.want(4, "labels", "end=14500") // three hours, cut at each
		w.want(2, "labels", "start=1000&end=2000&match[]=broken")
		if w.want(4, "labels", "start=3600&end=14500&match[]=slow"); w.mostLast != 1 {
			w.Errorf("%d parts at a time", w.mostLast)
		}
		w.want(1, "label/a/values", "start=1000&end=2000")
	}},
	{flags: []string{"--query-frontend.tenant-header=X-Whose", "--query-frontend.default-tenant-id=nobody", "--query-frontend.forward-header=X-On", "--query-frontend.force-query-stats",
		"--query-frontend.log-queries-longer-than=-1s", "--query-frontend.slow-query-logs-user-header=X-User", "--query-frontend.vertical-shards=2", "--query-frontend.compress-responses"}, check: func(w *flagWorld) {
		a := w.want(1, "query_range", "query=up&start=1000&end=2000&step=10", "X-Whose", "ours", "X-On", "1", "X-Off", "1")[0]
		if a.header.Get("THANOS-TENANT") != "ours" || a.header.Get("X-On") != "1" || a.header.Get("X-Off") != "" || a.form.Get("stats") != "all" {
			w.Errorf("the querier got %v %v", a.form, a.header)
		}
		resp, body, asked := w.ask("query_range", "query=up&start=1000&end=20000&step=10", "X-User", "kim", "X-Dashboard-Uid", "uid-1", "X-Panel-Id", "7", "Accept-Encoding", "gzip")
		if asked[0].header.Get("THANOS-TENANT") != "nobody" || resp.Header.Get("Content-Encoding") != "gzip" || strings.HasPrefix(body, "{") || !strings.Contains(resp.Header.Get("Server-Timing"), "querier_wall_time") {
			w.Errorf("%v %.20q", resp.Header, body)
		}
		for _, word := range []string{"remote_user=kim", "grafana_dashboard_uid=uid-1", "grafana_panel_id=7", "total_samples_loaded=5", "param_query=up"} {
			waitFor(w.T, "the log has "+word, func() bool { return strings.Contains(w.program.text(), word) })
		}
		w.want(2, "query_range", "query=sum+by(a)(up)&start=1000&end=2000&step=10")
	}},
	{flags: []string{"--query-frontend.org-id-header=X-Org", "--query-frontend.org-id-header=X-Other", "--query-frontend.enable-x-functions", "--enable-feature=promql-experimental-functions",
		"--query-frontend.downstream-tripper-config={response_header_timeout: 100ms}", "--query-range.max-retries-per-request=1",
		"--request.logging-config=" + requestLog}, check: func(w *flagWorld) {
		w.want(3, "query_range", "query=xrate(up[5m])&start=1000&end=180000&step=100", "X-Other", "acme")
		w.want(3, "query_range", "query=mad_over_time(up[5m])&start=1000&end=180000&step=100")
		if !w.metric(`cortex_query_frontend_queries_total{op="query_range",user="acme"} 1`) {
			w.Error("the organisation is not counted")
		}
		if resp, body, _ := w.ask("query_range", "query=hanging&start=1000&end=2000&step=10"); resp.StatusCode != http.StatusGatewayTimeout {
			w.Errorf("%d %s", resp.StatusCode, body)
		}
		waitFor(w.T, "requests are logged", func() bool { return strings.Contains(w.program.text(), "finished call") })
	}},
	{flags: []string{"--query-frontend.tenant-certificate-field=organization", "--query-range.max-retries-per-request=1"}, files: map[string]string{
		"query-frontend.downstream-tripper-config-file": "{response_header_timeout: 100ms}",
		"request.logging-config-file":                   requestLog,
	}, check: func(w *flagWorld) {
		if resp, body, asked := w.ask("query_range", "query=up&start=1000&end=2000&step=10"); resp.StatusCode != http.StatusBadRequest || len(asked) > 0 {
			w.Errorf("a client without a certificate: %d %s", resp.StatusCode, body)
		}
		waitFor(w.T, "requests are logged", func() bool { return strings.Contains(w.program.text(), "finished call") })
	}},
	{flags: []string{"--http-grace-period=0s"}, files: map[string]string{"http.config": "basic_auth_users: {kim: $2y$04$VPcdZZSGC7O5YzlJ0vKcV.5Xv0AQ8TqX2zXWcqYQxYl5bTNYv3rZe}\n"}, check: func(w *flagWorld) {
		if code, _ := get(w.T, w.base+"/api/v1/labels"); code != http.StatusUnauthorized {
			w.Errorf("a client without a password: %d", code)
		}
	}},
	{flags: []string{"--http-grace-period=1s", "--query-frontend.downstream-url=filled in"}, check: func(w *flagWorld) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if resp, err := http.Get(w.base + "/api/v1/query_range?query=hanging&start=1&end=2&step=1"); err == nil {
				_ = resp.Body.Close()
			}
		}()
		waitFor(w.T, "the querier is asked", func() bool {
			w.mtx.Lock()
			defer w.mtx.Unlock()
			return w.busy > 0
		})
		if err := w.program.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			w.Fatal(err)
		}
		w.program.end(w.T) // within a minute; two are the default
		<-ended
	}},
}

// Shows that every flag of the reference table changes what a started query frontend does: what it asks of the querier, what it
// answers, logs, counts or keeps. Each flag must be in a case, so one that is added to the table needs one.
func TestQueryFrontendFlags(t *testing.T) {
	var shown []string
	for i, c := range frontendFlagCases {
		for _, f := range c.flags {
			name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(f, "--"), "no-"), "=")
			shown = append(shown, name)
		}
		for name := range c.files {
			shown = append(shown, name)
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			q := newRecordingQuerier(t)
			args := []string{"query-frontend", "--http-address=127.0.0.1:0", "--log.level=debug"}
			for _, f := range c.flags {
				if !strings.HasPrefix(f, "--http-address") && !strings.HasPrefix(f, "--query-frontend.downstream-url") {
					args = append(args, f)
				}
			}
			for name, content := range c.files {
				file := filepath.Join(t.TempDir(), "config.yml")
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--"+name+"="+file)
			}
			p := start(t, append(args, "--query-frontend.downstream-url="+q.url)...)
			c.check(&flagWorld{T: t, recordingQuerier: q, program: p, base: p.url(t)})
		})
	}
	for _, r := range referenceRows(t)["query-frontend"] {
		if !slices.Contains(shown, r.name) {
			t.Errorf("nothing shows what --%s does", r.name)
		}
	}
}
