// Command mixin writes what watches a fleet: alerts.yaml for Prometheus and one dashboard for each component for
// Grafana. Both are made of the tables in this folder, so that they speak of the same things. Change the tables and
// run make mixin.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	if err := write(dir); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "Error: "+err.Error())
		os.Exit(1)
	}
}

// files are all that is generated, by their paths.
func files() (map[string][]byte, error) {
	rules, err := rulesYAML()
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{"alerts.yaml": rules, filepath.Join("..", "helm", "koios", "files", "alerts.yaml"): rules}
	for _, d := range dashboards {
		text, err := d.json()
		if err != nil {
			return nil, err
		}
		all[filepath.Join("dashboards", d.file+".json")] = text
	}
	return all, nil
}

func write(dir string) error {
	all, err := files()
	if err != nil {
		return err
	}
	for name, text := range all {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
