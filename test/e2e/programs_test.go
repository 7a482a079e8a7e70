//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/koios-metrics/koios/test/fleet"
)

// The keys and the bucket of the S3 servers.
const (
	s3Key    = "koios-test"
	s3Secret = "koios-test-secret"
	s3Bucket = "blocks"
)

// prometheus lays out a Prometheus named prometheus-NAME with its data in the folder data/NAME, which scrapes the
// targets each second.
func (w *world) prometheus(name string, external map[string]string, targets ...string) *container {
	w.t.Helper()
	var b strings.Builder
	b.WriteString("global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  external_labels:\n")
	for _, l := range slices.Sorted(maps.Keys(external)) {
		fmt.Fprintf(&b, "    %s: %q\n", l, external[l])
	}
	b.WriteString("scrape_configs:\n- job_name: live\n  static_configs:\n  - targets: ['localhost:9090']\n    labels: {instance: itself}\n")
	for _, target := range targets {
		fmt.Fprintf(&b, "  - targets: [%q]\n", target)
	}
	config := w.file("prometheus-"+name+".yml", b.String())
	return w.container("prometheus-"+name, prometheusImage.name, options{ports: map[string]int{"http": 9090}},
		"--config.file="+config, "--storage.tsdb.path="+w.dataOf(name), "--storage.tsdb.retention.time=100y",
		"--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h",
		"--web.enable-lifecycle", "--web.enable-admin-api", "--log.level=warn")
}

// dataOf is the folder of the Prometheus of that name.
func (w *world) dataOf(name string) string {
	w.t.Helper()
	w.dir("data-" + name)
	return w.dir("data-" + name + "/tsdb")
}

// sidecar starts the sidecar of a Prometheus of that name.
func (w *world) sidecar(name string, flags ...string) *container {
	w.t.Helper()
	return w.koios("sidecar-"+name, append([]string{"sidecar", "--prometheus.url=http://" + w.Name() + "-prometheus-" + name + ":9090",
		"--tsdb.path=" + w.dataOf(name), "--prometheus.get_config_interval=1s"}, flags...)...)
}

// host is the name of a container on its network.
func (w *world) host(name string) string { return w.Name() + "-" + name }

// query starts a querier over endpoints, given as the names of containers.
func (w *world) query(name string, over []string, flags ...string) *container {
	w.t.Helper()
	args := []string{"query", "--query.replica-label=replica", "--store.sd-dns-interval=1s"}
	for _, o := range over {
		args = append(args, "--endpoint="+w.host(o)+":10901")
	}
	return w.koios(name, append(args, flags...)...)
}

// s3 starts an S3 server with one empty bucket, and returns it with the object storage configuration of the bucket.
func (w *world) s3() (server *container, config string) {
	w.t.Helper()
	root := w.dir("s3")
	openTo(w.t, root+"/"+s3Bucket)
	server = w.container("s3", s3Image.name, options{ports: map[string]int{"http": 9000}},
		"--port", ":9000", "--access", s3Key, "--secret", s3Secret, "--quiet", "--health", "/healthy", "posix", root).start()
	fleet.Eventually(w.t, "the S3 server answers", wait, func() error {
		if status, body := fleet.Get(w.t.Context(), server.url()+"/healthy"); status != 200 {
			return fmt.Errorf("status %d %s", status, body)
		}
		return nil
	})
	return server, w.file("bucket.yml", fmt.Sprintf("type: S3\nconfig: {bucket: %s, endpoint: '%s:9000', access_key: %s, secret_key: %s, insecure: true, region: us-east-1}\n",
		s3Bucket, w.host("s3"), s3Key, s3Secret))
}
