package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// A sidecar starts before its Prometheus does, says that it is not ready, and gets ready when Prometheus
// comes; it follows when Prometheus goes and comes again. The querier tells what is missing meanwhile.
func TestSidecarFollowsPrometheus(t *testing.T) {
	p, _ := prometheusOf(t, "a", dataset.A)
	side := fleet.StartSidecar(t, p, "")
	ready := func(want int) {
		t.Helper()
		fleet.Eventually(t, fmt.Sprintf("readiness is %d", want), time.Minute, func() error {
			if got := side.Status(t); got != want {
				return fmt.Errorf("it is %d", got)
			}
			return nil
		})
	}
	ready(http.StatusServiceUnavailable)
	if status, _ := fleet.Get(t.Context(), side.URL+"/-/healthy"); status != http.StatusOK {
		t.Errorf("the sidecar is not healthy without Prometheus: %d", status)
	}
	p.Launch(t)
	ready(http.StatusOK)
	query := fleet.StartQuery(t, []*fleet.Component{side}, "--store.response-timeout=5s")
	waitStores(t, query, 1)
	state := answer.At(`state`, moment)
	if n := len(ask(t, query.URL, state).Series); n != 3 {
		t.Errorf("%d series, want 3", n)
	}

	p.Stop(t)
	ready(http.StatusServiceUnavailable)
	if up, ok := side.Metric(t, "thanos_sidecar_prometheus_up"); up != 0 || !ok {
		t.Errorf("thanos_sidecar_prometheus_up is %v (%v), want 0", up, ok)
	}
	hole(t, query, state)

	p.Restart(t)
	p.Ready(t)
	ready(http.StatusOK)
	fleet.Eventually(t, "the querier answers again", time.Minute, func() error {
		a, err := answer.Ask(t.Context(), query.URL, state)
		if err == nil && (len(a.Series) != 3 || len(a.Warnings) != 0) {
			err = fmt.Errorf("%d series, warnings %q", len(a.Series), a.Warnings)
		}
		return err
	})
}

// hole shows that an answer with a hole says so, and that without partial response there is none.
func hole(t *testing.T, query *fleet.Component, q answer.Query) {
	t.Helper()
	a := ask(t, query.URL, q)
	if len(a.Series) != 0 || len(a.Warnings) == 0 || !strings.Contains(strings.Join(a.Warnings, " "), "eu") {
		t.Errorf("with Prometheus down: %d series, warnings %q", len(a.Series), a.Warnings)
	}
	q.Params = map[string][]string{"partial_response": {"false"}}
	if a, err := answer.Ask(t.Context(), query.URL, q); err == nil {
		t.Errorf("with Prometheus down and no partial response: %d series, want an error", len(a.Series))
	}
}
