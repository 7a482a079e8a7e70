//go:build e2e

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/fleet"
)

// Two Prometheus servers scrape the same target. A querier over their sidecars shows each series once, both replicas
// when it is told to, and goes on when one replica is killed.
func TestPair(t *testing.T) {
	w := newWorld(t, "pair")
	sidecars := map[string]*container{}
	for _, name := range []string{"a", "b"} {
		w.prometheus(name, map[string]string{"cluster": "eu", "replica": name}).start().ready()
		sidecars[name] = w.sidecar(name).ready()
	}
	query := w.query("query", []string{"sidecar-a", "sidecar-b"}).ready()
	query.waitStores(2)

	series := func(dedup string) *answer.Answer {
		return query.ask(answer.At(`up{job="live"}`, time.Now(), "dedup", dedup))
	}
	fleet.Eventually(t, "both replicas have samples", wait, func() error {
		if n := len(series("false").Series); n != 2 {
			return fmt.Errorf("%d series", n)
		}
		return nil
	})
	one := series("true")
	if len(one.Series) != 1 || one.Series[0].Labels["replica"] != "" || one.Series[0].Labels["cluster"] != "eu" {
		t.Fatalf("deduplicated: %+v", one.Series)
	}
	sidecars["a"].kill()
	fleet.Eventually(t, "one replica answers alone", wait, func() error {
		a := series("true")
		if len(a.Series) != 1 {
			return fmt.Errorf("%d series", len(a.Series))
		}
		return nil
	})
}
