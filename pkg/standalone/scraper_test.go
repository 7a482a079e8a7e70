package standalone

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"go.uber.org/goleak"
)

// eventually calls f until it is true, and fails the test when that takes too long.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// jobs returns the values of the label job among the series with a metric name.
func jobs(t *testing.T, db *tsdb.DB, name string) string {
	t.Helper()
	q, err := db.Querier(0, time.Now().Add(time.Hour).UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	values, _, err := q.LabelValues(t.Context(), "job", nil, labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(values, " ")
}

// Targets named in the configuration and in a file that it names are scraped into the TSDB; a change of
// the file and of the configuration is followed; nothing is left running at the end.
func TestScraper(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "shown 1")
	}))
	defer target.Close()
	defer http.DefaultClient.CloseIdleConnections()
	host := strings.TrimPrefix(target.URL, "http://")

	dir := t.TempDir()
	file := filepath.Join(dir, "targets.json")
	parse := func(job string) string {
		return fmt.Sprintf(`
global: {scrape_interval: 100ms, scrape_timeout: 100ms}
scrape_configs:
- {job_name: %s, static_configs: [{targets: [%q]}]}
- {job_name: filed, file_sd_configs: [{files: [targets.json]}]}
`, job, host)
	}
	db, err := openDatabase(databaseConfig{dir: filepath.Join(dir, "tsdb"), block: 2 * time.Hour, served: nobody}, log.NewNopLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := newScraper(db, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	apply := func(job string) {
		t.Helper()
		cfg, err := parseScrapeFile([]byte(parse(job)), dir, log.NewNopLogger())
		if err == nil {
			err = s.apply(cfg)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	apply("first")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()

	eventually(t, "the static target is scraped", func() bool { return jobs(t, db, "shown") == "first" })
	if err := os.WriteFile(file, []byte(fmt.Sprintf(`[{"targets": [%q]}]`, host)), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the target in the file is scraped", func() bool { return jobs(t, db, "shown") == "filed first" })
	apply("second")
	eventually(t, "the new configuration is followed", func() bool { return jobs(t, db, "shown") == "filed first second" })

	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
