package integration

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// ways are the parameters with which each question is put to Koios: both engines, with deduplication (of
// the one replica that there is) and without.
var ways = [][]string{
	{"engine", "prometheus", "dedup", "true"},
	{"engine", "prometheus", "dedup", "false"},
	{"engine", "thanos", "dedup", "true"},
	{"engine", "thanos", "dedup", "false"},
}

// Koios over one sidecar answers what the Prometheus beside that sidecar answers: the same series, times and
// values, once the external labels are taken off that the sidecar adds.
func TestOneSidecarAnswersAsItsPrometheus(t *testing.T) {
	p, _ := prometheusOf(t, "a", dataset.A, dataset.StartTarget(t))
	p.Launch(t)
	query := fleet.StartQuery(t, []*fleet.Component{fleet.StartSidecar(t, p, "").Ready(t)})
	waitStores(t, query, 1)

	t.Run("blocks", func(t *testing.T) {
		for _, q := range questions {
			for i, alone := range q.asked() {
				want := ask(t, p.URL, alone)
				for _, way := range ways {
					asked := q.asked(way...)[i]
					compare(t, q, asked, want, ask(t, query.URL, asked).Without(external("a")))
				}
			}
		}
	})
	t.Run("head", func(t *testing.T) { headIsIdentical(t, p, query) })
	t.Run("named", func(t *testing.T) { namedLabels(t, p, query) })
	t.Run("metadata", func(t *testing.T) { metadataIsIdentical(t, p, query) })
}

// liveQuestions ask about what is being scraped.
var liveQuestions = []question{
	{expr: `up`},
	{expr: `http_requests_total{code!="500"}`},
	{expr: `sum by (method) (rate(http_requests_total[5s]))`},
	{expr: `rpc_duration_seconds`},
	{expr: `histogram_quantile(0.9, rate(rpc_duration_seconds[6s]))`},
	{expr: `histogram_quantile(0.9, sum by (le) (rate(latency_seconds_bucket[6s])))`},
	{expr: `edge`},
	{expr: `{__name__=~"service.requests"}`}, // Targets may be asked to escape names.
	{expr: `scrape_samples_scraped[10s]`, instant: true},
}

// headIsIdentical asks about the last seconds, up to a moment that no scrape can change any more.
func headIsIdentical(t *testing.T, p *fleet.Prometheus, query *fleet.Component) {
	var until time.Time
	fleet.Eventually(t, "ten seconds are scraped", time.Minute, func() error {
		a := ask(t, p.URL, answer.At(`timestamp(up) - 2`, time.Now()))
		n := ask(t, p.URL, answer.At(`count_over_time(up[1m])`, time.Now()))
		if len(a.Series) != 1 || len(n.Series) != 1 || n.Series[0].Points[0].Value < 12 {
			return fmt.Errorf("%v", n)
		}
		until = time.UnixMilli(int64(a.Series[0].Points[0].Value * 1000))
		return nil
	})
	for _, q := range liveQuestions {
		for _, way := range ways {
			at := answer.At(q.expr, until, way...)
			want := ask(t, p.URL, answer.At(q.expr, until))
			if len(want.Series) == 0 {
				t.Errorf("%s is empty", q.expr)
			}
			compare(t, q, at, want, ask(t, query.URL, at).Without(external("a")))
			if q.instant {
				continue
			}
			over := answer.Over(q.expr, until.Add(-8*time.Second), until, time.Second, way...)
			want = ask(t, p.URL, answer.Over(q.expr, over.Start, over.End, over.Step))
			compare(t, q, over, want, ask(t, query.URL, over).Without(external("a")))
		}
	}
}

