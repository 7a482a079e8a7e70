//go:build e2e

package e2e

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/fleet"
)

// imageSizeMax is how large the image with everything may be, compressed.
const imageSizeMax = 90e6

// locked is how careful deployers run a container: any user, nothing to write to, no rights.
var locked = []string{"--user=4242:4242", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"}

// The image is small, has what probes and people call, and both names of Thanos's program.
func TestImage(t *testing.T) {
	if size := compressed(t, koiosImage); size > imageSizeMax {
		t.Errorf("%d bytes compressed, want %d at most", size, int(imageSizeMax))
	} else {
		t.Logf("%.1f MB compressed", float64(size)/1e6)
	}
	run := func(want string, entrypoint string, args ...string) {
		t.Helper()
		out := mustDocker(t, append(append(append([]string{"run", "--rm"}, locked...), "--entrypoint="+entrypoint, koiosImage), args...)...)
		if !strings.Contains(out, want) {
			t.Errorf("%s %v writes %q, want %s", entrypoint, args, out, want)
		}
	}
	for _, program := range []string{"koios", "thanos", "/bin/koios", "/bin/thanos", "/opt/bitnami/thanos/bin/thanos"} {
		run("version", program, "--version")
	}
	run("uid=4242", "sh", "-c", "test -x /bin/wget && test -x /bin/kill && id")
	run("BEGIN CERTIFICATE", "grep", "-m1", "BEGIN", "/etc/ssl/certs/ca-certificates.crt")
	if user := mustDocker(t, "image", "inspect", "--format={{.Config.User}}", koiosImage); user != "65534:65534" {
		t.Errorf("user %s", user)
	}
}

// compressed is the size of the layers of an image as a registry would hold them.
func compressed(t *testing.T, image string) int {
	t.Helper()
	cmd := exec.Command("docker", "save", image)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var size counter
	z := gzip.NewWriter(&size)
	if _, err := io.Copy(z, out); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return int(size)
}

type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// A store on an empty bucket, as any user and with nothing to write to but its data, is ready at once; probes that run a
// program see it, with and without a shell; SIGTERM ends it with code 0.
func TestImageRuns(t *testing.T) {
	name := "koios-e2e-image-" + strconv.Itoa(os.Getpid())
	args := append(append([]string{"run", "-d", "--name=" + name, "--tmpfs=/data:mode=1777", "--tmpfs=/bucket:mode=1777"}, locked...), koiosImage,
		"store", "--objstore.config={type: FILESYSTEM, config: {directory: /bucket}}")
	mustDocker(t, args...)
	t.Cleanup(func() { mustDocker(t, "rm", "-f", name) })
	fleet.Eventually(t, "the store is ready", wait, func() error {
		if out, err := docker("exec", name, "koios", "probe", "http://localhost:10902/-/ready"); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	mustDocker(t, "exec", name, "sh", "-c", "wget -q -O - http://localhost:10902/-/healthy")
	mustDocker(t, "exec", name, "wget", "--spider", "-q", "http://localhost:10902/-/ready")
	out, err := docker("exec", name, "koios", "probe", "http://localhost:10902/absent")
	if err == nil || !strings.Contains(out, "404") {
		t.Errorf("a probe of a page that is not there: %v %s", err, out)
	}
	log := mustDocker(t, "logs", name)
	t.Logf("from the first line to ready: %v", readyAfter(t, log))
	mustDocker(t, "stop", "--time=30", name)
	if code := mustDocker(t, "inspect", "--format={{.State.ExitCode}}", name); code != "0" {
		t.Errorf("exit code %s\n%s", code, mustDocker(t, "logs", name))
	}
}

// readyAfter is the time between the first line of a log and the one that says ready.
func readyAfter(t *testing.T, log string) time.Duration {
	t.Helper()
	var first, ready time.Time
	for line := range strings.Lines(log) {
		_, rest, ok := strings.Cut(line, "ts=")
		if !ok {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		if first.IsZero() {
			first = at
		}
		if ready.IsZero() && strings.Contains(line, "ready") {
			ready = at
		}
	}
	if ready.IsZero() {
		t.Fatalf("no line says ready:\n%s", log)
	}
	return ready.Sub(first)
}
