package api

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "rewrite the golden files")

const base = storetest.Base

// data is a small database: three metrics, one of them histograms, in two replicas.
func data() []storetest.Input {
	native := make([]storetest.Sample, 9)
	for i := range native {
		native[i] = storetest.Sample{T: base + int64(i)*storetest.Step, H: &histogram.Histogram{
			Schema: 1, ZeroThreshold: 0.001, ZeroCount: uint64(i), Count: uint64(6*i + 5), Sum: float64(10*i) + 0.5,
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{int64(i + 1), 1, 0},
			NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{int64(2 * i)},
		}}
	}
	odd := []storetest.Sample{{T: base, V: math.NaN()}, {T: base + 15_000, V: math.Inf(1)}, {T: base + 30_000, V: math.Inf(-1)}, {T: base + 45_001, V: 1e-7}, {T: base + 60_050, V: 1e21}, {T: base + 75_500, V: -0.25}}
	ins := []storetest.Input{
		{Labels: labels.FromStrings("__name__", "up", "job", "a", "tenant_id", "red"), Samples: storetest.Floats(9, 0)},
		{Labels: labels.FromStrings("__name__", "up", "job", "b", "tenant_id", "blue"), Samples: storetest.Floats(9, 1)},
		{Labels: labels.FromStrings("__name__", "odd", "text", "a\"b\\c\n\t\u0001ü<>&"), Samples: odd},
		{Labels: labels.FromStrings("__name__", "native"), Samples: native},
		{Labels: labels.FromStrings("__name__", "utf8", "a.b", "x"), Samples: storetest.Floats(2, 0)},
	}
	slices.SortFunc(ins, func(a, b storetest.Input) int { return labels.Compare(a.Labels, b.Labels) })
	return ins
}

// replicated is a Store over two replicas with the external label replica, which adds warnings and checks
// what it is asked.
type replicated struct {
	replicas []store.Store
	warnings []error
	err      error

	mu   sync.Mutex
	last *store.SeriesRequest // guarded by mu; read between requests
}

func newReplicated() *replicated {
	s := &replicated{}
	for _, r := range []string{"1", "2"} {
		s.replicas = append(s.replicas, storetest.New(storetest.Data{External: labels.FromStrings("replica", r), Series: data()}))
	}
	return s
}

func (s *replicated) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	s.mu.Lock()
	s.last = req
	s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	var cs []store.Cursor
	for _, r := range s.replicas {
		c, err := r.Series(ctx, req)
		if err != nil {
			return nil, err
		}
		cs = append(cs, c)
	}
	cs = append(cs, store.NewSliceCursor(nil, s.warnings...))
	return store.Limit(store.Merge(cs), req.Limit), nil
}

func (s *replicated) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	names, _, err := s.replicas[0].LabelNames(ctx, req)
	return names, s.warnings, err
}

func (s *replicated) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	var all []string
	for _, r := range s.replicas {
		vs, _, err := r.LabelValues(ctx, req)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, vs...)
	}
	slices.Sort(all)
	return slices.Compact(all), s.warnings, nil
}
func (s *replicated) Describe() store.Description { return s.replicas[0].Describe() }

