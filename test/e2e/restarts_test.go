//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// Under load each component of a fleet in which everything is there twice is stopped and started, and killed and started.
// No query fails, each answer is whole and right, and those from the bucket know it.
func TestRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "restarts")
	_, bucket := w.s3()
	prom := pastPrometheus(t, w)
	upload := w.sidecar("past", "--objstore.config-file="+bucket).ready()
	history := past()[0]
	want := prom.ask(history)
	fleet.Eventually(t, "all blocks are uploaded", wait, func() error {
		if n := upload.metric("thanos_shipper_uploads_total"); n != dataset.Blocks {
			return fmt.Errorf("%v are", n)
		}
		return nil
	})
	upload.kill()
	prom.kill()

	var all []*container
	var endpoints []string
	add := func(c *container) *container {
		all, endpoints = append(all, c), append(endpoints, c.Name())
		return c
	}
	for _, name := range []string{"a", "b"} {
		w.prometheus(name, map[string]string{"cluster": "eu", "replica": name}).start().ready()
		add(w.sidecar(name))
		add(w.koios("store-"+name, "store", "--objstore.config-file="+bucket, "--sync-block-duration=1s", "--data-dir=/data"))
	}
	for _, c := range all {
		c.ready()
	}
	var queriers, fronts []*container
	for _, name := range []string{"a", "b"} {
		q := w.query("query-"+name, endpoints).ready()
		q.waitStores(len(endpoints))
		queriers = append(queriers, q)
	}
	for _, name := range []string{"a", "b"} {
		fronts = append(fronts, w.koios("front-"+name, "query-frontend", "--query-frontend.downstream-url=http://"+w.host("query-"+name)+":10902").ready())
	}
	live := question{
		func() answer.Query { return answer.At(`up{job="live"}`, time.Now().Add(-time.Second)) },
		func(a *answer.Answer) error {
			if len(a.Series) != 1 {
				return fmt.Errorf("%d series, warnings %q", len(a.Series), a.Warnings)
			}
			// That one replica held all that the other did is known of blocks, and learnt of others.
			for _, warning := range a.Warnings {
				if !strings.Contains(warning, "sidecar-") {
					return fmt.Errorf("warning %q", warning)
				}
			}
			return nil
		},
	}
	old := question{func() answer.Query { return history }, func(a *answer.Answer) error { return equal(want, a) }}
	// Each querier has both replicas, or there would be none left when one is restarted.
	bothReplicas := func() {
		t.Helper()
		for _, q := range queriers {
			fleet.Eventually(t, "both replicas answer", wait, func() error { return replicas(q, "false", "a", "b") })
		}
	}
	bothReplicas()

	// A balancer stands before the queriers and frontends: who is being restarted gets no new requests.
	l := startLoad(t, append(queriers, fronts...), old, live)
	l.more(t, 4*len(l.servers)) // each has answered both
	restart := func(how string, c *container, end func(), without ...*container) {
		t.Helper()
		l.look(how+" of "+c.Name(), append(without, c)...)
		l.more(t, 2) // those in flight are over, as a balancer waits for
		end()
		c.start().ready()
		for _, q := range queriers {
			q.waitStores(len(endpoints))
		}
		bothReplicas()
		l.look("after the " + how + " of " + c.Name())
		l.more(t, 4)
	}
	for _, c := range all {
		restart("restart", c, c.stop)
		restart("kill", c, c.kill)
	}
	for i, c := range queriers {
		restart("restart", c, c.stop, fronts[i])
		restart("kill", c, c.kill, fronts[i])
	}
	for _, c := range fronts {
		restart("restart", c, c.stop)
		restart("kill", c, c.kill)
	}
	l.endWithoutFailure(t)
}
