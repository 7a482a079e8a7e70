package query

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// mall is shop with what only routes need: a series that goes on under another label, values that don't add up
// exactly, and two metrics with the same labels.
func mall() []storetest.Input {
	ins := append(shop(), storetest.Input{Labels: labels.FromStrings("__name__", "mixed", "job", "api")})
	for i := range int64(240) {
		s := storetest.Sample{T: base + i*step, V: float64(i)}
		if i/40%2 == 0 {
			s.H = shop()[0].Samples[0].H
			for _, in := range shop() {
				if in.Labels.Get("kind") == "int" {
					s.H = in.Samples[i].H
				}
			}
		}
		ins[len(ins)-1].Samples = append(ins[len(ins)-1].Samples, s)
	}
	add := func(from, to int64, f func(i int64) float64, ls ...string) {
		in := storetest.Input{Labels: labels.FromStrings(ls...)}
		for i := from; i < to; i++ {
			in.Samples = append(in.Samples, storetest.Sample{T: base + i*step, V: f(i)})
		}
		ins = append(ins, in)
	}
	add(0, 120, func(i int64) float64 { return float64(i) }, "__name__", "moved", "pod", "a")
	add(140, 240, func(i int64) float64 { return float64(i) }, "__name__", "moved", "pod", "b")
	for n := range 40 {
		add(0, 240, func(i int64) float64 { return 0.1 + float64(n)/7 + 1e15*float64(1-n%2*2)*float64(i%5) }, "__name__", "uneven", "n", fmt.Sprint(n))
	}
	add(0, 240, func(i int64) float64 { return float64(i) }, "__name__", "twin_a", "job", "api")
	add(0, 240, func(i int64) float64 { return float64(-i) }, "__name__", "twin_b", "job", "api")
	add(0, 240, func(i int64) float64 { return float64(2 * i) }, "__name__", "factor", "job", "api")
	return sortedInputs(ins)
}

// Shows for each route that EngineThanos, left to itself, still answers one of the queries in another way than
// Prometheus (a row that fails here can go), and that none of them is answered so with the routes; that they
// are counted, and explained where they show before there is data.
func TestRoutes(t *testing.T) {
	parser.EnableExtendedRangeSelectors = true
	defer func() { parser.EnableExtendedRangeSelectors = false }()
	st := storetest.New(storetest.Data{Series: mall()})
	q, _ := streamQuerier(t, st, Config{Engine: EngineThanos})
	stock := newQuerier(t, st, Config{Engine: EngineThanos, DisableFallback: true})
	fixed := float64(base+30*60_000) / 1000
	queries := map[*route][]string{
		&routeSelectors:  {`increase(requests_total[5m] anchored)`, `rate(requests_total[5m] smoothed)`, `temperature smoothed`},
		&routeTimestamp:  {`timestamp(abs(temperature)) % 1`, `timestamp(-temperature) % 1`, `timestamp(sum by (job) (temperature)) % 1`},
		&routePrediction: {fmt.Sprintf(`predict_linear(temperature[5m] @ %f, 60)`, fixed), `predict_linear(temperature[5m:30s] @ end(), 60)`},
		&routeQuantile:   {`histogram_quantile(1.5, latency_bucket{le="1"})`, `histogram_quantile(-1, latency_bucket{le="1"})`},
		&routeCountValues: {
			`count_values("v", avg_over_time(temperature[5m]))`, `count_values("v", stddev_over_time(temperature[5m]))`, `count_values("v", avg_over_time(uneven[7m]))`,
		},
		&routeHistograms: {`mixed`, `sort(native)`, `rate(mixed[5m])`, `timestamp(native)`, `count_over_time(mixed[10m])`},
		&routeTwice:      {`{__name__=~"twin_.", job="api"} * on (job) group_left () factor`, `sum(factor == bool on (job) group_right () (twin_a or (twin_b - 0)))`},
		&routeError:      {`label_replace(moved, "pod", "c", "pod", ".*")`},
		&routeUnsupported: {
			`quantile_over_time(scalar(up), temperature[3m])`,
		},
	}
	for _, r := range routes() {
		if r == &routeSubqueryStats { // It is a race; TestStats is about it.
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			wrong := 0
			for _, expr := range queries[r] {
				for _, req := range []Request{
					{Start: time.UnixMilli(base + 20*60_000 + 7), End: time.UnixMilli(base + 50*60_000), Step: 71 * time.Second},
					{Start: time.UnixMilli(base + 25*60_000 + 7), End: time.UnixMilli(base + 25*60_000 + 7)},
				} {
					req.Expr = expr
					before := testutil.ToFloat64(q.metrics.fallbacks.WithLabelValues(r.name))
					got, gotErr := q.Exec(t.Context(), req)
					plan, explainErr := q.Explain(t.Context(), req)
					asIs, asIsErr := stock.Exec(t.Context(), req)
					req.Engine = EnginePrometheus
					want, wantErr := q.Exec(t.Context(), req)

					if (gotErr != nil) != (wantErr != nil) {
						t.Fatalf("%s: error %v, want %v", expr, gotErr, wantErr)
					}
					if gotErr == nil {
						if d := differ(got.Value, want.Value); d != "" {
							t.Errorf("%s: %s", expr, d)
						}
						counted := testutil.ToFloat64(q.metrics.fallbacks.WithLabelValues(r.name)) - before
						if (got.Engine == EnginePrometheus) != (counted == 1) || r.wants != nil && counted != 1 {
							t.Errorf("%s: evaluated by %s, %v counted", expr, got.Engine, counted)
						}
					}
					if r.wants != nil && (explainErr != nil || !strings.Contains(plan.OperatorName, r.name)) {
						t.Errorf("%s: explained as %v (%v)", expr, plan, explainErr)
					}
					if (asIsErr != nil) != (wantErr != nil) || asIsErr == nil && differ(asIs.Value, want.Value) != "" {
						wrong++
					}
					for _, res := range []*Result{got, asIs, want} {
						if res != nil {
							res.Close()
						}
					}
				}
			}
			if wrong == 0 {
				t.Errorf("promql-engine answers all of %q as Prometheus does: the route can go", queries[r])
			}
			if used := q.chunkBytes.Used(); used != 0 {
				t.Errorf("%d bytes are still in use", used)
			}
		})
	}
}

