package components

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/tracing"
	"github.com/koios-metrics/koios/test/certs"
)

// deployments is testdata/deployments.yaml.
type deployments struct {
	Env, Files map[string]string
	Lists      []struct {
		Name string
		Args []string
		// Start is false of a list whose process does not stay.
		Start *bool
		// Error is what Thanos, too, refuses the list for.
		Error string
	}
}

// listens are the flags whose ports the test must not take.
var listens = regexp.MustCompile(`^--(http|grpc)-address=`)

// Each argument list that a deployer generates is accepted as it stands and makes a component; what real Thanos
// refuses is refused. Every deployer and every component that there is a list for is among them.
func TestDeployments(t *testing.T) {
	text, err := os.ReadFile("testdata/deployments.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d deployments
	if err := yaml.UnmarshalStrict(text, &d); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	under := func(s string) string {
		// A path is a value of its own, or a word in a file.
		return regexp.MustCompile(`(^|=|[ @])(/(?:etc|conf|certs|var|data|prometheus)(?:/|$))`).ReplaceAllString(s, "${1}"+root+"${2}")
	}
	ca := certs.New(t, "authority")
	pair := ca.Issue(t, certs.Options{})
	for name, content := range d.Files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		from := map[string]string{"CERTIFICATE": pair.Cert, "KEY": pair.Key, "AUTHORITY": ca.File}[content]
		data := []byte(under(content))
		if from != "" {
			if data, err = os.ReadFile(from); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	started := map[string]bool{}
	for _, l := range d.Lists {
		t.Run(l.Name, func(t *testing.T) {
			args := slices.Clone(l.Args)
			for i := range args {
				args[i] = under(os.Expand(strings.ReplaceAll(strings.ReplaceAll(args[i], "$(", "${"), ")", "}"), func(name string) string { return d.Env[name] }))
				if listens.MatchString(args[i]) {
					args[i] = args[i][:strings.Index(args[i], "=")] + "=127.0.0.1:0"
				}
			}
			args = anyPorts(t, args)
			component, err := build(t, args...)
			switch {
			case l.Error != "" && (err == nil || !strings.Contains(oneLine(err), l.Error)):
				t.Errorf("error %v: want %s", err, l.Error)
			case l.Error == "" && err != nil:
				t.Error(err)
			}
			// One list of each component runs as a process; its first answers are seen.
			if stays := l.Start == nil || *l.Start; err != nil || !stays || started[component] {
				return
			}
			started[component] = true
			u := start(t, args...).url(t)
			if code, body := get(t, u+"/-/healthy"); code != 200 || body != "OK" {
				t.Errorf("healthy: %d %q", code, body)
			}
		})
	}
	for _, component := range []string{"sidecar", "query", "store", "compact", "query-frontend"} {
		if !started[component] {
			t.Errorf("no list starts %s", component)
		}
	}
}

// anyPorts adds the flags of ports that are absent, since the default ports may be taken.
func anyPorts(t *testing.T, args []string) []string {
	t.Helper()
	c, _ := parse(t, args...)
	if c == nil {
		return args
	}
	for _, flag := range []string{"http-address", "grpc-address"} {
		has := slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--"+flag) })
		if !has && c.flags.get(flag) != nil {
			args = append(args, "--"+flag+"=127.0.0.1:0")
		}
	}
	return args
}

// build does what a process does before it runs, and closes what that has opened.
func build(t *testing.T, args ...string) (component string, err error) {
	t.Helper()
	cl := newCommandLine("koios", io.Discard, All())
	name, err := cl.app.Parse(args)
	if err != nil {
		return "", err
	}
	c := cl.chosen(name)
	p := newProcess(c.title, c.flags, log.NewNopLogger())
	text, err := cl.globals.tracing.read()
	if err != nil {
		return c.name, err
	}
	if p.tracing, err = tracing.New(context.Background(), text, p.component, p.logger); err != nil {
		return c.name, err
	}
	p.probe = serve.NewProbe(p.component, p.logger, p.reg)
	defer func() {
		for _, f := range slices.Backward(p.closers) {
			_ = f()
		}
	}()
	return c.name, c.run(p)
}
