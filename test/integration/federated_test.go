package integration

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/fleet"
)

const federatedRules = `groups:
- name: first
  interval: 1s
  limit: 7
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
    labels: {team: a}
  - alert: Always
    expr: up == 1
    labels: {severity: page}
    annotations: {summary: "{{ $labels.instance }} is up"}
  - alert: Later
    expr: vector(1)
    for: 1h
    keep_firing_for: 5m
- name: second
  interval: 1s
  rules:
  - alert: Never
    expr: up == 2
`

// federatedPage is what a target says: a metric with help and unit and an exemplar, which stays the same.
const federatedPage = `# HELP work_seconds How long work took.
# TYPE work_seconds histogram
# UNIT work_seconds seconds
work_seconds_bucket{le="1.0"} 5 # {trace_id="abc"} 0.5 %d.0
work_seconds_bucket{le="+Inf"} 6
work_seconds_sum 4
work_seconds_count 6
# HELP jobs Jobs done.
# TYPE jobs counter
jobs_total 6
# EOF
`

// federatedTarget starts a server with that page and returns its host:port.
func federatedTarget(t *testing.T) string {
	t.Helper()
	since := time.Now().Unix()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
		_, _ = fmt.Fprintf(w, federatedPage, since)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// withRules lays out a Prometheus with the rules, which lie in a file that both of a pair read, and a second
// job whose targets are dropped.
func withRules(t *testing.T, replica, rulesFile, target string) *fleet.Prometheus {
	t.Helper()
	p := fleet.NewPrometheus(t, fleet.PrometheusConfig{
		Name: "prometheus-" + replica, ExternalLabels: []string{"cluster", "eu", "replica", replica},
		Targets: []string{target}, Flags: []string{"--enable-feature=exemplar-storage"},
	})
	conf, err := os.ReadFile(p.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	more := `- job_name: none
  static_configs:
  - targets: [nowhere:1]
  relabel_configs:
  - action: drop
rule_files: [` + rulesFile + "]\n"
	if err := os.WriteFile(p.ConfigFile, append(conf, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Launch(t)
	return p
}

// Rules, alerts, targets, metadata, exemplars and statistics of an HA pair, asked of a querier over both
// sidecars and of one over that querier, are those that Prometheus itself tells, with the external labels but
// for the replica's. Times and durations move between two questions and are left out.
func TestFederatedAnswersArePrometheuss(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(federatedRules), 0o600); err != nil {
		t.Fatal(err)
	}
	target := federatedTarget(t)
	a, b := withRules(t, "a", file, target), withRules(t, "b", file, target)
	var sidecars []*fleet.Component
	for _, p := range []*fleet.Prometheus{a, b} {
		sidecars = append(sidecars, fleet.StartComponent(t, "sidecar", "--prometheus.url="+p.URL, "--tsdb.path="+p.Dir).Ready(t))
	}
	flags := []string{"--query.replica-label=replica"}
	below := fleet.StartQuery(t, sidecars, flags...)
	waitStores(t, below, 2)
	above := fleet.StartQuery(t, []*fleet.Component{below}, flags...)
	waitStores(t, above, 1)

	for _, path := range []string{
		"/api/v1/rules", "/api/v1/rules?type=alert", "/api/v1/rules?type=record", "/api/v1/rules?rule_name[]=Always", "/api/v1/rules?rule_group[]=second",
		"/api/v1/rules?match[]={severity=%22page%22}", "/api/v1/alerts", "/api/v1/targets?state=any", "/api/v1/targets?state=active", "/api/v1/targets?state=dropped",
		"/api/v1/metadata", "/api/v1/metadata?metric=work_seconds", "/api/v1/metadata?metric=jobs&limit=1",
		"/api/v1/query_exemplars?query=rate(work_seconds_bucket[5m])&start=0&end=4000000000", "/api/v1/query_exemplars?query=nothing&start=1700000000000&end=1700000001000",
	} {
		for name, q := range map[string]*fleet.Component{"querier": below, "stacked": above} {
			t.Run(name+path, func(t *testing.T) {
				fleet.Eventually(t, "it is what Prometheus says", 30*time.Second, func() error {
					want, err := dataOf(t, a.URL+path)
					if err != nil {
						return err
					}
					if n := len(fmt.Sprint(want)); n < 50 && !strings.Contains(path, "nothing") {
						return fmt.Errorf("nothing to compare yet: %v", want)
					}
					got, err := dataOf(t, q.URL+path)
					if err != nil {
						return err
					}
					if diff := gocmp.Diff(asFederated(path, want), got); diff != "" {
						return fmt.Errorf("(-Prometheus +Koios):\n%s", diff)
					}
					return nil
				})
			})
		}
	}

	// Statistics count data where it lies, so that a pair counts twice.
	for name, q := range map[string]*fleet.Component{"querier": below, "stacked": above} {
		t.Run(name+"/api/v1/status/tsdb", func(t *testing.T) {
			fleet.Eventually(t, "it is both of them", 30*time.Second, func() error {
				type head struct {
					HeadStats struct{ NumSeries, ChunkCount, NumLabelPairs int64 }
				}
				var ofA, ofB, both, none head
				get(t, a.URL+"/api/v1/status/tsdb", &ofA)
				get(t, b.URL+"/api/v1/status/tsdb", &ofB)
				get(t, q.URL+"/api/v1/status/tsdb", &both)
				get(t, q.URL+"/api/v1/status/tsdb?match[]={cluster=%22us%22}", &none)
				if want := ofA.HeadStats.NumSeries + ofB.HeadStats.NumSeries; want == 0 || both.HeadStats.NumSeries != want || none.HeadStats.NumSeries != 0 {
					return fmt.Errorf("%d series, want %d and %d", both.HeadStats.NumSeries, want, none.HeadStats.NumSeries)
				}
				return nil
			})
		})
	}

	// With one Prometheus gone the other still answers, and the querier says whose part is missing.
	b.Stop(t)
	for _, path := range []string{"/api/v1/rules", "/api/v1/targets", "/api/v1/metadata", "/api/v1/alerts", "/api/v1/query_exemplars?query=work_seconds_bucket&start=0&end=4000000000", "/api/v1/status/tsdb"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, below.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		var data json.RawMessage
		warnings, err := answer.Do(req, &data)
		if err != nil || len(data) < 50 || len(warnings) != 1 || !strings.Contains(warnings[0], sidecars[1].GRPC) {
			t.Errorf("%s with one Prometheus gone: %d bytes, warnings %q, %v; want a warning with %s", path, len(data), warnings, err, sidecars[1].GRPC)
		}
	}
}

// dataOf reads the data of an answer, without what moves, in one order.
func dataOf(t *testing.T, url string) (any, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	var data any
	if warnings, err := answer.Do(req, &data); err != nil || len(warnings) > 0 {
		return nil, errors.Join(err, fmt.Errorf("warnings: %q", warnings))
	}
	return steady(data), nil
}

// steady takes out what differs between two questions or is of one Prometheus alone, and puts lists in one
// order.
func steady(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, moving := range []string{
			"evaluationTime", "lastEvaluation", "lastScrape", "lastScrapeDuration", "activeAt",
			"scrapeInterval", "scrapeTimeout", "keepFiringSince", "droppedTargetCounts", "partialResponseStrategy", "groupNextToken",
		} {
			delete(v, moving)
		}
		for k := range v {
			v[k] = steady(v[k])
		}
		if _, dropped := v["discoveredLabels"]; dropped && v["health"] == nil {
			delete(v, "scrapePool")
		}
	case []any:
		for i := range v {
			v[i] = steady(v[i])
		}
		slices.SortFunc(v, func(a, b any) int { return cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	return v
}

// asFederated adds to Prometheus's answer the external labels that a sidecar adds: to rules, targets and
// series, not to alerts.
func asFederated(path string, v any) any {
	add := func(ls any) { ls.(map[string]any)["cluster"] = "eu" }
	switch {
	case strings.Contains(path, "/rules"):
		for _, g := range v.(map[string]any)["groups"].([]any) {
			for _, r := range g.(map[string]any)["rules"].([]any) {
				add(r.(map[string]any)["labels"])
			}
		}
	case strings.Contains(path, "/targets"):
		for _, list := range v.(map[string]any) {
			for _, target := range list.([]any) {
				for name, ls := range target.(map[string]any) {
					if strings.HasSuffix(strings.ToLower(name), "labels") {
						add(ls)
					}
				}
			}
		}
	case strings.Contains(path, "/query_exemplars"):
		for _, s := range v.([]any) {
			add(s.(map[string]any)["seriesLabels"])
		}
	}
	return steady(v) // lists are sorted by what is in them
}
