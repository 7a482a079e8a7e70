package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log/level"
)

// Lines begin with ts, caller and level, name the line that logged whether through go-kit or slog, and
// carry the debug name.
func TestLogfmtKeys(t *testing.T) {
	var buf bytes.Buffer
	l, err := New(&buf, "info", FormatLogfmt, "left")
	if err != nil {
		t.Fatal(err)
	}
	_ = level.Info(l).Log("msg", "hello world", "err", errors.New("x y"))
	Slog(l).With("a", 1).WithGroup("g").Warn("through slog", "d", time.Second, slog.Group("h", "k", "v"))
	want := []string{
		`^ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z caller=logging_test\.go:\d+ name=left level=info msg="hello world" err="x y"$`,
		`^ts=\S+Z caller=logging_test\.go:\d+ name=left level=warn msg="through slog" a=1 g\.d=1s g\.h\.k=v$`,
	}
	got := strings.Split(strings.TrimSpace(buf.String()), "\n")
	if len(got) != len(want) {
		t.Fatalf("lines: %q", got)
	}
	for i := range want {
		if !regexp.MustCompile(want[i]).MatchString(got[i]) {
			t.Errorf("line %d: %s\ndoes not match %s", i, got[i], want[i])
		}
	}
}

// Each level lets through itself and what is graver.
func TestLevels(t *testing.T) {
	for i, least := range Levels {
		var buf bytes.Buffer
		l, err := New(&buf, least, FormatLogfmt, "")
		if err != nil {
			t.Fatal(err)
		}
		s := Slog(l)
		s.Debug("m")
		s.Info("m")
		s.Warn("m")
		s.Error("m")
		if got := strings.Count(buf.String(), "\n"); got != i+1 {
			t.Errorf("level %s wrote %d lines: want %d", least, got, i+1)
		}
	}
}

// JSON lines are objects with the same keys.
func TestJSON(t *testing.T) {
	var buf bytes.Buffer
	l, err := New(&buf, "debug", FormatJSON, "")
	if err != nil {
		t.Fatal(err)
	}
	_ = level.Debug(l).Log("msg", "m")
	var m map[string]string
	if err := json.Unmarshal(buf.Bytes(), &m); err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{"level": "debug", "msg": "m"} {
		if m[k] != want {
			t.Errorf("%s = %q: want %q", k, m[k], want)
		}
	}
	if m["ts"] == "" || !strings.HasPrefix(m["caller"], "logging_test.go:") {
		t.Errorf("line %s", buf.String())
	}
}

// Unknown words are refused with the list of known ones.
func TestRefusals(t *testing.T) {
	if _, err := New(&bytes.Buffer{}, "loud", FormatJSON, ""); err == nil || !strings.Contains(err.Error(), "error, warn, info, debug") {
		t.Errorf("level: %v", err)
	}
	if _, err := New(&bytes.Buffer{}, "info", "xml", ""); err == nil || !strings.Contains(err.Error(), "logfmt, json, journald") {
		t.Errorf("format: %v", err)
	}
}

func BenchmarkFiltered(b *testing.B) {
	l, err := New(&bytes.Buffer{}, "info", FormatLogfmt, "")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = level.Debug(l).Log("msg", "m")
	}
}
