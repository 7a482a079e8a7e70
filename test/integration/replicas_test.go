package integration

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// selectors pick series that both replicas have at the moment.
var selectors = []string{
	`http_requests_total`,
	`{__name__=~"temperature_celsius|state|build_info"}`,
	`edge`,
	`special`,
	`rpc_duration_seconds`,
	`{"service.requests"}`,
}

// replicasAreOne shows that deduplication makes one series of two replicas, made of their samples only, and
// that without it each replica is there as its Prometheus has it.
func replicasAreOne(t *testing.T, p *pair, query *fleet.Component) {
	for _, engine := range []string{"prometheus", "thanos"} {
		for _, selector := range selectors {
			sameLabels(t, p, query, selector, engine)
			bothReplicas(t, p, query, selector, engine)
		}
	}
	onlyTrueSamples(t, p, query)
	gapsAreFilled(t, query)
}

// sameLabels: with deduplication there is one series where each replica had one, without the replica label.
func sameLabels(t *testing.T, p *pair, query *fleet.Component, selector, engine string) {
	want := ask(t, p.a.URL, answer.At(selector, moment))
	for _, s := range want.Series {
		s.Labels["cluster"], s.Labels["prometheus"] = "eu", "team/main"
	}
	got := ask(t, query.URL, answer.At(selector, moment, "engine", engine, "dedup", "true"))
	if w, g := text(labelsOf(want)), text(labelsOf(got)); !slices.Equal(w, g) {
		t.Errorf("%s with %s, deduplicated: %d series\n%s\nwant %d\n%s", selector, engine, len(g), g, len(w), w)
	}
}

// bothReplicas: without deduplication there are two series for each, told apart by the replica label, and
// each answers as its own Prometheus does.
func bothReplicas(t *testing.T, p *pair, query *fleet.Component, selector, engine string) {
	for i, asked := range (question{expr: selector}).asked("engine", engine, "dedup", "false") {
		got := ask(t, query.URL, asked)
		alone := (question{expr: selector}).asked()[i]
		for replica, prom := range map[string]*fleet.Prometheus{"a": p.a, "b": p.b} {
			part := &answer.Answer{Type: got.Type}
			for _, s := range got.Series {
				if s.Labels["replica"] == replica {
					s.Labels = maps.Clone(s.Labels)
					part.Series = append(part.Series, s)
				}
			}
			compare(t, question{expr: selector + " of " + replica}, asked, ask(t, prom.URL, alone), part.Without(external(replica)))
		}
	}
}

// onlyTrueSamples: a deduplicated series holds samples that one of the replicas has, in order of time, each
// once.
func onlyTrueSamples(t *testing.T, p *pair, query *fleet.Component) {
	for _, selector := range []string{`http_requests_total[6h]`, `temperature_celsius[6h]`, `visitor[6h]`} {
		at := dataset.End.Add(-time.Second)
		known := map[string]map[int64]float64{}
		for _, prom := range []*fleet.Prometheus{p.a, p.b} {
			for _, s := range ask(t, prom.URL, answer.At(selector, at)).Series {
				key := text([]map[string]string{s.Labels})[0]
				if known[key] == nil {
					known[key] = map[int64]float64{}
				}
				for _, point := range s.Points {
					known[key][point.Millis] = point.Value
				}
			}
		}
		got := ask(t, query.URL, answer.At(selector, at)).Without(external("a"))
		if len(got.Series) != len(known) {
			t.Errorf("%s: %d series, want %d", selector, len(got.Series), len(known))
		}
		for _, s := range got.Series {
			samples, last := known[text([]map[string]string{s.Labels})[0]], int64(0)
			for _, point := range s.Points {
				if v, ok := samples[point.Millis]; !ok || v != point.Value {
					t.Errorf("%s: %v has %v at %d, which no replica has", selector, s.Labels, point.Value, point.Millis)
					break
				}
				if point.Millis <= last {
					t.Errorf("%s: %v goes back in time at %d", selector, s.Labels, point.Millis)
					break
				}
				last = point.Millis
			}
		}
	}
}

// gapsAreFilled: where one replica was away the other one answers, and counters don't jump at the change:
// they are reset as often as the data says.
func gapsAreFilled(t *testing.T, query *fleet.Component) {
	from, to := dataset.Start.Add(10*time.Minute), dataset.End.Add(-10*time.Minute)
	got := ask(t, query.URL, answer.Over(`min(count_over_time(temperature_celsius[2m]))`, from, to, time.Minute))
	if len(got.Series) != 1 || len(got.Series[0].Points) != int(to.Sub(from)/time.Minute)+1 {
		t.Fatalf("a hole in the deduplicated series: %+v", got.Series)
	}
	for _, point := range got.Series[0].Points {
		// Eight samples lie in two minutes; a change between replicas may cost a few of them.
		if point.Value < 3 {
			t.Errorf("%v samples in two minutes at %d", point.Value, point.Millis)
		}
	}
	// Instance 1 starts again after 97, 194, 291 minutes.
	got = ask(t, query.URL, answer.At(`resets(http_requests_total{instance="10.0.0.1:9100"}[6h])`, dataset.End))
	for _, s := range got.Series {
		if s.Points[0].Value != 3 {
			t.Errorf("%v: %v resets, want 3", s.Labels, s.Points[0].Value)
		}
	}
	if len(got.Series) != 9 {
		t.Errorf("%d series, want 9", len(got.Series))
	}
}

func labelsOf(a *answer.Answer) []map[string]string {
	var lss []map[string]string
	for _, s := range a.Series {
		lss = append(lss, s.Labels)
	}
	return lss
}
