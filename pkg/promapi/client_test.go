package promapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/koios-metrics/koios/pkg/store"
)

// serve starts a server that answers every call with status and body, and remembers the last call.
func serve(t testing.TB, status int, contentType, body string) (*Client, *http.Request) {
	t.Helper()
	last := new(http.Request)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		*last = *r
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL + "/prefix/")
	if err != nil {
		t.Fatal(err)
	}
	return New(u, srv.Client(), "Koios/1.2.3"), last
}

func success(data string) string { return `{"status":"success","data":` + data + `}` }

func equal(t testing.TB, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.Comparer(labels.Equal)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// Each method calls its endpoint below the prefix of the URL, with our User-Agent, and decodes what
// Prometheus sends. The bodies are cut from answers of Prometheus 3.
func TestMethods(t *testing.T) {
	ctx := context.Background()
	at := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	ls := labels.FromStrings
	eq := labels.MustNewMatcher(labels.MatchEqual, "a", `x"y`)
	sel := Select{Start: 1500, End: math.MaxInt64, Matchers: []*labels.Matcher{eq}, Limit: 3}

	for _, c := range []struct {
		name, body, path string
		params           url.Values
		do               func(*Client) (any, error)
		want             any
	}{
		{"flags", success(`{"a":"b"}`), "/prefix/api/v1/status/flags", nil,
			func(c *Client) (any, error) { return c.Flags(ctx) }, map[string]string{"a": "b"}},
		{"version", success(`{"version":"3.9.1","revision":"x"}`), "/prefix/api/v1/status/buildinfo", nil,
			func(c *Client) (any, error) { return c.BuildVersion(ctx) }, "3.9.1"},
		{"external labels", success(`{"yaml":"global:\n  scrape_interval: 15s\n  external_labels:\n    replica: \"01\"\n    cluster: eu\nscrape_configs:\n- job_name: x\n"}`), "/prefix/api/v1/status/config", nil,
			func(c *Client) (any, error) { return c.ExternalLabels(ctx) }, ls("cluster", "eu", "replica", "01")},
		{"no external labels", success(`{"yaml":"global: {}\n"}`), "/prefix/api/v1/status/config", nil,
			func(c *Client) (any, error) { return c.ExternalLabels(ctx) }, labels.EmptyLabels()},
		{"lowest timestamp", "# HELP x y\n# TYPE x gauge\nx{a=\"b\"} 1\nprometheus_tsdb_lowest_timestamp_seconds 1.7e+09\nz 1\n", "/prefix/metrics", nil,
			func(c *Client) (any, error) { return c.LowestTimestamp(ctx) }, int64(1.7e12)},
		{"lowest timestamp of nothing", "prometheus_tsdb_lowest_timestamp_seconds 9.223372036854776e+15\n", "/prefix/metrics", nil,
			func(c *Client) (any, error) { return c.LowestTimestamp(ctx) }, int64(math.MaxInt64)},
		{"series", success(`[{"__name__":"up","a":"b"},{}]`), "/prefix/api/v1/series", url.Values{"match[]": {`{a="x\"y"}`}, "start": {"1.500"}, "limit": {"3"}},
			func(c *Client) (any, error) {
				var all []labels.Labels
				_, err := c.Series(ctx, sel, func(l labels.Labels) error { all = append(all, l); return nil })
				return all, err
			}, []labels.Labels{ls("__name__", "up", "a", "b"), labels.EmptyLabels()}},
		{"label names", `{"status":"success","data":["a","b"],"warnings":["w"]}`, "/prefix/api/v1/labels", url.Values{"start": {"-0.001"}, "end": {"2"}},
			func(c *Client) (any, error) {
				names, ws, err := c.LabelNames(ctx, Select{Start: -1, End: 2000})
				return [][]string{names, ws}, err
			}, [][]string{{"a", "b"}, {"w"}}},
		{"label values", success(`["x"]`), "/prefix/api/v1/label/a/values", url.Values{"match[]": {`{a="x\"y"}`}, "start": {"1.500"}, "limit": {"3"}},
			func(c *Client) (any, error) { vs, _, err := c.LabelValues(ctx, "a", sel); return vs, err }, []string{"x"}},
		{"label values of an UTF-8 name", success(`null`), "/prefix/api/v1/label/U__a_2e_b/values", nil,
			func(c *Client) (any, error) {
				vs, _, err := c.LabelValues(ctx, "a.b", Select{Start: math.MinInt64, End: math.MaxInt64})
				return vs, err
			}, []string(nil)},
		{"rules", success(`{"groups":[{"name":"g","file":"f","rules":[` +
			`{"state":"firing","name":"A","query":"up == 0","duration":60,"keepFiringFor":5,"labels":{"l":"1"},"annotations":{"s":"t"},"alerts":[{"labels":{"l":"1"},"annotations":{},"state":"firing","activeAt":"2025-01-02T03:04:05Z","value":"1e+00"}],"health":"ok","evaluationTime":0.5,"lastEvaluation":"2025-01-02T03:04:05Z","type":"alerting"},` +
			`{"name":"R","query":"1","health":"err","lastError":"e","evaluationTime":1,"lastEvaluation":"2025-01-02T03:04:05Z","type":"recording"}],"interval":30,"limit":0,"evaluationTime":0.1,"lastEvaluation":"2025-01-02T03:04:05Z"}]}`), "/prefix/api/v1/rules", url.Values{"type": {"alert"}},
			func(c *Client) (any, error) { gs, _, err := c.Rules(ctx, "alert"); return gs, err },
			[]RuleGroup{{Name: "g", File: "f", Interval: 30, EvaluationTime: 0.1, LastEvaluation: at, Rules: []Rule{
				{Type: RuleAlerting, Name: "A", Query: "up == 0", Labels: ls("l", "1"), Health: "ok", EvaluationTime: 0.5, LastEvaluation: at, State: "firing", Duration: 60, KeepFiringFor: 5, Annotations: ls("s", "t"),
					Alerts: []Alert{{Labels: ls("l", "1"), State: "firing", ActiveAt: &at, Value: "1e+00"}}},
				{Type: RuleRecording, Name: "R", Query: "1", Health: "err", LastError: "e", EvaluationTime: 1, LastEvaluation: at},
			}}}},
		{"targets", success(`{"activeTargets":[{"discoveredLabels":{"__address__":"x"},"labels":{"job":"j"},"scrapePool":"p","scrapeUrl":"u","globalUrl":"g","lastError":"","lastScrape":"2025-01-02T03:04:05Z","lastScrapeDuration":0.1,"health":"up","scrapeInterval":"15s","scrapeTimeout":"10s"}],"droppedTargets":[{"discoveredLabels":{"a":"b"},"scrapePool":"p"}],"droppedTargetCounts":{"p":1}}`), "/prefix/api/v1/targets", url.Values{"state": {"any"}},
			func(c *Client) (any, error) { return c.Targets(ctx, "any") },
			&Targets{Active: []ActiveTarget{{DiscoveredLabels: ls("__address__", "x"), Labels: ls("job", "j"), ScrapePool: "p", ScrapeURL: "u", GlobalURL: "g", LastScrape: at, LastScrapeDuration: 0.1, Health: "up", ScrapeInterval: "15s", ScrapeTimeout: "10s"}},
				Dropped: []DroppedTarget{{DiscoveredLabels: ls("a", "b"), ScrapePool: "p"}}}},
		{"metadata", success(`{"up":[{"type":"gauge","help":"h","unit":""}]}`), "/prefix/api/v1/metadata", url.Values{"metric": {"up"}, "limit": {"0"}},
			func(c *Client) (any, error) { return c.Metadata(ctx, "up", 0) }, map[string][]Metadata{"up": {{Type: "gauge", Help: "h"}}}},
		{"exemplars", success(`[{"seriesLabels":{"a":"b"},"exemplars":[{"labels":{"t":"1"},"value":"6","timestamp":1600096945.479},{"labels":null,"value":0.5,"timestamp":1}]}]`), "/prefix/api/v1/query_exemplars", url.Values{"query": {"up"}, "start": {"1"}, "end": {"2"}},
			func(c *Client) (any, error) { return c.Exemplars(ctx, "up", 1000, 2000) },
			[]SeriesExemplars{{SeriesLabels: ls("a", "b"), Exemplars: []Exemplar{{Labels: ls("t", "1"), Value: 6, Timestamp: 1600096945479}, {Value: 0.5, Timestamp: 1000}}}}},
		{"TSDB status", success(`{"headStats":{"numSeries":5,"numLabelPairs":6,"chunkCount":7,"minTime":8,"maxTime":9},"seriesCountByMetricName":[{"name":"up","value":2}],"labelValueCountByLabelName":[],"memoryInBytesByLabelName":null}`), "/prefix/api/v1/status/tsdb", url.Values{"limit": {"4"}},
			func(c *Client) (any, error) { return c.TSDBStatus(ctx, 4) },
			&TSDBStatus{HeadStats: HeadStats{5, 6, 7, 8, 9}, SeriesCountByMetricName: []TSDBStat{{"up", 2}}, LabelValueCountByLabelName: []TSDBStat{}}},
		{"ready", "Prometheus is Ready.\n", "/prefix/-/ready", nil,
			func(c *Client) (any, error) { return nil, c.Ready(ctx) }, nil},
		{"reload", "", "/prefix/-/reload", nil,
			func(c *Client) (any, error) { return nil, c.Reload(ctx) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, last := serve(t, 200, "", c.body)
			got, err := c.do(client)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, got, c.want)
			equal(t, last.URL.Path, c.path)
			if c.params == nil {
				c.params = url.Values{}
			}
			equal(t, last.Form, c.params)
			equal(t, last.UserAgent(), "Koios/1.2.3")
		})
	}
}

