package standalone

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/prometheus/config"
)

// A prometheus.yml is read for what it says about scraping; the rest is named in a warning.
func TestParseScrapeFile(t *testing.T) {
	var logged bytes.Buffer
	cfg, err := parseScrapeFile([]byte(`
global:
  scrape_interval: 7s
  external_labels: {region: eu, replica: "0"}
rule_files: [rules.yml]
alerting:
  alertmanagers:
  - kubernetes_sd_configs: [{role: pod}]
remote_write: [{url: "http://localhost/write"}]
scrape_configs:
- job_name: node
  static_configs: [{targets: ["localhost:9100"], labels: {answer: "yes"}}]
- job_name: found
  file_sd_configs: [{files: ["targets/*.json"]}]
  dns_sd_configs: [{names: ["example.com"], type: A, port: 80}]
  http_sd_configs: [{url: "http://localhost/targets"}]
`), "/etc/koios", log.NewLogfmtLogger(&logged))
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.GlobalConfig.ExternalLabels.String(); got != `{region="eu", replica="0"}` {
		t.Errorf("external labels %s", got)
	}
	scs, err := cfg.GetScrapeConfigs()
	if err != nil {
		t.Fatal(err)
	}
	if len(scs) != 2 || scs[0].ScrapeInterval.String() != "7s" || len(scs[1].ServiceDiscoveryConfigs) != 3 {
		t.Errorf("scrape configs %+v", scs)
	}
	for _, section := range []string{"rule_files", "alerting", "remote_write"} {
		if !strings.Contains(logged.String(), "section="+section) {
			t.Errorf("no warning about %s in %s", section, logged.String())
		}
	}
}

// Every mistake is answered with words that name it.
func TestScrapeFileMistakes(t *testing.T) {
	f := func(yaml, want string) {
		t.Helper()
		_, err := parseScrapeFile([]byte(yaml), ".", log.NewNopLogger())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	f("scrape_configs: [", "yaml")
	f("scrape_configs: 5", "cannot unmarshal")
	f("scrap_configs: []", "scrap_configs not found")
	f("rule_files: []\nscrap_configs: []", "scrap_configs not found")
	f("scrape_configs: [{job_name: a}, {job_name: a}]", "multiple scrape configs")
	f("scrape_configs: [{job_name: pods, kubernetes_sd_configs: [{role: pod}]}]", "job pods uses kubernetes_sd_configs")
	f("global: {scrape_interval: soon}", "duration")
	f("scrape_config_files: [\"[\"]", "pattern")

	if _, err := loadScrapeFile("no/such/file.yml", log.NewNopLogger()); err == nil || !strings.Contains(err.Error(), "no/such/file.yml") {
		t.Errorf("error %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "more.yml"), []byte("scrape_configs: [{job_name: vms, ec2_sd_configs: [{region: eu}]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := parseScrapeFile([]byte("scrape_config_files: [\"*.yml\"]"), dir, log.NewNopLogger())
	if err == nil || !strings.Contains(err.Error(), "ec2_sd_configs") || !strings.Contains(err.Error(), "more.yml") {
		t.Errorf("error %v", err)
	}
}

// Without a file Koios scrapes its own page, on an address that can be connected to.
func TestSelfScrape(t *testing.T) {
	for addr, want := range map[string]string{
		"0.0.0.0:10902":   "localhost:10902",
		":10902":          "localhost:10902",
		"[::]:10902":      "localhost:10902",
		"127.0.0.1:10902": "127.0.0.1:10902",
		"example.com:80":  "example.com:80",
	} {
		cfg, err := selfScrape(addr, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if got := firstTarget(t, cfg); got != want {
			t.Errorf("%s is scraped at %s, want %s", addr, got, want)
		}
		if got := cfg.GlobalConfig.ExternalLabels.String(); got != `{koios="standalone"}` {
			t.Errorf("external labels %s", got)
		}
	}
	if _, err := selfScrape("10902", 5*time.Second); err == nil {
		t.Error("an address without a port is taken")
	}
}

func firstTarget(t *testing.T, cfg *config.Config) string {
	t.Helper()
	_, after, _ := strings.Cut(cfg.String(), "targets:\n    - ")
	target, _, _ := strings.Cut(after, "\n")
	return target
}

// Whatever the bytes of a scrape file are, reading them ends with a configuration or an error.
func FuzzParseScrapeFile(f *testing.F) {
	f.Add([]byte("scrape_configs: [{job_name: a, static_configs: [{targets: [\"a:1\"]}]}]"))
	f.Add([]byte("scrape_configs: [{job_name: pods, kubernetes_sd_configs: [{role: pod}]}]"))
	f.Add([]byte("rule_files: [a]\nglobal: {external_labels: {a: b}}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Contains(b, []byte("scrape_config_files")) {
			return // Patterns would reach over the file system.
		}
		cfg, err := parseScrapeFile(b, ".", log.NewNopLogger())
		if (cfg == nil) != (err != nil) {
			t.Fatalf("configuration %v, error %v", cfg, err)
		}
	})
}
