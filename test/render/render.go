// Command render writes what the Helm chart and the Kustomize folders of deploy come to, into testdata. It is a module of
// its own, so that what it is made of is not part of Koios. What is written is committed: changes are seen in review,
// and the tests of cmd/components read every argument list from it.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

func main() {
	root := "../.."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := render(root); err != nil {
		fmt.Fprintln(os.Stderr, "Error: "+err.Error())
		os.Exit(1)
	}
}

func render(root string) error {
	out := filepath.Join(root, "test", "render", "testdata")
	cases, err := filepath.Glob(filepath.Join(out, "values", "*.yaml"))
	if err != nil {
		return err
	}
	for _, values := range cases {
		text, err := chart(filepath.Join(root, "deploy", "helm", "koios"), values)
		if err != nil {
			return fmt.Errorf("chart with %s: %w", values, err)
		}
		if err := os.WriteFile(filepath.Join(out, "helm-"+filepath.Base(values)), text, 0o644); err != nil {
			return err
		}
	}
	for _, folder := range []string{"base", "observer", "observed"} {
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(root, "deploy", "kubernetes", folder))
		if err != nil {
			return err
		}
		text, err := resources.AsYaml()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, "kustomize-"+folder+".yaml"), text, 0o644); err != nil {
			return err
		}
	}
	sum, err := inputs(root)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "inputs.sha256"), []byte(sum+"\n"), 0o644)
}

// inputs is a checksum of all that is rendered, by which a test that has no Helm sees that make render was forgotten.
func inputs(root string) (string, error) {
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
			fmt.Fprintf(h, "%s %d\n%s", filepath.ToSlash(rel), len(text), text)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// chart renders the chart as helm template does.
func chart(dir, valuesFile string) ([]byte, error) {
	c, err := loader.Load(dir)
	if err != nil {
		return nil, err
	}
	values, err := chartutil.ReadValuesFile(valuesFile)
	if err != nil {
		return nil, err
	}
	top, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "koios", Namespace: "monitoring", IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, top)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		for doc := range strings.SplitSeq(files[name], "\n---\n") {
			if strings.TrimSpace(doc) == "" {
				continue
			}
			var parsed any
			if err := yaml.Unmarshal([]byte(doc), &parsed); err != nil {
				return nil, fmt.Errorf("%s is no YAML: %w\n%s", name, err, doc)
			}
			b.WriteString("---\n" + strings.TrimSpace(doc) + "\n")
		}
	}
	return []byte(b.String()), nil
}
