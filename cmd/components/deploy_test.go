package components

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/clientconf"
	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/frontend"
	"github.com/koios-metrics/koios/pkg/objstore"
)

const deployDir = "../../deploy"

// isKoios tells an image of ours.
func isKoios(image string) bool {
	name := image[strings.LastIndex(image, "/")+1:]
	name, _, _ = strings.Cut(name, ":")
	return name == "koios"
}

// documents reads all documents of a YAML file.
func documents(t *testing.T, file string) (docs []map[any]any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc map[any]any
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			return docs
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		docs = append(docs, doc)
	}
}

// argumentLists finds every container of ours in what YAML holds: maps with an image, and args or a command.
func argumentLists(v any) (lists [][]string) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			lists = append(lists, argumentLists(e)...)
		}
	case map[any]any:
		image, _ := v["image"].(string)
		if args, ok := v[map[bool]string{true: "args", false: "command"}[v["args"] != nil]].([]any); ok && isKoios(image) && v["entrypoint"] == nil {
			var list []string
			for _, a := range args {
				s, _ := a.(string)
				list = append(list, s)
			}
			lists = append(lists, list)
		}
		for _, e := range v {
			lists = append(lists, argumentLists(e)...)
		}
	}
	return lists
}

// Every argument of Koios in what deploys it is accepted, each folder has the components that it is for, and no
// argument is one that has no effect.
func TestDeployArguments(t *testing.T) {
	check := func(where string, args []string) string {
		t.Helper()
		c, fault := parse(t, args...)
		if c == nil {
			t.Errorf("%s: %q: %s", where, args, fault)
			return ""
		}
		for _, f := range c.flags.all {
			if reason := later[c.name][f.name] + removed[c.name][f.name]; reason != "" && f.changed() {
				t.Errorf("%s: %s --%s is of no use: %s", where, c.name, f.name, reason)
			}
		}
		return c.name
	}
	f := func(where string, want ...string) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(deployDir, where))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, file := range files {
			for _, doc := range documents(t, file) {
				for _, args := range argumentLists(doc) {
					got = append(got, check(file, args))
				}
			}
		}
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%s has %q: want %q", where, got, want)
		}
	}
	fleet := []string{"compact", "query", "query-frontend", "sidecar", "store"}
	f("compose/docker-compose.yml", fleet...)
	f("kubernetes/base/*.yaml", "compact", "query", "query-frontend", "store")
	f("kubernetes/observed/*.yaml", "query", "sidecar")
	f("../test/render/testdata/kustomize-base.yaml", "compact", "query", "query-frontend", "store")
	f("../test/render/testdata/kustomize-observer.yaml", "compact", "query", "query-frontend", "store")
	f("../test/render/testdata/kustomize-observed.yaml", "query", "sidecar")
	f("../test/render/testdata/helm-default.yaml", "query", "query-frontend")
	f("../test/render/testdata/helm-everything.yaml", "compact", "query", "query-frontend", "store")

	units, err := filepath.Glob(filepath.Join(deployDir, "systemd", "*.service"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=/usr/bin/koios "); ok {
				name := check(unit, strings.Fields(strings.ReplaceAll(command, "$KOIOS_ARGS", "")))
				if got = append(got, name); filepath.Base(unit) != "koios-"+name+".service" {
					t.Errorf("%s runs %s", unit, name)
				}
			}
		}
	}
	if slices.Sort(got); !slices.Equal(got, fleet) {
		t.Errorf("there are units of %q: want %q", got, fleet)
	}
}

// The files that deployments bring along are ones that the components take, and what they mount is there.
func TestDeployFiles(t *testing.T) {
	read := func(name string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(deployDir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for _, name := range []string{"compose/bucket.yml", "kubernetes/base/objstore.example.yml"} {
		bkt, err := objstore.New(log.NewNopLogger(), read(name), nil, "test")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = bkt.Close()
	}
	if _, err := frontend.ParseCache(read("compose/cache.yml")); err != nil {
		t.Error(err)
	}
	for name, strict := range map[string]int{"kubernetes/base/endpoints.yml": 0, "kubernetes/observer/endpoints.yml": 2} {
		// Certificates come from Secrets, so the paths lead nowhere here: everything else has to be right.
		text := read(name)
		if err := endpoint.CheckFile(text, clientconf.GRPC{}, log.NewNopLogger()); err != nil && !strings.Contains(err.Error(), "/etc/koios/clients/") {
			t.Errorf("%s: %v", name, err)
		}
		if n := strings.Count(string(text), "strict: true"); n != strict {
			t.Errorf("%s has %d strict endpoints: want %d", name, n, strict)
		}
	}
	var compose struct {
		Services map[string]struct{ Volumes []string }
	}
	if err := yaml.Unmarshal(read("compose/docker-compose.yml"), &compose); err != nil {
		t.Fatal(err)
	}
	mounted := 0
	for service, s := range compose.Services {
		for _, v := range s.Volumes {
			if from, _, _ := strings.Cut(v, ":"); strings.HasPrefix(from, ".") {
				mounted++
				if _, err := os.Stat(filepath.Join(deployDir, "compose", from)); err != nil {
					t.Errorf("%s mounts what is not there: %v", service, err)
				}
			}
		}
	}
	if mounted < 8 {
		t.Errorf("only %d files are mounted", mounted)
	}
	dashboards, err := filepath.Glob(filepath.Join(deployDir, "mixin/dashboards/*.json"))
	if err != nil || len(dashboards) != 6 {
		t.Errorf("%d dashboards, %v", len(dashboards), err)
	}
	for _, f := range dashboards {
		text, err := os.ReadFile(f)
		if err != nil || !json.Valid(text) {
			t.Errorf("%s: %v", f, err)
		}
	}
	for _, folder := range []string{"base", "observer", "observed"} {
		var k struct {
			Resources          []string
			Patches            []struct{ Path string }
			ConfigMapGenerator []struct{ Files []string } `yaml:"configMapGenerator"`
		}
		if err := yaml.Unmarshal(read(filepath.Join("kubernetes", folder, "kustomization.yaml")), &k); err != nil {
			t.Fatal(err)
		}
		names := k.Resources
		for _, p := range k.Patches {
			names = append(names, p.Path)
		}
		for _, g := range k.ConfigMapGenerator {
			names = append(names, g.Files...)
		}
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(deployDir, "kubernetes", folder, name)); err != nil {
				t.Errorf("%s: %v", folder, err)
			}
		}
	}
}

// What is rendered of the chart and of the Kustomize folders is of today's.
func TestRenderedIsUpToDate(t *testing.T) {
	const root = "../.."
	h := sha256.New()
	for _, dir := range []string{"deploy/helm", "deploy/kubernetes", "test/render/testdata/values"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			text, err := os.ReadFile(p)
			_, _ = fmt.Fprintf(h, "%s %d\n%s", filepath.ToSlash(rel), len(text), text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(filepath.Join(root, "test/render/testdata/inputs.sha256"))
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != strings.TrimSpace(string(want)) {
		t.Error("the chart, the Kustomize folders or the values have changed: run make render")
	}
}
