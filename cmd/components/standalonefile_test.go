package components

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file of ten lines is all that standalone needs for a bucket and for scraping.
func TestStandaloneFile(t *testing.T) {
	bucket := t.TempDir()
	text := `global:
  scrape_interval: 15s
scrape_configs:
- job_name: node
  static_configs:
  - targets: ['localhost:9100']
object_storage:
  type: FILESYSTEM
  config:
    directory: $(KOIOS_TEST_BUCKET)
`
	t.Setenv("KOIOS_TEST_BUCKET", bucket)
	if n := strings.Count(text, "\n"); n > 10 {
		t.Errorf("%d lines", n)
	}
	file := filepath.Join(t.TempDir(), "koios.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	u := start(t, arguments(t, "standalone", "--config.file="+file)...).url(t)
	waitFor(t, "ready", func() bool { code, _ := get(t, u+"/-/ready"); return code == 200 })
	if _, err := build(t, arguments(t, "standalone", "--config.file="+file, "--objstore.config={type: FILESYSTEM, config: {directory: x}}")...); err == nil || !strings.Contains(err.Error(), "give one of them") {
		t.Errorf("two buckets: %v", err)
	}
}
