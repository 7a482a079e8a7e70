package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Prometheus is a running Prometheus.
type Prometheus struct {
	*Process
	// Addr is its host:port, URL the same with a scheme in front.
	Addr, URL string
	// Dir is its data folder; ConfigFile is its configuration.
	Dir, ConfigFile string
}

// PrometheusConfig says how a Prometheus is set up.
type PrometheusConfig struct {
	// Name is how logs of the test call it.
	Name string
	// Dir is its data folder, empty for a new one. Blocks that lie there are served from the start.
	Dir string
	// Addr is where it listens, empty for a free port.
	Addr string
	// ExternalLabels are written to its configuration in this order, as name and value by turns.
	ExternalLabels []string
	// Targets are the host:port that it scrapes each second.
	Targets []string
	// Flags come after those that are always given.
	Flags []string
}

// The retention keeps blocks whose samples lie years back. Blocks are cut each two hours and never merged,
// as a sidecar that uploads wants it.
var prometheusFlags = []string{
	"--storage.tsdb.retention.time=100y",
	"--storage.tsdb.min-block-duration=2h",
	"--storage.tsdb.max-block-duration=2h",
	"--web.enable-lifecycle",
	"--log.level=warn",
}

// NewPrometheus lays out what a Prometheus needs without starting it.
func NewPrometheus(t testing.TB, c PrometheusConfig) *Prometheus {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	if c.Addr == "" {
		c.Addr = FreeAddr(t)
	}
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, []byte(c.yaml()), 0o600); err != nil {
		t.Fatalf("write the configuration of %s: %v", c.Name, err)
	}
	args := append([]string{
		"--config.file=" + file,
		"--storage.tsdb.path=" + c.Dir,
		"--web.listen-address=" + c.Addr,
	}, prometheusFlags...)
	return &Prometheus{
		Process:    &Process{name: c.Name, path: PrometheusProgram(t), args: append(args, c.Flags...)},
		Addr:       c.Addr,
		URL:        "http://" + c.Addr,
		Dir:        c.Dir,
		ConfigFile: file,
	}
}

// StartPrometheus starts a Prometheus and waits until it answers.
func StartPrometheus(t testing.TB, c PrometheusConfig) *Prometheus {
	t.Helper()
	p := NewPrometheus(t, c)
	p.Launch(t)
	return p
}

// Launch starts a Prometheus that was laid out before, and waits until it answers.
func (p *Prometheus) Launch(t testing.TB) {
	t.Helper()
	p.Process = Start(t, p.name, p.path, p.args...)
	p.Ready(t)
}

// Ready waits until Prometheus answers.
func (p *Prometheus) Ready(t testing.TB) {
	t.Helper()
	p.WaitReady(t, p.URL+"/-/ready")
}

func (c PrometheusConfig) yaml() string {
	var b strings.Builder
	b.WriteString("global:\n  scrape_interval: 1s\n  scrape_native_histograms: true\n")
	if len(c.ExternalLabels) > 0 {
		b.WriteString("  external_labels:\n")
		for i := 0; i+1 < len(c.ExternalLabels); i += 2 {
			fmt.Fprintf(&b, "    %s: %q\n", c.ExternalLabels[i], c.ExternalLabels[i+1])
		}
	}
	if len(c.Targets) > 0 {
		b.WriteString("scrape_configs:\n- job_name: live\n  static_configs:\n  - targets:\n")
		for _, target := range c.Targets {
			fmt.Fprintf(&b, "    - %q\n", target)
		}
	}
	return b.String()
}
