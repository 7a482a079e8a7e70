package mutants

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

func table(t *testing.T) []Mutant {
	t.Helper()
	b, err := os.ReadFile("table.txt")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Parse(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The table fits the code: each mutant can be put in and leaves code that parses, and its test exists.
func TestTable(t *testing.T) {
	for _, m := range table(t) {
		b, err := os.ReadFile(filepath.Join(root, m.File))
		if err != nil {
			t.Error(err)
			continue
		}
		changed, err := m.Apply(string(b))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := format.Source([]byte(changed)); err != nil {
			t.Errorf("mutant %q: %v", m.What, err)
		}
		name, _, _ := strings.Cut(m.Test, "/")
		if !hasTest(t, filepath.Join(root, m.Package), name) {
			t.Errorf("mutant %q: no %s in %s", m.What, name, m.Package)
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("func "+name+"(")) {
			return true
		}
	}
	return false
}

// Each test sees its mutant. It builds a test for each, so it runs only when KOIOS_MUTANTS asks: "all", or a
// regular expression that matches packages or mutants.
func TestMutants(t *testing.T) {
	which := os.Getenv("KOIOS_MUTANTS")
	if which == "" {
		return
	}
	if which == "all" {
		which = "."
	}
	wanted, err := regexp.Compile(which)
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, m := range table(t) {
		if !wanted.MatchString(m.Package) && !wanted.MatchString(m.What) {
			continue
		}
		if out, ok := kill(t, &m); ok {
			killed++
		} else {
			t.Errorf("mutant %q (%s) lives: %s in %s does not see it\n%s", m.What, m.File, m.Test, m.Package, out)
		}
	}
	t.Logf("%d mutants killed", killed)
}

// kill runs the test of a mutant with the mutant in. True is a test that failed; one that can't be built is not.
func kill(t *testing.T, m *Mutant) (output string, killed bool) {
	t.Helper()
	abs, err := filepath.Abs(filepath.Join(root, m.File))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(abs)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := m.Apply(string(b))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{abs: file}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	pattern := "^" + strings.ReplaceAll(m.Test, "/", "$/^") + "$"
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-timeout=5m", "-overlay="+filepath.Join(dir, "overlay.json"), "-run="+pattern, m.Package)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	failed := bytes.Contains(out, []byte("--- FAIL")) || bytes.Contains(out, []byte("panic:"))
	return string(out), err != nil && failed && !bytes.Contains(out, []byte("[build failed]"))
}
