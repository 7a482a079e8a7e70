package components

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"

	"github.com/koios-metrics/koios/pkg/logging"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

func testLogger(t *testing.T, w io.Writer) log.Logger {
	t.Helper()
	l, err := logging.New(w, "debug", "logfmt", "")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// golden compares with a file in testdata, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got), rewrite with -update:\n%s", file, d)
	}
}

// Users read --help: every change of it is seen.
func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	t.Setenv("TMPDIR", "/tmp") // a default is below it
	for _, c := range newCommandLine("koios", io.Discard, All()).commands {
		var stdout, stderr bytes.Buffer
		if code := execute("koios", append(strings.Fields(c.name), "--help"), &stdout, &stderr, All()); code != 0 {
			t.Errorf("%s: code %d %s", c.name, code, stderr.String())
		}
		golden(t, "help_"+strings.ReplaceAll(c.name, " ", "_")+".txt", stdout.String())
	}
}

var typeLine = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)

// families are the metrics of an exposition with their types, those of the runtime left out.
func families(exposition string) (names []string) {
	for _, m := range typeLine.FindAllStringSubmatch(exposition, -1) {
		if !strings.HasPrefix(m[1], "go_") && !strings.HasPrefix(m[1], "process_") {
			names = append(names, m[1]+" "+m[2])
		}
	}
	slices.Sort(names)
	return names
}

// absent are the metrics of the reference table that no component exports at its first scrape, by name
// or by the beginning of names, each with the reason.
var absent = map[string]string{
	"http_request_duration_seconds":                     "a series appears with the first request of a handler",
	"http_request_size_bytes":                           "a series appears with the first request of a handler",
	"http_response_size_bytes":                          "a series appears with the first request of a handler",
	"http_inflight_requests":                            "a series appears with the first request of a handler",
	"grpc_client_*":                                     "a series appears with the first call to an endpoint",
	"thanos_store_api_query_duration_seconds":           "a series appears with the first query",
	"thanos_store_nodes_grpc_connections":               "a series appears with the first endpoint",
	"thanos_query_endpoints_dns_provider_results":       "a series appears with the first DNS name",
	"thanos_query_endpoint_groups_dns_provider_results": "a series appears with the first DNS name",

	"cortex_cache_background_queue_length":         "it appears with a cache in memcached or Redis",
	"cortex_cache_dropped_background_writes_total": "it appears with a cache in memcached or Redis",
	"cortex_memcache_*":                            "it appears with a cache in memcached",
	"cortex_rediscache_*":                          "it appears with a cache in Redis",

	"thanos_store_bucket_cache_*": "it appears with --store.caching-bucket.config",
	"thanos_cache_inmemory_*":     "it appears with --store.caching-bucket.config",
	"thanos_cache_memcached_*":    "it appears with --store.caching-bucket.config",
	"thanos_cache_redis_*":        "it appears with --store.caching-bucket.config",
}

func absence(metric string) (reason string, ok bool) {
	for name, reason := range absent {
		if begin, wild := strings.CutSuffix(name, "*"); name == metric || wild && strings.HasPrefix(metric, begin) {
			return reason, true
		}
	}
	return "", false
}

// Every metric of the reference table that has something to count by now is exported at the first
// scrape, under its name and type; the whole list is golden.
func TestMetricsAtFirstScrape(t *testing.T) {
	reference := referenceMetrics(t)
	for _, name := range []string{"sidecar", "store", "query", "query-frontend", "compact"} {
		t.Run(name, func(t *testing.T) {
			p := start(t, arguments(t, name, metricFlags[name]...)...)
			_, text := get(t, p.url(t)+"/metrics")
			got := families(text)
			golden(t, "metrics_"+name+".txt", strings.Join(got, "\n")+"\n")
			all := map[string]string{}
			for _, m := range typeLine.FindAllStringSubmatch(text, -1) {
				all[m[1]] = m[2]
			}
			for metric, typ := range reference[name] {
				reason, known := absence(metric)
				switch {
				case all[metric] == typ && known:
					t.Errorf("%s is exported, though absent: %s", metric, reason)
				case all[metric] != typ && !known:
					t.Errorf("%s is exported as %q: want %s", metric, all[metric], typ)
				}
			}
		})
	}
}

// metricFlags turn on what has metrics of its own.
var metricFlags = map[string][]string{
	"query-frontend": {
		"--query-range.response-cache-config={type: IN-MEMORY, config: {max_size: 1MB}}",
		"--labels.response-cache-config={type: IN-MEMORY, config: {max_size: 1MB}}",
	},
	"sidecar": {"--reloader.config-file=/dev/null", "--objstore.config={type: FILESYSTEM, config: {directory: .}}"},
}

// referenceMetrics reads testdata/metrics.tsv: name, type, component.
func referenceMetrics(t *testing.T) map[string]map[string]string {
	t.Helper()
	b, err := os.ReadFile("testdata/metrics.tsv")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]map[string]string{"sidecar": {}, "store": {}, "query": {}, "query-frontend": {}, "compact": {}}
	for i, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if i == 0 {
			continue
		}
		f := strings.Split(line, "\t")
		for component := range strings.SplitSeq(f[2], ",") {
			m[component][f[0]] = f[1]
		}
	}
	return m
}