// serve starts the API over st.
func serve(t testing.TB, st store.Store, cfg Config, qcfg query.Config, reg prometheus.Registerer) *httptest.Server {
	t.Helper()
	q, err := query.New(st, qcfg, log.NewNopLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Now == nil {
		cfg.Now = func() time.Time { return time.UnixMilli(base + 60_000) }
	}
	a, err := New(q, cfg, log.NewNopLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	a.Register(mux, "/prefix/", func(name string, h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Handler", name)
			h.ServeHTTP(w, r)
		})
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		srv.Close()
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv
}

type reply struct {
	status int
	header http.Header
	body   string
}

func do(t testing.TB, srv *httptest.Server, method, path, body string, header ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+"/prefix/api/v1"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

// Shows the exact bodies of answers of every kind, as clients parse them.
func TestGolden(t *testing.T) {
	cfg := Config{
		ReplicaLabels: []string{"replica"}, PartialResponse: true,
		Status: Status{Flags: map[string]string{"query.timeout": "2m", "objstore.config": "type: S3", "objstore.config-file": "/secret"}},
		Stores: func() []endpoint.Status {
			return []endpoint.Status{
				{Name: "b:10901", Component: endpoint.Sidecar, LastCheck: time.UnixMilli(base).UTC(), LabelSets: []labels.Labels{labels.FromStrings("replica", "1")}, MinTime: 1, MaxTime: 2},
				{Name: "a:10901", Component: endpoint.Sidecar, LastCheck: time.UnixMilli(base).UTC(), LastError: errors.New("down")},
			}
		},
	}
	srv := serve(t, newReplicated(), cfg, query.Config{Engine: query.EnginePrometheus}, nil)
	var out strings.Builder
	for _, path := range []string{
		"/query?query=up&time=1700006430",
		"/query?query=up&time=1700006430&dedup=false",
		"/query?query=up&time=2023-11-15T00:00:30Z&dedup=true&replicaLabels[]=tenant_id",
		"/query?query=odd&time=1700006445.001",
		"/query?query=1%2B1&time=4",
		"/query?query=%22text%22&time=4.5",
		"/query?query=native&time=1700006430",
		"/query?query=up[31s]&time=1700006430",
		"/query?query=absent_metric&time=1700006430",
		"/query?query=rate(up[1m])&time=1700006430",
		"/query?query=up&time=1700006430&analyze=true",
		"/query_range?query=odd&start=1700006400&end=1700006480&step=15.1",
		"/query_range?query=native&start=1700006400&end=1700006415&step=15",
		"/query_range?query=absent_metric&start=1700006400&end=1700006415&step=15",
		"/series?match[]=up&match[]=native",
		"/series?match[]=up&dedup=false&limit=3",
		"/series?match[]=none",
		"/labels",
		"/labels?match[]=up&limit=2",
		"/label/job/values",
		"/label/replica/values",
		"/label/U__a_2e_b/values",
		"/label/a.b/values",
		"/label/none/values",
		"/stores",
		"/status/flags",
		"/format_query?query=sum(up)by(job)",
		"/query_explain?query=up&engine=thanos",
	} {
		r := do(t, srv, "GET", path, "")
		unescaped, _ := url.QueryUnescape(path)
		fmt.Fprintf(&out, "GET %s\n%d %s %s\n%s\n", unescaped, r.status, r.header.Get("Content-Type"), r.header.Get("Cache-Control"), r.body)
		if !json.Valid([]byte(r.body)) {
			t.Errorf("%s: no JSON: %s", path, r.body)
		}
	}
	golden(t, "bodies.txt", out.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s differs (run with -update if that is meant):\n%s", file, diff)
	}
}

// Shows what broken requests are told: always 400, bad_data, and what to do.
func TestBadRequests(t *testing.T) {
	srv := serve(t, newReplicated(), Config{}, query.Config{Engine: query.EnginePrometheus}, nil)
	var out strings.Builder
	for _, path := range []string{
		"/query?query=",
		"/query?query=sum(",
		"/query?query=up&time=noon",
		"/query?query=up&time=1e300",
		"/query?query=up&dedup=perhaps",
		"/query?query=up&partial_response=2",
		"/query?query=up&max_source_resolution=-5m",
		"/query?query=up&max_source_resolution=coarse",
		"/query?query=up&engine=steam",
		"/query?query=up&storeMatch[]={",
		"/query?query=up&shard_info={",
		"/query?query=up&shard_info={%22shard_index%22:3,%22total_shards%22:3}",
		"/query?query=up&timeout=soon",
		"/query?query=up&lookback_delta=soon",
		"/query_range?query=up&end=2&step=1",
		"/query_range?query=up&start=1&end=&step=1",
		"/query_range?query=up&start=2&end=1&step=1",
		"/query_range?query=up&start=1&end=2&step=0",
		"/query_range?query=up&start=1&end=2&step=-1",
		"/query_range?query=up&start=1&end=2&step=1e-9",
		"/query_range?query=up&start=0&end=1700000000&step=1",
		"/query_range?query=up[5m]&start=1&end=2&step=1",
		"/query_range?query=up&start=-292273086-05-16T16:47:06Z&end=292277025-08-18T07:12:54.999999999Z&step=1",
		"/query_explain?query=up",
		"/series",
		"/series?match[]={",
		"/series?match[]={}",
		"/series?match[]={a=~%22.*%22}",
		"/series?match[]=up&start=2&end=1",
		"/series?match[]=up&limit=-1",
		"/labels?match[]=up{",
		"/label/U__bad_/values?limit=x",
		"/label/%ff/values",
	} {
		r := do(t, srv, "GET", path, "")
		unescaped, _ := url.QueryUnescape(path)
		fmt.Fprintf(&out, "GET %q\n%d %s %s\n%s\n", unescaped, r.status, r.header.Get("Content-Type"), r.header.Get("Cache-Control"), r.body)
	}
	golden(t, "refusals.txt", out.String())
}

// Shows that parameters of the URL and of a posted form are read together, as Grafana sends them.
func TestFormAndURL(t *testing.T) {
	st := newReplicated()
	srv := serve(t, st, Config{ReplicaLabels: []string{"replica"}}, query.Config{}, nil)
	form := url.Values{"query": {"up"}, "start": {"1700006400"}, "end": {"1700006460"}, "step": {"15"}}
	r := do(t, srv, "POST", "/query_range?max_source_resolution=5m&partial_response=true&dedup=false&storeMatch[]={__address__=%22a%22}&shard_info={%22shard_index%22:0,%22total_shards%22:1}", form.Encode())
	if r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if st.last.MaxResolution != 300_000 || st.last.PartialResponse != store.Warn || len(st.last.WithoutReplicaLabels) != 0 ||
		len(st.last.StoreMatchers) != 1 || st.last.Shard == nil || st.last.Shard.Total != 1 || st.last.BatchSize != 64 {
		t.Errorf("asked %+v", st.last)
	}
	do(t, srv, "POST", "/query_range?max_source_resolution=auto", form.Encode())
	if st.last.MaxResolution != 3_000 || st.last.PartialResponse != store.Abort || !slices.Equal(st.last.WithoutReplicaLabels, []string{"replica"}) {
		t.Errorf("asked %+v", st.last)
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		if r := do(t, srv, method, "/label/job/values", "a=b"); r.status != http.StatusMethodNotAllowed {
			t.Errorf("%s of label values: %d", method, r.status)
		}
	}
	if r := do(t, srv, "GET", "/nothing", ""); r.status != http.StatusNotFound {
		t.Errorf("unknown path: %d", r.status)
	}
}

// Shows which answers may be kept by caches in front: none that lacks data, and no error; but those with
// remarks of PromQL itself.
func TestCacheControl(t *testing.T) {
	st := newReplicated()
	srv := serve(t, st, Config{PartialResponse: true}, query.Config{}, nil)
	f := func(path string, status int, control string, contains ...string) {
		t.Helper()
		r := do(t, srv, "GET", path, "")
		if r.status != status || r.header.Get("Cache-Control") != control {
			t.Errorf("%s: %d %q", path, r.status, r.header.Get("Cache-Control"))
		}
		for _, c := range contains {
			if !strings.Contains(r.body, c) {
				t.Errorf("%s: no %s in %s", path, c, r.body)
			}
		}
	}
	f("/query?query=up", 200, "")
	f("/query?query=rate(up[1m])", 200, "", `"infos":["PromQL info: metric might not be a counter`)
	st.warnings = []error{&store.Gap{Store: "s1", LabelSets: []labels.Labels{labels.FromStrings("r", "1")}, MinTime: 0, MaxTime: 60_000, Err: errors.New("down")}}
	gap := `"warnings":["data of s1 ([{r=\"1\"}]) between 1970-01-01T00:00:00Z and 1970-01-01T00:01:00Z may be missing: down"]`
	f("/query?query=up", 200, "no-store", gap)
	f("/query?query=up&engine=thanos", 200, "no-store", gap)
	f("/series?match[]=up", 200, "no-store", gap)
	f("/labels", 200, "no-store", gap)
	f("/label/job/values", 200, "no-store", gap)
	st.warnings = []error{&store.Info{Text: "a replica answers alone"}}
	info := `"infos":["a replica answers alone"]`
	f("/query?query=up", 200, "no-store", info)
	f("/query?query=up&engine=thanos", 200, "no-store", info)
	f("/series?match[]=up", 200, "no-store", info)
	f("/labels", 200, "no-store", info)
	st.err = store.Errorf(store.KindAborted, "s1 is down")
	f("/query?query=up", 422, "no-store", `"errorType":"execution"`, "s1 is down")
	f("/series?match[]=up", 422, "no-store", `"errorType":"execution"`, "s1 is down")
	st.err = context.Canceled
	f("/series?match[]=up", 503, "no-store", `"errorType":"canceled"`)
	st.err = context.DeadlineExceeded
	f("/series?match[]=up", 503, "no-store", `"errorType":"timeout"`)
}

// Shows that answers are compressed with gzip and nothing else, that browsers of other origins may read
// them unless that is switched off, and which name each handler has in metrics.
func TestHTTP(t *testing.T) {
	srv := serve(t, newReplicated(), Config{}, query.Config{}, nil)
	long := "/query_range?query=up&start=1700006400&end=1700006500&step=0.5"
	r := do(t, srv, "GET", long, "", "Accept-Encoding", "zstd, br, gzip")
	if r.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("encoding %q", r.header.Get("Content-Encoding"))
	}
	z, err := gzip.NewReader(strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(z); err != nil || !json.Valid(b) {
		t.Errorf("%v %s", err, b)
	}
	if r := do(t, srv, "GET", long, "", "Accept-Encoding", "zstd"); r.header.Get("Content-Encoding") != "" || !json.Valid([]byte(r.body)) {
		t.Errorf("only zstd offered: %q", r.header.Get("Content-Encoding"))
	}
	if got := r.header.Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("origin %q", got)
	}
	if r := do(t, srv, "OPTIONS", "/query", ""); r.status != 204 || r.header.Get("Access-Control-Allow-Methods") != "GET, POST, OPTIONS" || r.header.Get("X-Handler") != "options" {
		t.Errorf("options: %d %v", r.status, r.header)
	}
	for path, name := range map[string]string{
		"/query": "query", "/query_range": "query_range", "/query_explain": "query", "/query_range_explain": "query", "/series": "series", "/labels": "label_names",
		"/label/a/values": "label_values", "/stores": "stores", "/status/flags": "status_flags", "/status/runtimeinfo": "status_runtime", "/status/buildinfo": "status_build",
	} {
		if r := do(t, srv, "GET", path, ""); r.header.Get("X-Handler") != name {
			t.Errorf("%s: handler %q, want %q", path, r.header.Get("X-Handler"), name)
		}
	}
	srv = serve(t, newReplicated(), Config{DisableCORS: true}, query.Config{}, nil)
	if r := do(t, srv, "GET", "/query?query=1", ""); r.header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("CORS headers though switched off")
	}
}

// Shows that each tenant sees its own series only when that is enforced, whatever it asks.
func TestTenancy(t *testing.T) {
	srv := serve(t, newReplicated(), Config{EnforceTenancy: true, ReplicaLabels: []string{"replica"}}, query.Config{}, nil)
	f := func(path, tenant, want string) {
		t.Helper()
		r := do(t, srv, "GET", path, "", "THANOS-TENANT", tenant)
		if !strings.Contains(r.body, want) || want != `"result":[]` && strings.Contains(r.body, "blue") {
			t.Errorf("%s as %s: %s", path, tenant, r.body)
		}
	}
	f("/query?query=up", "red", `"result":[{"metric":{"__name__":"up","job":"a","tenant_id":"red"}`)
	f("/query?query=sum(up%20or%20up{tenant_id=%22blue%22})by(tenant_id)", "red", `"result":[{"metric":{"tenant_id":"red"}`)
	f("/query?query=up{tenant_id=%22blue%22}", "red", `"result":[]`)
	f("/series?match[]=up", "red", `"data":[{"__name__":"up","job":"a","tenant_id":"red"}]`)
	f("/label/job/values", "red", `"data":["a"]`)
	f("/label/job/values?match[]=up", "red", `"data":["a"]`)
	f("/labels", "red", `"data":["__name__","job","replica","tenant_id"]`)
	if r := do(t, srv, "GET", "/query?query=up", "", "THANOS-TENANT", "a/b"); r.status != 400 {
		t.Errorf("bad tenant: %d", r.status)
	}
}

// Shows the statistics and the analysis that are sent on request.
func TestStatsAndAnalysis(t *testing.T) {
	srv := serve(t, newReplicated(), Config{ReplicaLabels: []string{"replica"}}, query.Config{}, nil)
	for _, engine := range []string{"prometheus", "thanos"} {
		var got struct {
			Data struct {
				Stats struct {
					Samples struct {
						TotalQueryableSamples int64
						PerStep               []any `json:"totalQueryableSamplesPerStep"`
					}
				}
				Analysis struct {
					Name, ExecutionTime string
					Children            []any
				}
			}
			Warnings []string
		}
		r := do(t, srv, "GET", "/query_range?query=sum(up)&start=1700006400&end=1700006460&step=15&stats=all&analyze=1&engine="+engine, "")
		if err := json.Unmarshal([]byte(r.body), &got); err != nil {
			t.Fatal(err)
		}
		if got.Data.Stats.Samples.TotalQueryableSamples != 10 || len(got.Data.Stats.Samples.PerStep) != 5 {
			t.Errorf("%s: %s", engine, r.body)
		}
		if analysed := got.Data.Analysis.Name != "" && len(got.Data.Analysis.Children) > 0; analysed != (engine == "thanos") || len(got.Warnings) == 0 != analysed {
			t.Errorf("%s: %s", engine, r.body)
		}
	}
}

// Shows the metrics of queries.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	srv := serve(t, newReplicated(), Config{SeriesQuantiles: []float64{1, 10}, SampleQuantiles: []float64{5}}, query.Config{}, reg)
	got := do(t, srv, "GET", "/query_range?query=up&start=1700006400&end=1700006460&step=15", "")
	if series, bytes := got.header.Get(promapi.FetchedSeriesHeader), got.header.Get(promapi.FetchedChunkBytesHeader); len(series) != 1 || series == "0" || len(bytes) < 2 {
		t.Errorf("the answer tells of %q series and %q bytes", series, bytes)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "thanos_store_api_query_duration_seconds" {
			if got, want := fmt.Sprint(f.GetMetric()[0].GetLabel()), `[name:"samples_le" value:"+Inf" name:"series_le" value:"10" name:"tenant" value:"default-tenant"]`; strings.ReplaceAll(got, "  ", " ") != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
	}
	for _, name := range []string{
		"thanos_query_range_requested_timespan_duration_seconds", "thanos_store_api_query_duration_seconds",
		"thanos_query_concurrent_gate_queries_max", "thanos_query_concurrent_gate_queries_total", "thanos_query_concurrent_selects_gate_selects_in_flight",
		"thanos_query_concurrent_selects_gate_selects_duration_seconds", "thanos_engine_queries_total", "thanos_engine_queries", "prometheus_engine_queries",
		"prometheus_engine_queries_concurrent_max", "prometheus_engine_query_samples_total", "prometheus_engine_query_duration_seconds", "prometheus_engine_query_log_enabled",
	} {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n == 0 {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

// Shows that any string is written as JSON that reads back as the same text.
func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "a", `"\`, "\x00\x1f\n", "ü🜁", "\xff\xfe", "a\xe2\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var got string
		if err := json.Unmarshal(appendString(nil, s), &got); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); strings.ReplaceAll(got, "\ufffd", "") != strings.ReplaceAll(want, "\ufffd", "") {
			t.Fatalf("%q reads as %q", s, got)
		}
	})
}

// Shows that no text of a time or duration makes trouble, and that accepted times fit into ms.
func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"0", "1e3", "1700006400.123", "2006-01-02T15:04:05Z", firstTimeText, lastTimeText, "NaN", "-Inf", "1e308", "5m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if at, err := parseTime("time", s); err == nil {
			_ = at.UnixMilli()
		} else if store.KindOf(err) != store.KindBadRequest {
			t.Fatalf("%q: %v", s, err)
		}
		if _, err := parseDuration("step", s); err != nil && store.KindOf(err) != store.KindBadRequest {
			t.Fatalf("%q: %v", s, err)
		}
	})
}
