package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// What is committed is what the tables make, and no file is left of a table that is gone.
func TestGeneratedFiles(t *testing.T) {
	all, err := files()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range all {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is not what make mixin writes (-want +got):\n%s", name, diff)
		}
	}
	committed, err := os.ReadDir("dashboards")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range committed {
		if _, ok := all["dashboards/"+f.Name()]; !ok {
			t.Errorf("dashboards/%s is left over", f.Name())
		}
	}
}

// Prometheus takes the rule file, each alert has a section with the same name in the page on operating, and the page
// explains no alert that there is none of.
func TestAlerts(t *testing.T) {
	text, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(text, false, model.UTF8Validation)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^### (Koios\w+)$`).FindAllStringSubmatch(string(page), -1) {
		explained[m[1]] = true
	}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if !explained[r.Alert] {
				t.Errorf("docs/operating.md has no section ### %s", r.Alert)
			}
			delete(explained, r.Alert)
			if r.Annotations["runbook"] != "docs/operating.md#"+strings.ToLower(r.Alert) || r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%s: annotations %v, labels %v", r.Alert, r.Annotations, r.Labels)
			}
		}
	}
	for name := range explained {
		t.Errorf("docs/operating.md explains %s, which is no alert", name)
	}
}

// Every expression of a dashboard is PromQL, once Grafana has put its variables in.
func TestDashboardExpressions(t *testing.T) {
	for _, d := range dashboards {
		for _, r := range d.rows {
			for _, p := range r.panels {
				for _, target := range p.targets {
					if _, err := parser.ParseExpr(strings.ReplaceAll(target.expr, "$__rate_interval", "5m")); err != nil {
						t.Errorf("%s, %s: %s: %v", d.title, p.title, target.expr, err)
					}
				}
			}
		}
	}
}
