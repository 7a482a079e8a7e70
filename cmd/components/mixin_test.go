package components

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// runtimeMetrics are those of the process and the Go runtime, which the golden lists leave out.
var runtimeMetrics = []string{"process_cpu_seconds_total", "process_resident_memory_bytes", "go_goroutines"}

// Every metric that an alert or a dashboard reads is exported by some component: it is in a golden list, or among
// those that appear with the first use.
func TestMixinMetrics(t *testing.T) {
	exported := map[string]string{}
	for _, component := range []string{"sidecar", "store", "query", "query-frontend", "compact"} {
		list, err := os.ReadFile("testdata/metrics_" + component + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(list)) {
			name, typ, _ := strings.Cut(strings.TrimSpace(line), " ")
			exported[name] = typ
		}
	}
	reference := referenceMetrics(t)
	known := func(metric string) bool {
		if exported[metric] != "" || slices.Contains(runtimeMetrics, metric) {
			return true
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base, cut := strings.CutSuffix(metric, suffix)
			if !cut {
				continue
			}
			if exported[base] == "histogram" || exported[base] == "summary" {
				return true
			}
			metric = base
		}
		// What takes a first request or a cache to be there is in the reference and known to be absent until then.
		reason, ok := absence(metric)
		for _, names := range reference {
			if ok && names[metric] != "" && (strings.Contains(reason, "appears with")) {
				return true
			}
		}
		return false
	}
	exprs := mixinExpressions(t)
	if len(exprs) < 80 {
		t.Errorf("only %d expressions", len(exprs))
	}
	for where, expr := range exprs {
		tree, err := parser.ParseExpr(strings.ReplaceAll(expr, "$__rate_interval", "5m"))
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		parser.Inspect(tree, func(n parser.Node, _ []parser.Node) error {
			sel, ok := n.(*parser.VectorSelector)
			if !ok {
				return nil
			}
			i := slices.IndexFunc(sel.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == model.MetricNameLabel })
			if i < 0 || !known(sel.LabelMatchers[i].Value) {
				t.Errorf("%s reads %s, which nobody exports", where, sel)
			}
			return nil
		})
	}
}

// mixinExpressions are all expressions, by where they stand.
func mixinExpressions(t *testing.T) map[string]string {
	t.Helper()
	const dir = "../../deploy/mixin"
	exprs := map[string]string{}
	text, err := os.ReadFile(filepath.Join(dir, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(text, false, model.UTF8Validation)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			exprs[r.Alert] = r.Expr
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "dashboards", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var d struct {
			Panels []struct {
				Title   string
				Targets []struct{ RefID, Expr string }
			}
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		for i, p := range d.Panels {
			for _, target := range p.Targets {
				exprs[filepath.Base(f)+": "+p.Title+" "+target.RefID+string(rune('0'+i%10))+string(rune('0'+i/10))] = target.Expr
			}
		}
	}
	return exprs
}
