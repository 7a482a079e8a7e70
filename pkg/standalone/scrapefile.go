package standalone

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"go.yaml.in/yaml/v2"

	// The kinds of service discovery that a scrape configuration may use; static ones need no import.
	_ "github.com/prometheus/prometheus/discovery/dns"
	_ "github.com/prometheus/prometheus/discovery/file"
	_ "github.com/prometheus/prometheus/discovery/http"

	"github.com/koios-metrics/koios/pkg/logging"
)

const (
	// selfJob is the name of the job when Koios scrapes nobody but itself.
	selfJob = "koios"
	// defaultLabel is the external label of a configuration that has none: blocks can't be shipped
	// without one.
	defaultLabelName, defaultLabelValue = "koios", "standalone"
)

// usedSections are the parts of a prometheus.yml that mean something here. Others are left out, with a
// warning.
var usedSections = []string{"global", "scrape_configs", "scrape_config_files", "storage"}

// knownDiscovery are the kinds of service discovery that scrape configurations may use.
var knownDiscovery = []string{"static_configs", "file_sd_configs", "http_sd_configs", "dns_sd_configs"}

// loadScrapeFile reads a prometheus.yml. Sections that are not for scraping are reported to the logger
// and otherwise ignored.
func loadScrapeFile(file string, logger log.Logger) (*config.Config, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read scrape configuration: %w", err)
	}
	cfg, err := parseScrapeFile(content, filepath.Dir(file), logger)
	if err != nil {
		return nil, fmt.Errorf("read scrape configuration %s: %w", file, err)
	}
	return cfg, nil
}

// parseScrapeFile decodes a prometheus.yml; relative file names in it start at dir.
func parseScrapeFile(content []byte, dir string, logger log.Logger) (*config.Config, error) {
	content, err := onlyUsedSections(content, logger)
	if err != nil {
		return nil, err
	}
	if err := checkDiscovery(content); err != nil {
		return nil, err
	}
	cfg, err := config.Load(string(content), logging.Slog(logger))
	if err != nil {
		return nil, err
	}
	cfg.SetDirectory(dir)
	if err := checkIncluded(cfg.ScrapeConfigFiles); err != nil {
		return nil, err
	}
	if _, err := cfg.GetScrapeConfigs(); err != nil {
		return nil, err
	}
	return withDefaultLabel(cfg), nil
}

// selfScrape is the configuration that is used when none is given: Koios scrapes its own metrics page.
func selfScrape(httpAddr string, interval time.Duration) (*config.Config, error) {
	target, err := reachable(httpAddr)
	if err != nil {
		return nil, err
	}
	yaml := fmt.Sprintf("global:\n  scrape_interval: %s\n  scrape_timeout: %[1]s\nscrape_configs:\n- job_name: %[2]s\n  static_configs:\n  - targets: [%[3]q]\n", model.Duration(interval), selfJob, target)
	cfg, err := config.Load(yaml, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("BUG: the built-in scrape configuration is refused: %w", err)
	}
	return withDefaultLabel(cfg), nil
}

// reachable turns an address that is listened on into one that this machine can connect to.
func reachable(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("read HTTP address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}

func withDefaultLabel(cfg *config.Config) *config.Config {
	if cfg.GlobalConfig.ExternalLabels.IsEmpty() {
		cfg.GlobalConfig.ExternalLabels = labels.FromStrings(defaultLabelName, defaultLabelValue)
	}
	return cfg
}

// onlyUsedSections drops what is not for scraping. A file that has only what is used is returned as it is,
// so that errors name its own lines.
func onlyUsedSections(content []byte, logger log.Logger) ([]byte, error) {
	var all yaml.MapSlice
	if err := yaml.Unmarshal(content, &all); err != nil {
		return nil, err
	}
	var used yaml.MapSlice
	for _, section := range all {
		name := fmt.Sprint(section.Key)
		if name == bucketSection {
			continue // read by BucketOf
		}
		if slices.Contains(usedSections, name) || !knownSection(name) {
			used = append(used, section)
			continue
		}
		_ = level.Warn(logger).Log("msg", "section of the scrape configuration has no effect in standalone", "section", name)
	}
	if len(used) == len(all) {
		return content, nil
	}
	return yaml.Marshal(used)
}

// knownSection tells whether Prometheus knows the section. One that nobody knows stays in, to be refused.
func knownSection(name string) bool {
	return slices.Contains([]string{"runtime", "alerting", "rule_files", "tracing", "remote_write", "remote_read", "otlp"}, name)
}

// checkIncluded looks for kinds of discovery in the files that the patterns name.
func checkIncluded(patterns []string) error {
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return fmt.Errorf("scrape_config_files has the pattern %q: %w", pattern, err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err == nil {
				err = checkDiscovery(content)
			}
			if err != nil {
				return fmt.Errorf("read %s: %w", file, err)
			}
		}
	}
	return nil
}

// checkDiscovery refuses kinds of service discovery that standalone doesn't have, by name. What is wrong in
// any other way is left to be refused by the decoder proper.
func checkDiscovery(content []byte) error {
	var file struct {
		ScrapeConfigs []map[string]any `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		return err
	}
	for _, sc := range file.ScrapeConfigs {
		for key := range sc {
			if strings.HasSuffix(key, "_sd_configs") && !slices.Contains(knownDiscovery, key) {
				return fmt.Errorf("job %v uses %s, which standalone does not have: use one of %s, or run Prometheus with a sidecar",
					sc["job_name"], key, strings.Join(knownDiscovery, ", "))
			}
		}
	}
	return nil
}

// outOfOrder returns how old, in ms, a sample may be against the newest of its series.
func outOfOrder(cfg *config.Config) int64 {
	if c := cfg.StorageConfig.TSDBConfig; c != nil {
		return c.OutOfOrderTimeWindow
	}
	return 0
}
