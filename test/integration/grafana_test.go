package integration

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/koios-metrics/koios/test/bulk"
	"github.com/koios-metrics/koios/test/fleet"
)

// recorded is a request of testdata/grafana.txt.
type recorded struct {
	why, method, target string
	header              http.Header
	form                string
}

// readRecorded reads requests. What is not the first of its reason stands behind an empty line.
func readRecorded(t *testing.T, replace *strings.Replacer) (all []recorded) {
	t.Helper()
	b, err := os.ReadFile("testdata/grafana.txt")
	if err != nil {
		t.Fatal(err)
	}
	why := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		method, target, _ := strings.Cut(line, " ")
		name, value, isHeader := strings.Cut(line, ": ")
		switch {
		case line == "":
		case strings.HasPrefix(line, "# "):
			why = line[2:]
		case method == http.MethodGet || method == http.MethodPost:
			all = append(all, recorded{why: why, method: method, target: replace.Replace(target), header: http.Header{}})
		case isHeader:
			all[len(all)-1].header.Set(name, value)
		default:
			all[len(all)-1].form = replace.Replace(line)
		}
	}
	return all
}

// send asks a server, and returns what the answer says.
func (r recorded) send(t *testing.T, base string) (status int, header http.Header, body any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, base+r.target, strings.NewReader(r.form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = r.header.Clone()
	if r.method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept-Encoding", "gzip, deflate, br, zstd") // as browsers offer
	resp, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "gzip" {
		t.Errorf("%s: the answer is in %s, which Grafana can't read", r.why, e)
	}
	text := unzipped(t, resp)
	if err := json.Unmarshal(text, &body); err != nil {
		return resp.StatusCode, resp.Header, strings.TrimSpace(string(text))
	}
	return resp.StatusCode, resp.Header, settled(body)
}

// settled leaves out of an answer what changes from one to the next.
func settled(body any) any {
	top, _ := body.(map[string]any)
	data, _ := top["data"].(map[string]any)
	delete(data, "analysis")
	if stats, ok := data["stats"].(map[string]any); ok {
		delete(stats, "timings")
	}
	for _, name := range []string{"goroutineCount", "serverTime"} {
		delete(data, name)
	}
	return body
}

// Shows that what Grafana and its kin send gets the same answers from a frontend as from its querier: POST forms, parameters
// in URL and form, match[], escaped labels, build information, errors. Headers that are to go on do, and others don't.
func TestGrafanaThroughTheFrontend(t *testing.T) {
	bucket := t.TempDir()
	end := time.Now().Truncate(time.Hour).Add(-2 * time.Hour)
	if _, err := bulk.Write(t.Context(), bucket, bulk.Spec{
		From: end.Add(-8 * time.Hour).UnixMilli(), Interval: 30_000, Samples: 8 * 120, Series: bulk.Counters("up", 60), External: map[string]string{"cluster": "eu", "replica": "a"},
	}); err != nil {
		t.Fatal(err)
	}
	querier := fleet.StartQuery(t, []*fleet.Component{fleet.StartStore(t, bucket)})
	waitStores(t, querier, 1)

	var mu sync.Mutex
	var seen []http.Header
	u, err := url.Parse(querier.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if r.URL.Path != "/-/ready" {
			seen = append(seen, r.Header.Clone())
		}
		mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(between.Close)
	addr := fleet.FreeAddr(t)
	front := &fleet.Component{HTTP: addr, URL: "http://" + addr}
	front.Process = fleet.Start(t, "query-frontend", fleet.KoiosProgram(t), "query-frontend", "--http-address="+addr, "--query-frontend.downstream-url="+between.URL,
		"--query-range.response-cache-config={type: IN-MEMORY, config: {max_size: 100MB}}", "--labels.response-cache-config={type: IN-MEMORY, config: {max_size: 100MB}}",
		"--query-frontend.forward-header=X-Grafana-User", "--query-frontend.forward-header=FromAlert", "--query-frontend.compress-responses")
	front.Ready(t)

	replace := strings.NewReplacer("$START", fmt.Sprint(end.Unix()-6*3600), "$END", fmt.Sprint(end.Unix()), "$FAR", fmt.Sprint(end.UnixMilli()))
	requests := readRecorded(t, replace)
	if len(requests) < 25 {
		t.Fatalf("%d requests", len(requests))
	}
	for round := range 2 { // the second finds what the first has kept
		for _, r := range requests {
			wantStatus, wantHeader, want := r.send(t, querier.URL)
			mu.Lock()
			seen = nil
			mu.Unlock()
			status, header, got := r.send(t, front.URL)
			if status != wantStatus {
				t.Errorf("%s: %s %s: status %d, the querier's is %d", r.why, r.method, r.target, status, wantStatus)
			}
			if d := gocmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s %s %s\nquerier against frontend: %.2000s", r.why, r.method, r.target, r.form, d)
			}
			if a, b := wantHeader.Get("Content-Type"), header.Get("Content-Type"); a != b && status == http.StatusOK {
				t.Errorf("%s: content type %q, the querier's is %q", r.why, b, a)
			}
			mu.Lock()
			for _, h := range seen {
				for _, name := range []string{"X-Grafana-User", "FromAlert"} {
					if h.Get(name) != r.header.Get(name) {
						t.Errorf("%s: header %s is %q at the querier, it was %q", r.why, name, h.Get(name), r.header.Get(name))
					}
				}
				if strings.Contains(r.target, "query_range") && h.Get("X-Panel-Id") != "" {
					t.Errorf("%s: header X-Panel-Id goes on, which nobody asked for", r.why)
				}
			}
			if asked := len(seen); round == 1 && r.why == "a graph" && asked != 0 {
				t.Errorf("%s: the querier was asked %d times", r.why, asked)
			}
			mu.Unlock()
		}
	}
}

// unzipped reads a body.
func unzipped(t *testing.T, resp *http.Response) []byte {
	t.Helper()
	var body io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		body = z
	}
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
