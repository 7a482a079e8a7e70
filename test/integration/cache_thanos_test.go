//go:build compat

package integration

import (
	"fmt"
	"net"
	"os/exec"
	"os/user"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/dataset"
	"github.com/koios-metrics/koios/test/fleet"
)

// A store of Koios's and one of Thanos's over the same blocks keep what they read in one memcached, as they do while
// one takes the other's place: both find what they kept, and both answer right, the first time and the second.
func TestSharedCacheBesideThanos(t *testing.T) {
	path, err := exec.LookPath("memcached")
	if err != nil {
		t.Fatal("memcached is needed to test with: install it, for example with apt-get install memcached")
	}
	addr := fleet.FreeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	args := []string{"-l", "127.0.0.1", "-p", port, "-U", "0", "-m", "64"}
	if u, err := user.Current(); err == nil && u.Uid == "0" {
		args = append(args, "-u", "root")
	}
	fleet.Start(t, "memcached", path, args...)
	fleet.Eventually(t, "memcached listens", time.Minute, func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
	config := fmt.Sprintf("{type: MEMCACHED, config: {addresses: [%q], timeout: 5s, dns_provider_update_interval: 1s, max_async_concurrency: 20, max_get_multi_concurrency: 50}}", addr)
	flags := []string{"--index-cache.config=" + config, "--store.caching-bucket.config=" + config}

	dir := t.TempDir()
	if _, err := dataset.WriteBlocks(t.Context(), dir, dataset.A); err != nil {
		t.Fatal(err)
	}
	p := fleet.StartPrometheus(t, fleet.PrometheusConfig{Name: "prometheus", Dir: dir, ExternalLabels: []string{"cluster", "eu", "replica", "a"}})
	koios, thanos, plain := leaves(t, startKoios, p, flags...), leaves(t, startThanos, p, flags...), leaves(t, startThanos, p)
	control := querier(t, startThanos, plain...)
	ours, theirs := querier(t, startKoios, koios...), querier(t, startThanos, thanos...)
	for range 2 {
		for _, question := range questions {
			for _, query := range question.asked("dedup", "false") {
				compareAt(t, query, question.ordered, p.URL, ours.URL)
				compareAt(t, query, question.ordered, control.URL, theirs.URL)
			}
		}
	}
	for whose, store := range map[string]*fleet.Component{"Koios": koios[1], "Thanos": thanos[1]} {
		for _, name := range []string{"thanos_store_index_cache_hits_total", "thanos_store_bucket_cache_operation_hits_total"} {
			n, _ := store.Metric(t, name)
			t.Logf("%s: %s is %v", whose, name, n)
			if n == 0 {
				t.Errorf("%s found nothing in the cache: %s", whose, name)
			}
		}
	}
}
