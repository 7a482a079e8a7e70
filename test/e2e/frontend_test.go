//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/fleet"
)

// A frontend with memcached and one with Redis answer as the querier behind them does, the second time from the cache, and
// still when the cache has died.
func TestFrontend(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "frontend")
	pastPrometheus(t, w)
	w.sidecar("past").ready()
	query := w.query("query", []string{"sidecar-past"}).ready()
	query.waitStores(1)
	caches := map[string]*container{
		"memcached": w.container("memcached", memcachedImage.name, options{}, "-m", "64", "-l", "0.0.0.0").start(),
		"redis":     w.container("redis", redisImage.name, options{}, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--port", "6379").start(),
	}
	configs := map[string]string{
		"memcached": "type: MEMCACHED\nconfig: {addresses: ['" + w.host("memcached") + ":11211'], timeout: 1s}\n",
		"redis":     "type: REDIS\nconfig: {addr: '" + w.host("redis") + ":6379'}\n",
	}
	var ranges []answer.Query
	for _, q := range past() {
		if q.Step > 0 {
			ranges = append(ranges, q)
		}
	}
	for name, config := range configs {
		front := w.koios("front-"+name, "query-frontend", "--query-frontend.downstream-url=http://"+w.host("query")+":10902",
			"--query-range.split-interval=1h", "--query-range.response-cache-config="+config).ready()
		same := func(when string) {
			t.Helper()
			for _, q := range ranges {
				if d := answer.Diff(query.ask(q), front.ask(q), false); d != "" {
					t.Errorf("%s, %s: %s:\n%s", name, when, q.Expr, d)
				}
			}
		}
		same("first")
		// What was answered is written behind the answer.
		fleet.Eventually(t, "answers come from "+name, wait, func() error {
			same("again")
			if hits := front.metric("cortex_cache_hits_total"); hits == 0 {
				return fmt.Errorf("no hit; %v fetched", front.metric("cortex_cache_fetched_keys_total"))
			}
			return nil
		})
		caches[name].kill()
		same("without " + strings.ToUpper(name[:1]) + name[1:])
	}
}