// namedLabels asks about external labels. Prometheus does not know them, so it is asked the same without,
// and the labels are put to its answer.
func namedLabels(t *testing.T, p *fleet.Prometheus, query *fleet.Component) {
	all := external("a")
	for _, c := range []struct {
		koios, prometheus string
		added             []string
	}{
		{`temperature_celsius{cluster="eu"}`, `temperature_celsius`, []string{"cluster", "prometheus", "replica"}},
		{`temperature_celsius{cluster=~"e.",replica!="b",prometheus!~"x.*"}`, `temperature_celsius`, []string{"cluster", "prometheus", "replica"}},
		{`temperature_celsius{cluster="us"}`, `temperature_celsius{job="none"}`, nil},
		{`temperature_celsius{replica=""}`, `temperature_celsius{job="none"}`, nil},
		{`{replica="a",__name__="state"}`, `state`, []string{"cluster", "prometheus", "replica"}},
		{`sum by (cluster) (rate(http_requests_total[5m]))`, `sum(rate(http_requests_total[5m]))`, []string{"cluster"}},
		{`count by (replica, method) (http_requests_total)`, `count by (method) (http_requests_total)`, []string{"replica"}},
		{`sum without (instance, prometheus, replica) (state)`, `sum without (instance) (state)`, []string{"cluster"}},
		{`absent(state{cluster="us"})`, `vector(1)`, nil},
		{`label_replace(state{replica="a"}, "from", "$1", "cluster", "(.).")`, `label_replace(state, "from", "e", "", "")`, []string{"cluster", "prometheus", "replica"}},
	} {
		for _, way := range [][]string{{"engine", "prometheus", "dedup", "false"}, {"engine", "thanos", "dedup", "false"}} {
			want := ask(t, p.URL, answer.At(c.prometheus, moment))
			for _, s := range want.Series {
				for _, name := range c.added {
					s.Labels[name] = all[name]
				}
			}
			if c.prometheus == `vector(1)` {
				want.Series[0].Labels["cluster"] = "us"
			}
			asked := answer.At(c.koios, moment, way...)
			compare(t, question{expr: c.koios}, asked, want, ask(t, query.URL, asked))
		}
	}
}

// metadataIsIdentical asks for series, label names and label values, in the time of the blocks.
func metadataIsIdentical(t *testing.T, p *fleet.Prometheus, query *fleet.Component) {
	seconds := func(at time.Time) string { return fmt.Sprint(at.Unix()) }
	within := map[string][]string{"start": {seconds(dataset.Start)}, "end": {seconds(dataset.End)}}
	with := func(match ...string) map[string][]string {
		m := maps.Clone(within)
		m["match[]"] = match
		return m
	}
	for _, match := range [][]string{{`http_requests_total{code=~"4.."}`}, {`edge`, `state`, `edge{a="1"}`}, {`{zone!=""}`}, {`nothing`}} {
		var want, got []map[string]string
		call(t, p.URL, "/api/v1/series", with(match...), &want)
		params := with(match...)
		params["dedup"] = []string{"false"}
		call(t, query.URL, "/api/v1/series", params, &got)
		for _, ls := range got {
			for name, value := range external("a") {
				if ls[name] != value {
					t.Errorf("series of %s: label %s is %q, want %q", match, name, ls[name], value)
				}
				delete(ls, name)
			}
		}
		if w, g := text(want), text(got); !slices.Equal(w, g) {
			t.Errorf("series of %s:\n%s\nwant\n%s", match, g, w)
		}
	}

	var want, got []string
	for _, params := range []map[string][]string{within, with(`http_requests_total`), with(`edge{zone="2"}`, `state`)} {
		call(t, p.URL, "/api/v1/labels", params, &want)
		call(t, query.URL, "/api/v1/labels", params, &got)
		want = append(want, "cluster", "prometheus", "replica")
		slices.Sort(want)
		if !slices.Equal(want, got) {
			t.Errorf("label names of %v: %q, want %q", params["match[]"], got, want)
		}
		for _, name := range []string{"__name__", "instance", "zone", "method", "none"} {
			query := query.URL + "/api/v1/label/" + name + "/values?" + encode(params)
			prometheus := p.URL + "/api/v1/label/" + name + "/values?" + encode(params)
			get(t, prometheus, &want)
			get(t, query, &got)
			if !slices.Equal(want, got) {
				t.Errorf("values of %s in %v: %q, want %q", name, params["match[]"], got, want)
			}
		}
	}
	get(t, query.URL+"/api/v1/label/cluster/values?"+encode(within), &got)
	if !slices.Equal(got, []string{"eu"}) {
		t.Errorf("values of an external label: %q", got)
	}
}