// Shows that common queries are not routed away from the fast engine.
func TestUnrouted(t *testing.T) {
	q := newQuerier(t, storetest.New(storetest.Data{Series: mall()}), Config{Engine: EngineThanos})
	for _, expr := range []string{
		`sum by (job) (rate(requests_total[5m]))`, `histogram_quantile(0.99, sum by (le) (rate(latency_bucket[5m])))`, `topk(5, requests_total)`,
		`time() - timestamp(up)`, `count_values("v", up)`, `predict_linear(temperature[5m], 3600)`, `label_replace(up, "a", "$1", "job", "(.*)")`,
		`requests_total / on (job) group_left () sum by (job) (requests_total)`,
	} {
		res, err := q.Exec(t.Context(), Request{Expr: expr, Start: time.UnixMilli(base + 20*60_000), End: time.UnixMilli(base + 30*60_000), Step: time.Minute})
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if res.Engine != EngineThanos {
			t.Errorf("%s went to %s: %s", expr, res.Engine, res.evaluation.why)
		}
		res.Close()
	}
}

// Shows that a selector which was found to select native histograms goes to Prometheus's engine at once, for an hour.
func TestHistogramsAreNoted(t *testing.T) {
	q := newQuerier(t, storetest.New(storetest.Data{Series: mall()}), Config{Engine: EngineThanos})
	req := Request{Expr: `sum(rate(native{kind="int"}[5m]))`, Start: time.UnixMilli(base + 20*60_000)}
	for i, wantPlan := range []string{"[prometheus] native_histograms", "[prometheus] native_histograms", "[duplicateLabelCheck]"} {
		res, err := q.Exec(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if res.Engine != EnginePrometheus {
			t.Errorf("round %d: evaluated by %s", i, res.Engine)
		}
		res.Close()
		if i == 2 {
			for k := range q.histograms.found {
				q.histograms.found[k] = time.Now().Add(-2 * notesAge)
			}
		}
		plan, err := q.Explain(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if i < 2 != strings.HasPrefix(plan.OperatorName, wantPlan) && i < 2 {
			t.Errorf("round %d: explained as %q, want %q", i, plan.OperatorName, wantPlan)
		}
		if i == 2 && strings.HasPrefix(plan.OperatorName, "[prometheus]") {
			t.Errorf("the note is too old, and still explained as %q", plan.OperatorName)
		}
	}
}

// Shows when series may differ in their names alone.
func TestSeveralNames(t *testing.T) {
	f := func(expr string, want bool) {
		t.Helper()
		e, err := parser.ParseExpr(expr)
		if err != nil {
			t.Fatal(err)
		}
		if got := severalNames(e); got != want {
			t.Errorf("%s: got %v, want %v", expr, got, want)
		}
	}
	f(`a`, false)
	f(`{__name__="a", b="c"}`, false)
	f(`{__name__=~"a|b"}`, true)
	f(`({job="a"})`, true)
	f(`a or b`, true)
	f(`rate(a[5m]) or rate(b[5m])`, false)
	f(`a or rate(b[5m])`, true)
	f(`{job="a"} and b`, true)
	f(`a > b`, false)
	f(`{job="a"} > 1`, true)
	f(`{job="a"} > bool 1`, false)
	f(`{job="a"} * 2`, false)
	f(`-{job="a"}`, false)
	f(`sum by (job) ({job="a"})`, false)
	f(`sum by (__name__) ({job="a"})`, true)
	f(`sum without (__name__) ({job="a"})`, false)
	f(`topk(3, {job="a"})`, true)
	f(`topk(3, a)`, false)
	f(`rate({job="a"}[5m])`, false)
	f(`last_over_time({job="a"}[5m])`, true)
	f(`last_over_time({job="a"}[5m:1m] @ end())`, true)
	f(`label_replace(a, "__name__", "$1", "b", "(.*)")`, true)
	f(`label_replace(a, "x", "$1", "b", "(.*)")`, false)
	f(`vector(1)`, false)
}

// Shows that native histograms are counted where they are streamed, beside floats and in series that are both, with
// and without staleness markers; and that a note of them does not change that.
func TestHistogramsAreCounted(t *testing.T) {
	ins := mall()
	for _, in := range shop() {
		if in.Labels.Get("kind") == "float" {
			ended := storetest.Input{Labels: labels.FromStrings("__name__", "ended", "job", "api"), Samples: slices.Clone(in.Samples[:100])}
			marker := *ended.Samples[99].FH
			marker.Sum = math.Float64frombits(value.StaleNaN)
			ended.Samples[99].FH = &marker
			ins = append(ins, ended)
		}
	}
	q := newQuerier(t, storetest.New(storetest.Data{Series: sortedInputs(ins)}), Config{})
	req := Request{Start: time.UnixMilli(base + 7), End: time.UnixMilli(base + 65*60_000), Step: 71 * time.Second}
	for _, expr := range []string{
		`count by (__name__) ({__name__=~".+"})`, `group by (__name__) ({__name__=~".+"})`, `count(native)`, `count by (job) (mixed)`, `count(ended)`,
		`max(count by (__name__) ({__name__=~"native|mixed|up"}))`,
	} {
		for range 2 {
			req.Expr, req.Engine = expr, EngineThanos
			got, err := q.Exec(t.Context(), req)
			if err != nil {
				t.Fatalf("%s: %v", expr, err)
			}
			if got.Engine != EngineThanos {
				t.Errorf("%s: evaluated by %s", expr, got.Engine)
			}
			req.Engine = EnginePrometheus
			want, err := q.Exec(t.Context(), req)
			if err != nil {
				t.Fatalf("%s: %v", expr, err)
			}
			if d := disagree(got.Value, want.Value); d != "" || len(seriesOf(want.Value)) == 0 {
				t.Errorf("%s: %s", expr, d)
			}
			got.Close()
			want.Close()
			q.histograms.add([]*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")})
			q.histograms.add([]*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "native")})
		}
	}
}

// Shows which shapes that dashboards ask are streamed, and how many aggregations of each.
func TestStreamedShapes(t *testing.T) {
	q := newQuerier(t, storetest.New(storetest.Data{Series: mall()}), Config{})
	f := func(expr string, want int) {
		t.Helper()
		plan, err := q.Explain(t.Context(), Request{Expr: expr, Start: time.UnixMilli(base + 20*60_000), End: time.UnixMilli(base + 50*60_000), Step: time.Minute})
		if err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		var count func(p *Plan) int
		count = func(p *Plan) (n int) {
			if strings.HasPrefix(p.OperatorName, "[streamedAggregate]") {
				n++
			}
			for i := range p.Children {
				n += count(&p.Children[i])
			}
			return n
		}
		if got := count(plan); got != want {
			t.Errorf("%s: %d streamed aggregations, want %d", expr, got, want)
		}
	}
	f(`histogram_quantile(0.99, sum by (le) (rate(latency_bucket[5m])))`, 1)
	f(`histogram_quantile(0.99, sum by (le, job) (rate(latency_bucket{job=~"a|b"}[5m])))`, 1)
	f(`sum(rate(requests_total{code=~"5.."}[5m])) / sum(rate(requests_total[5m]))`, 2)
	f(`sum by (job) (rate(requests_total{code=~"5.."}[5m])) / on (job) group_left () sum by (job) (rate(requests_total[5m]))`, 2)
	f(`topk(5, sum by (job) (rate(requests_total[5m])))`, 1)
	f(`sort_desc(sum by (job) (up))`, 1)
	f(`sum by (job) (up)`, 1)
	f(`count by (__name__) ({__name__=~".+"})`, 1)
	f(`count(count by (job) (up))`, 1)
	f(`avg by (job) (max_over_time(temperature[5m]))`, 1)
	f(`sum(increase(requests_total[1h])) or vector(0)`, 1)
	f(`100 * (1 - avg by (job) (rate(requests_total{code="200"}[5m])))`, 1)
	f(`max_over_time(sum(rate(requests_total[1m]))[10m:1m])`, 1)
	f(`label_replace(sum by (job) (up), "a", "$1", "job", "(.*)")`, 1)
	f(`sum(up @ end())`, 1)
	f(`absent(sum(nothing))`, 1)
	f(`count(up == 0)`, 1)
	f(`sum(1 - up)`, 1)
	f(`sum by (job) ((rate(requests_total[5m]) > 0) * 60)`, 1)
	// These hold series.
	f(`max_over_time(temperature[5m])`, 0)
	f(`topk(5, temperature)`, 0)
	f(`quantile(0.9, temperature)`, 0)
	f(`topk(5, rate(requests_total[5m]))`, 0)
	f(`sum(abs(temperature))`, 0)
	f(`sum(requests_total * on (job) group_left () factor)`, 0)
}
