package discovery

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Target groups are read from YAML and JSON; what is neither is refused.
func TestParseTargets(t *testing.T) {
	f := func(text string, ok bool, want ...string) {
		t.Helper()
		got, err := parseTargets([]byte(text))
		if (err == nil) != ok {
			t.Errorf("%q: error %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
	f("- targets: [a:1, b:2]\n  labels: {x: y}\n- targets: ['dns+c:3']\n", true, "a:1", "b:2", "dns+c:3")
	f(`[{"targets": ["a:1"], "labels": {"x": "y"}}]`, true, "a:1")
	f("[]", true)
	f("", false)
	f("- null", false)
	f("- targets: ['']", false)
	f("targets: [a]", false)
	f("- tragets: [a]", false)
	f("[{", false)
}

func FuzzParseTargets(f *testing.F) {
	f.Add([]byte("- targets: [a:1, b:2]\n  labels: {x: y}\n"))
	f.Add([]byte(`[{"targets": ["a:1"]}]`))
	f.Add([]byte("- null"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseTargets(b) })
}

// Files that change, break, move into place and go away are followed by their notifications alone: the
// interval is an hour.
func TestFilesFollowsChanges(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		tmp := filepath.Join(dir, ".tmp")
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yml", "- targets: [a:1]")
	changed := make(chan struct{}, 100)
	fs, err := NewFiles(FilesConfig{
		Patterns: []string{filepath.Join(dir, "*.yml"), filepath.Join(dir, "x.json")},
		Interval: time.Hour,
		Changed:  func() { changed <- struct{}{} },
	}, log.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- fs.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	until := func(want ...string) {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for {
			got := fs.Addresses()
			if cmp.Equal(want, got) {
				return
			}
			select {
			case <-changed:
			case <-time.After(50 * time.Millisecond):
			case <-timeout:
				t.Fatalf("targets are %v, want %v", got, want)
			}
		}
	}
	until("a:1")
	write("x.json", `[{"targets": ["x:1", "a:1"]}]`)
	until("a:1", "x:1")
	write("a.yml", "- targets: [")
	write("b.yml", "- targets: [b:1]")
	until("a:1", "b:1", "x:1")
	write("a.yml", "[]")
	if err := os.Remove(filepath.Join(dir, "x.json")); err != nil {
		t.Fatal(err)
	}
	until("b:1")
}

// Names and intervals that can't work are refused at start.
func TestFilesConfig(t *testing.T) {
	for _, cfg := range []FilesConfig{
		{Patterns: []string{"targets.txt"}, Interval: time.Minute},
		{Patterns: []string{"[.yml"}, Interval: time.Minute},
		{Patterns: []string{"a.yml"}},
	} {
		if _, err := NewFiles(cfg, log.NewNopLogger()); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}