// Long matchers travel in the body of a POST, short ones in the address.
func TestLongMatchersArePosted(t *testing.T) {
	client, last := serve(t, 200, "", success(`[]`))
	value := strings.Repeat("x", maxGetBytes)
	sel := Select{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", value)}, End: math.MaxInt64}
	if _, err := client.Series(context.Background(), sel, func(labels.Labels) error { return nil }); err != nil {
		t.Fatal(err)
	}
	equal(t, last.Method, "POST")
	equal(t, last.PostForm.Get("match[]"), `{a="`+value+`"}`)
}

// An answer that is not 2xx becomes an error with the status, Prometheus's text and a kind; a 404 can be
// told apart.
func TestStatusErrors(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		kind   store.Kind
		text   string
	}{
		{400, `{"status":"error","errorType":"bad_data","error":"no match[]"}`, store.KindBadRequest, "request failed with code 400; msg bad_data: no match[]"},
		{404, "404 page not found\n", store.KindInternal, "request failed with code 404; msg 404 page not found"},
		{422, `{"status":"error","errorType":"execution","error":"x"}`, store.KindInternal, "execution: x"},
		{429, "", store.KindLimit, "code 429 Too Many Requests"},
		{500, "\xff\xfe", store.KindInternal, `msg "\xff\xfe"`},
		{503, "Service Unavailable", store.KindUnavailable, "Service Unavailable"},
	} {
		client, _ := serve(t, c.status, "", c.body)
		_, err := client.Flags(context.Background())
		if err == nil || store.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), client.URL()) {
			t.Errorf("status %d: kind %v, error %v", c.status, store.KindOf(err), err)
		}
		if got := errors.Is(err, ErrNotFound); got != (c.status == 404) {
			t.Errorf("status %d: is ErrNotFound: %v", c.status, got)
		}
	}
}

