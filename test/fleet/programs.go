package fleet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// module is the first line of the go.mod at the top of the tree.
const module = "module github.com/koios-metrics/koios"

// built is where the programs of this run lie: made once, removed by Main.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// Main runs the tests of a package that starts Koios, and removes what was built for them:
//
//	func TestMain(m *testing.M) { os.Exit(fleet.Main(m)) }
func Main(m *testing.M) int {
	defer func() {
		if built.dir != "" {
			_ = os.RemoveAll(built.dir)
		}
	}()
	return m.Run()
}

// KoiosProgram returns the path of the koios program, built from this tree once per run.
func KoiosProgram(t testing.TB) string {
	t.Helper()
	built.once.Do(func() { built.dir, built.err = build() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "koios")
}

func build() (string, error) {
	root, err := root()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "koios-programs-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the programs: %w", err)
	}
	cmd := exec.Command("go", "build", "-o", dir, "./cmd/koios")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build koios: %w\n%s", err, out)
	}
	return dir, nil
}

// PrometheusProgram returns the path of Prometheus: $KOIOS_PROMETHEUS, or what `make tools` has built.
func PrometheusProgram(t testing.TB) string {
	t.Helper()
	path := os.Getenv("KOIOS_PROMETHEUS")
	if path == "" {
		root, err := root()
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(root, ".bin", "prometheus")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("this test needs Prometheus: %v; build it with `make tools`, or name one in KOIOS_PROMETHEUS", err)
	}
	return path
}

// root finds the top of the tree above the folder that the test runs in.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the top of the tree: %w", err)
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), module+"\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("find the top of the tree: no go.mod above starts with %q", module)
		}
		dir = up
	}
}
