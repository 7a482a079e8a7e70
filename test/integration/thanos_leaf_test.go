//go:build compat

package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

const rules = `groups:
- name: first
  interval: 1s
  limit: 7
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
    labels: {team: a}
  - alert: Always
    expr: up == 1
    labels: {severity: page, replica: stored}
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
  - record: broken
    expr: label_replace(up, "__name__", "", "", "")
`

// A Thanos querier hears the same from Koios's sidecar as from Thanos's own of rules, alerts, targets,
// metadata, exemplars and statistics. Times and durations move between two questions and are left out; so is
// the chunk count, which Thanos's sidecar always says is 0. Label names that it gives twice, as it does where
// a stored label is named like an external one, count once.
func TestLeafServicesBesideThanos(t *testing.T) {
	p := fleet.NewPrometheus(t, fleet.PrometheusConfig{Name: "prometheus", ExternalLabels: []string{"cluster", "eu", "replica", "a"}, Targets: []string{dataset.StartTarget(t)}})
	conf, err := os.ReadFile(p.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := errors.Join(os.WriteFile(file, []byte(rules), 0o600), os.WriteFile(p.ConfigFile, append(conf, "rule_files: ["+file+"]\n"...), 0o600)); err != nil {
		t.Fatal(err)
	}
	p.Launch(t)
	var over []*fleet.Component
	for _, start := range []maker{startThanos, startKoios} {
		sidecar := start(t, "sidecar", "--prometheus.url="+p.URL, "--tsdb.path="+p.Dir).Ready(t)
		over = append(over, querier(t, startThanos, sidecar))
	}
	for _, path := range []string{
		"/api/v1/rules", "/api/v1/rules?type=alert", "/api/v1/rules?type=record", "/api/v1/rules?rule_name[]=Always", "/api/v1/rules?match[]={severity=%22page%22}",
		"/api/v1/rules?match[]={cluster=%22eu%22}", "/api/v1/alerts", "/api/v1/targets", "/api/v1/targets?state=active", "/api/v1/targets?state=dropped",
		"/api/v1/metadata", "/api/v1/metadata?metric=temperature_celsius", "/api/v1/metadata?metric=state&limit=1", "/api/v1/query_exemplars?query=up&start=0&end=4000000000", "/api/v1/status/tsdb?limit=3",
		"/api/v1/labels", "/api/v1/label/__name__/values", "/api/v1/label/replica/values", "/api/v1/series?match[]=up&match[]=state",
	} {
		t.Run(path, func(t *testing.T) {
			fleet.Eventually(t, "both say the same", 20*time.Second, func() error {
				want, err := page(t, over[0].URL+path)
				if err != nil {
					return err
				}
				if text := fmt.Sprint(want); len(text) < 40 && !strings.Contains(path, "exemplars") && !strings.Contains(path, "dropped") && !strings.Contains(path, "replica") {
					return fmt.Errorf("nothing to compare yet: %s", text)
				}
				got, err := page(t, over[1].URL+path)
				if err != nil {
					return err
				}
				if diff := cmp.Diff(want, got); diff != "" {
					return fmt.Errorf("(-over Thanos's sidecar +over Koios's):\n%s", diff)
				}
				return nil
			})
		})
	}
}

// Koios's querier says of rules, alerts, targets, metadata, exemplars and statistics what a Thanos querier says
// over the same two sidecars of an HA pair, one of each make.
func TestFederatedBesideThanos(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	target := federatedTarget(t)
	a, b := withRules(t, "a", file, target), withRules(t, "b", file, target)
	sideA := startKoios(t, "sidecar", "--prometheus.url="+a.URL, "--tsdb.path="+a.Dir).Ready(t)
	sideB := startThanos(t, "sidecar", "--prometheus.url="+b.URL, "--tsdb.path="+b.Dir).Ready(t)
	thanos, koios := querier(t, startThanos, sideA, sideB), querier(t, startKoios, sideA, sideB)
	aboveThanos, aboveKoios := querier(t, startThanos, koios), querier(t, startKoios, thanos)
	for _, path := range []string{
		"/api/v1/rules", "/api/v1/rules?type=alert", "/api/v1/rules?type=record", "/api/v1/rules?type=ALERT", "/api/v1/rules?rule_name[]=Always", "/api/v1/rules?rule_group[]=second", "/api/v1/rules?file[]=" + file,
		"/api/v1/rules?match[]={severity=%22page%22}", "/api/v1/rules?match[]={cluster=%22eu%22}&match[]={team=%22a%22}", "/api/v1/rules?match[]={replica=%22a%22}", "/api/v1/alerts",
		"/api/v1/targets", "/api/v1/targets?state=active", "/api/v1/targets?state=dropped",
		"/api/v1/metadata", "/api/v1/metadata?metric=work_seconds", "/api/v1/metadata?limit=0",
		"/api/v1/query_exemplars?query=work_seconds_bucket&start=0&end=4000000000", "/api/v1/query_exemplars?query=rate(work_seconds_bucket{cluster=%22eu%22}[5m])&start=0&end=4000000000",
		"/api/v1/query_exemplars?query=work_seconds_bucket{replica=%22b%22}&start=0&end=4000000000", "/api/v1/query_exemplars?query=work_seconds_bucket{cluster=%22us%22}&start=0&end=4000000000",
		"/api/v1/status/tsdb", "/api/v1/status/tsdb?limit=3", "/api/v1/status/tsdb?match[]={replica=%22a%22}",
	} {
		for name, q := range map[string]*fleet.Component{"Koios": koios, "Thanos over Koios": aboveThanos, "Koios over Thanos": aboveKoios} {
			t.Run(name+path, func(t *testing.T) {
				fleet.Eventually(t, "both say the same", 20*time.Second, func() error {
					want, err := page(t, thanos.URL+path)
					if err != nil {
						return err
					}
					if n := len(fmt.Sprint(want)); n < 50 && !strings.Contains(path, "limit=0") && !strings.Contains(path, "us%22") {
						return fmt.Errorf("nothing to compare yet: %v", want)
					}
					got, err := page(t, q.URL+path)
					if err != nil {
						return err
					}
					if diff := cmp.Diff(want, got); diff != "" {
						return fmt.Errorf("(-Thanos +%s):\n%s", name, diff)
					}
					return nil
				})
			})
		}
	}
}

// page reads the data of an answer, without what moves.
func page(t *testing.T, url string) (any, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	var raw json.RawMessage
	if _, err := answer.Do(req, &raw); err != nil {
		return nil, err
	}
	var data any
	if err := json.Unmarshal(raw, &data); err != nil {
		return nil, err
	}
	still(data)
	if list, ok := data.([]any); ok {
		data = slices.CompactFunc(list, func(a, b any) bool { name, ok := a.(string); return ok && name == b })
	}
	return data, nil
}

func still(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, moving := range []string{"evaluationTime", "lastEvaluation", "lastScrape", "lastScrapeDuration", "activeAt", "chunkCount", "maxTime", "minTime"} {
			delete(v, moving)
		}
		for _, x := range v {
			still(x)
		}
	case []any:
		for _, x := range v {
			still(x)
		}
	}
}
