//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/fleet"
)

// Two Prometheus servers scrape the same target. A querier over their sidecars shows each series once, both replicas
// when it is told to, and goes on when one replica is killed. So does a querier over that querier, and one over both of
// them, which meets each replica twice.
func TestPair(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "pair")
	sidecars := map[string]*container{}
	for _, name := range []string{"a", "b"} {
		w.prometheus(name, map[string]string{"cluster": "eu", "replica": name}).start().ready()
		sidecars[name] = w.sidecar(name).ready()
	}
	query := w.query("query", []string{"sidecar-a", "sidecar-b"}).ready()
	query.waitStores(2)

	second := w.query("second", []string{"query"}).ready()
	second.waitStores(1)
	third := w.query("third", []string{"second", "query"}).ready()
	third.waitStores(2)

	for _, q := range []*container{query, second, third} {
		fleet.Eventually(t, q.Name()+" has samples of both replicas", wait, func() error { return replicas(q, "false", "a", "b") })
		if err := replicas(q, "true", ""); err != nil {
			t.Errorf("%s, deduplicated: %v", q.Name(), err)
		}
	}
	sidecars["a"].kill()
	for _, q := range []*container{query, second, third} {
		fleet.Eventually(t, q.Name()+" goes on with one replica", wait, func() error { return replicas(q, "true", "") })
	}
}

// replicas checks that a querier shows one series for each of the values of the replica label.
func replicas(q *container, dedup string, want ...string) error {
	a := q.ask(answer.At(`up{job="live"}`, time.Now(), "dedup", dedup))
	var seen []string
	for _, s := range a.Series {
		if s.Labels["cluster"] != "eu" {
			return fmt.Errorf("labels %v", s.Labels)
		}
		seen = append(seen, s.Labels["replica"])
	}
	slices.Sort(seen)
	if !slices.Equal(seen, want) {
		return fmt.Errorf("replicas %q, want %q", seen, want)
	}
	return nil
}
