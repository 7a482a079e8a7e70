//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/test/certs"
	"github.com/koios-metrics/koios/test/fleet"
)

// deployments is the file of argument lists that the tests of the command line read too.
type deployments struct {
	Env, Files map[string]string
	Lists      []struct {
		Name  string
		Args  []string
		Start *bool
		Error string
	}
}

// Every argument list that a public deployer generates for a component runs in a container of its own, as careful as any of
// them runs it: unchanged, with the files and the environment that it names, no rights, and only its data writable. It
// is healthy at once, and ends with code 0.
func TestDeployments(t *testing.T) {
	text, err := os.ReadFile("../../cmd/components/testdata/deployments.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d deployments
	if err := yaml.UnmarshalStrict(text, &d); err != nil {
		t.Fatal(err)
	}
	mounts := mountsOf(t, d.Files)
	started := map[string]int{}
	for i, l := range d.Lists {
		if l.Start != nil && !*l.Start || l.Error != "" {
			continue
		}
		t.Run(l.Name, func(t *testing.T) {
			t.Parallel()
			runList(t, fmt.Sprintf("koios-e2e-list-%d", i), l.Args, d.Env, mounts)
		})
		started[l.Args[0]]++
	}
	for _, component := range []string{"sidecar", "query", "store", "compact", "query-frontend"} {
		if started[component] == 0 {
			t.Errorf("no list starts %s", component)
		}
	}
}

// mountsOf writes the files, and returns the flags that show them to a container.
func mountsOf(t *testing.T, files map[string]string) (flags []string) {
	t.Helper()
	ca := certs.New(t, "authority")
	pair := ca.Issue(t, certs.Options{})
	root := t.TempDir()
	openTo(t, filepath.Dir(root)) // which is the user's alone
	openTo(t, root)
	tops := map[string]bool{}
	for name, content := range files {
		switch content {
		case "CERTIFICATE":
			content = read(t, pair.Cert)
		case "KEY":
			content = read(t, pair.Key)
		case "AUTHORITY":
			content = read(t, ca.File)
		}
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		// The image's own /etc stays.
		top := strings.Join(strings.SplitN(name, "/", 4)[:2], "/")
		if top == "/etc" {
			top = strings.Join(strings.SplitN(name, "/", 5)[:3], "/")
		}
		if !tops[top] {
			tops[top] = true
			flags = append(flags, "-v="+filepath.Join(root, top)+":"+top+":ro")
		}
	}
	return flags
}

// runList runs one list in a container.
func runList(t *testing.T, name string, args []string, env map[string]string, mounts []string) {
	t.Helper()
	run := append([]string{"run", "-d", "--name=" + name}, locked...)
	run = append(run, mounts...)
	for _, data := range []string{"/data", "/prometheus", "/var/thanos/store", "/var/thanos/compact"} {
		run = append(run, "--tmpfs="+data+":mode=1777")
	}
	run = append(run, koiosImage)
	port, scheme := "10902", "http"
	for _, arg := range args {
		for key, value := range env { // as Kubernetes does
			arg = strings.ReplaceAll(arg, "$("+key+")", value)
		}
		if rest, ok := strings.CutPrefix(arg, "--http-address="); ok {
			port = rest[strings.LastIndex(rest, ":")+1:]
		}
		if strings.HasPrefix(arg, "--http.config=") {
			scheme = "https"
		}
		run = append(run, arg)
	}
	_, _ = docker("rm", "-f", name) // of a run that was ended
	mustDocker(t, run...)
	t.Cleanup(func() { mustDocker(t, "rm", "-f", name) })
	fleet.Eventually(t, "it is healthy", wait, func() error {
		out, err := docker("exec", name, "koios", "probe", "--insecure-skip-verify", scheme+"://localhost:"+port+"/-/healthy")
		if err != nil {
			log, _ := docker("logs", "--tail=5", name)
			return fmt.Errorf("%w: %s\n%s", err, out, log)
		}
		return nil
	})
	mustDocker(t, "stop", "--time=30", name)
	if code := mustDocker(t, "inspect", "--format={{.State.ExitCode}}", name); code != "0" {
		log, _ := docker("logs", "--tail=20", name)
		t.Errorf("exit code %s\n%s", code, log)
	}
}