// A Prometheus that is down is unavailable, and the message names its address (but no password) and what to
// check; a caller that gives up sees its own cause.
func TestDown(t *testing.T) {
	srv := httptest.NewServer(nil)
	u, _ := url.Parse(srv.URL)
	srv.Close()
	u.User = url.UserPassword("me", "secret")
	client := New(u, nil, "")
	_, err := client.BuildVersion(context.Background())
	if err == nil || store.KindOf(err) != store.KindUnavailable || !strings.Contains(err.Error(), u.Host) || !strings.Contains(err.Error(), "check that it runs") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if err := client.Ready(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

// Answers that no Prometheus gives end in an error that says so, never in an empty result.
func TestMalformedAnswers(t *testing.T) {
	for _, body := range []string{
		"", "{", "[]", "null", `{"status":"success"}`, `{"status":"error","errorType":"e","error":"x","data":[]}`, `{"data":[]}`,
		`{"status":"success","data":{}}`, `{"status":"success","data":[1]}`, `{"status":"success","data":["a"`, "<html>login</html>",
	} {
		client, _ := serve(t, 200, "", body)
		if names, _, err := client.LabelNames(context.Background(), Select{}); err == nil {
			t.Errorf("%q: got %v and no error", body, names)
		}
	}
	client, _ := serve(t, 200, "", success(`{"yaml":"global: [\n"}`))
	if _, err := client.ExternalLabels(context.Background()); err == nil || !strings.Contains(err.Error(), "parse configuration") {
		t.Errorf("broken configuration: %v", err)
	}
	client, _ = serve(t, 200, "", "up 1\n")
	if _, err := client.LowestTimestamp(context.Background()); !errors.Is(err, ErrNoLowestTimestamp) {
		t.Errorf("metrics without lowest timestamp: %v", err)
	}
}

// A body past its maximum is refused, one of exactly the maximum is not.
func TestBodyLimit(t *testing.T) {
	read := func(limit int64) error {
		client, _ := serve(t, 200, "", "12345")
		return client.read(context.Background(), call{what: "read"}, limit, func(_ *http.Response, r io.Reader) error {
			_, err := io.ReadAll(r)
			return err
		})
	}
	if err := read(5); err != nil {
		t.Error(err)
	}
	if err := read(4); err == nil || store.KindOf(err) != store.KindLimit {
		t.Errorf("got %v", err)
	}
}

// An error of the callback of Series ends the call and keeps its kind.
func TestSeriesCallbackError(t *testing.T) {
	client, _ := serve(t, 200, "", success(`[{},{}]`))
	n := 0
	_, err := client.Series(context.Background(), Select{}, func(labels.Labels) error {
		n++
		return store.Errorf(store.KindLimit, "full")
	})
	if store.KindOf(err) != store.KindLimit || n != 1 {
		t.Errorf("called %d times, got %v", n, err)
	}
}

// Remote read tells the two forms of answers apart and refuses others.
func TestReadKinds(t *testing.T) {
	for _, c := range []struct {
		contentType string
		kind        ReadKind
		ok          bool
	}{
		{"application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse", ReadStreamed, true},
		{"application/x-streamed-protobuf", ReadStreamed, true},
		{"application/x-streamed-protobuf; proto=other", 0, false},
		{"application/x-protobuf", ReadSampled, true},
		{"text/html; charset=utf-8", 0, false},
		{";", 0, false},
	} {
		client, last := serve(t, 200, c.contentType, "body")
		resp, err := client.Read(context.Background(), &prompb.ReadRequest{})
		if (err == nil) != c.ok {
			t.Errorf("%q: %v", c.contentType, err)
			continue
		}
		equal(t, last.Header.Get("X-Prometheus-Remote-Read-Version"), "0.1.0")
		if err != nil {
			if !strings.Contains(err.Error(), `"body"`) {
				t.Errorf("%q: %v does not show what was sent", c.contentType, err)
			}
			continue
		}
		equal(t, resp.Kind, c.kind)
		resp.Body.Close()
	}
}

// Streams that something on the way has compressed are refused: their checksums would only say that they are
// wrong.
func TestReadEncodings(t *testing.T) {
	f := func(contentType, encoding string, ok bool) {
		t.Helper()
		if _, err := readKind(contentType, encoding); (err == nil) != ok {
			t.Errorf("%v", err)
		}
	}
	f("application/x-streamed-protobuf", "", true)
	f("application/x-streamed-protobuf", "gzip", false)
	f("application/x-protobuf", "snappy", true)
	f("application/x-protobuf", "", true)
	f("application/x-protobuf", "br", false)
}

// Times are written exactly to the ms.
func TestFormatTime(t *testing.T) {
	f := func(ms int64, want string) {
		t.Helper()
		equal(t, formatTime(ms), want)
	}
	f(0, "0")
	f(1, "0.001")
	f(-1, "-0.001")
	f(1500, "1.500")
	f(-61_020, "-61.020")
	f(1732200000123, "1732200000.123")
}

// Whatever bytes come, the parsers end with a result or an error.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{success(`[{"a":"b"}]`), success(`{"groups":[]}`), `{"status":"error"}`, "# TYPE x gauge\nx 1\n", "global: {external_labels: {a: b}}", "a: &a [*a]", "", "{"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = decodeEnvelope(bytes.NewReader(b), func(dec *json.Decoder) error {
			return array(dec, func() error { var e Exemplar; return dec.Decode(&e) })
		})
		_, _ = externalLabels(string(b))
		_, _ = gauge(b, "", lowestTimestamp)
		_ = errorMessage(b)
	})
}
