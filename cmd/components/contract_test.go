package components

import (
	"os"
	"strings"
	"testing"
)

// configured are the flags that bring a cache whose metrics somebody reads, by component and kind.
var configured = map[string]map[string]string{
	"store": {
		"memcached":  "--store.caching-bucket.config={type: MEMCACHED, config: {addresses: ['127.0.0.1:1']}}",
		"groupcache": "--store.caching-bucket.config={type: GROUPCACHE, config: {self_url: 'http://127.0.0.1:1', peers: ['http://127.0.0.1:1'], groupcache_group: blocks}}",
	},
	"query-frontend": {
		"memcached": "--query-range.response-cache-config={type: MEMCACHED, config: {addresses: ['127.0.0.1:1']}}",
	},
}

// Each metric that clients of the image sum, and that therefore has to be there from the first scrape, is: by the
// golden lists, or, where it takes a cache, by a scrape of a process with that cache.
func TestContractMetrics(t *testing.T) {
	b, err := os.ReadFile("testdata/contract.tsv")
	if err != nil {
		t.Fatal(err)
	}
	scraped := map[string]string{}
	exported := func(component, needs string) string {
		key := component + " " + needs
		if text, ok := scraped[key]; ok {
			return text
		}
		if needs == "" {
			list, err := os.ReadFile("testdata/metrics_" + component + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			scraped[key] = "\n" + string(list)
			return scraped[key]
		}
		flag, ok := configured[component][needs]
		if !ok {
			t.Fatalf("%s has no %s", component, needs)
		}
		_, text := get(t, start(t, arguments(t, component, flag)...).url(t)+"/metrics")
		scraped[key] = "\n" + strings.ReplaceAll(text, "# TYPE ", "")
		return scraped[key]
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 3 {
			t.Fatalf("line %q", line)
		}
		if !strings.Contains(exported(f[1], f[2]), "\n"+f[0]+" ") {
			t.Errorf("%s of %s %s is not there at the first scrape", f[0], f[1], f[2])
		}
	}
}
