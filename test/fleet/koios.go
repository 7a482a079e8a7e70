package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Component is a running component of Koios.
type Component struct {
	*Process
	// HTTP and GRPC are the host:port that it listens on, URL the first with a scheme in front.
	HTTP, GRPC, URL string
}

// StartComponent starts `koios <name>` on free ports with the flags and does not wait for it.
func StartComponent(t testing.TB, name string, flags ...string) *Component {
	t.Helper()
	c := &Component{HTTP: FreeAddr(t), GRPC: FreeAddr(t)}
	c.URL = "http://" + c.HTTP
	args := append([]string{name, "--http-address=" + c.HTTP, "--grpc-address=" + c.GRPC}, flags...)
	c.Process = Start(t, name, KoiosProgram(t), args...)
	return c
}

// Ready waits until the component says that it is ready.
func (c *Component) Ready(t testing.TB) *Component {
	t.Helper()
	c.WaitReady(t, c.URL+"/-/ready")
	return c
}

// Status returns the status code of the readiness page, 0 when nothing listens.
func (c *Component) Status(t testing.TB) int {
	t.Helper()
	status, _ := Get(t.Context(), c.URL+"/-/ready")
	return status
}

// Metric returns the sum of a metric of the component, as Metric does.
func (c *Component) Metric(t testing.TB, name string, with ...string) (float64, bool) {
	t.Helper()
	return Metric(t.Context(), c.URL+"/metrics", name, with...)
}

// StartSidecar starts a sidecar beside a Prometheus. With a bucket it uploads there.
func StartSidecar(t testing.TB, p *Prometheus, bucketDir string, flags ...string) *Component {
	t.Helper()
	args := []string{"--prometheus.url=" + p.URL, "--tsdb.path=" + p.Dir, "--prometheus.get_config_interval=1s"}
	if bucketDir != "" {
		args = append(args, "--objstore.config-file="+BucketConfig(t, bucketDir))
	}
	return StartComponent(t, "sidecar", append(args, flags...)...)
}

// StartStore starts a store over a bucket and waits until it has seen what is there.
func StartStore(t testing.TB, bucketDir string, flags ...string) *Component {
	t.Helper()
	args := []string{
		"--data-dir=" + t.TempDir(),
		"--objstore.config-file=" + BucketConfig(t, bucketDir),
		"--sync-block-duration=1s",
	}
	return StartComponent(t, "store", append(args, flags...)...).Ready(t)
}

// StartQuery starts a querier over the components, which takes replica for the replica label, and waits
// until it is ready.
func StartQuery(t testing.TB, over []*Component, flags ...string) *Component {
	t.Helper()
	args := []string{"--query.replica-label=replica"}
	for _, c := range over {
		args = append(args, "--endpoint="+c.GRPC)
	}
	return StartComponent(t, "query", append(args, flags...)...).Ready(t)
}

// BucketConfig writes the configuration of a bucket in a folder, and returns the name of the file.
func BucketConfig(t testing.TB, dir string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bucket.yml")
	yaml := strings.Join([]string{"type: FILESYSTEM", "config:", "  directory: " + dir, ""}, "\n")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatalf("write the configuration of a bucket: %v", err)
	}
	return file
}
