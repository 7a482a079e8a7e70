package components

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

// configurationEndpoint answers as a cluster of memcached servers does that is asked for its members; it returns the port.
func configurationEndpoint(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if line, _ := bufio.NewReader(c).ReadString('\n'); line == "config get cluster\r\n" {
				const list = "3\nlocalhost|127.0.0.1|1\n"
				_, _ = fmt.Fprintf(c, "CONFIG cluster 0 %d\r\n%s\r\nEND\r\n", len(list), list)
			}
			_ = c.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A store with a cache exports what is said of this kind of cache from the first scrape on, be the cache's servers there
// or not: the list of what is not exported without it is golden.
func TestStoreCacheMetrics(t *testing.T) {
	port := configurationEndpoint(t)
	scrape := func(flags ...string) []string {
		_, text := get(t, start(t, arguments(t, "store", flags...)...).url(t)+"/metrics")
		return families(text)
	}
	without := scrape()
	for kind, config := range map[string]string{
		"memory":     "{type: IN-MEMORY, config: {max_size: 1MB}}",
		"memcached":  "{type: MEMCACHED, config: {auto_discovery: true, addresses: ['dns+localhost:" + port + "']}}",
		"redis":      "{type: REDIS, config: {addr: '127.0.0.1:1'}}",
		"groupcache": "{type: GROUPCACHE, config: {self_url: 'http://127.0.0.1:1', peers: ['dns+http://localhost:1'], groupcache_group: blocks}}",
	} {
		t.Run(kind, func(t *testing.T) {
			flags := []string{"--store.caching-bucket.config=" + config}
			if kind == "memcached" || kind == "redis" {
				flags = append(flags, "--index-cache.config="+config)
			}
			got := slices.DeleteFunc(scrape(flags...), func(f string) bool { return slices.Contains(without, f) })
			golden(t, "metrics_store_"+kind+".txt", strings.Join(got, "\n")+"\n")
		})
	}
}

// The same of a query frontend.
func TestFrontendCacheMetrics(t *testing.T) {
	scrape := func(flags ...string) []string {
		_, text := get(t, start(t, arguments(t, "query-frontend", flags...)...).url(t)+"/metrics")
		return families(text)
	}
	without := scrape()
	for kind, config := range map[string]string{
		"memcached": "{type: MEMCACHED, config: {addresses: ['127.0.0.1:1'], expiration: 1h}}",
		"redis":     "{type: REDIS, config: {addr: '127.0.0.1:1', expiration: 1h}}",
	} {
		t.Run(kind, func(t *testing.T) {
			got := slices.DeleteFunc(scrape("--query-range.response-cache-config="+config), func(f string) bool { return slices.Contains(without, f) })
			golden(t, "metrics_query-frontend_"+kind+".txt", strings.Join(got, "\n")+"\n")
		})
	}
}
