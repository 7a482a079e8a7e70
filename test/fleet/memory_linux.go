package fleet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Memory is a control group of the kernel that kills what takes more memory than it may, as a container's does.
type Memory struct {
	dir string
	v2  bool
}

// NewMemory makes a control group of max bytes, which goes when the test ends. Control groups belong to root:
// who is not fails the test.
func NewMemory(t testing.TB, max int64) *Memory { //nolint:predeclared // the field's own word
	t.Helper()
	name := fmt.Sprintf("koios-%d-%d", os.Getpid(), time.Now().UnixNano())
	m := &Memory{dir: filepath.Join("/sys/fs/cgroup/memory", name)}
	limit, swap := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err != nil {
		m.v2, m.dir = true, filepath.Join("/sys/fs/cgroup", name)
		limit, swap = "memory.max", "memory.swap.max"
	}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		t.Fatalf("make a control group (this test needs root and the memory controller): %v", err)
	}
	t.Cleanup(func() {
		// The kernel may take a moment to see that the last process is gone.
		Eventually(t, "the control group is removed", 10*time.Second, func() error { return os.Remove(m.dir) })
	})
	if err := os.WriteFile(filepath.Join(m.dir, limit), []byte(strconv.FormatInt(max, 10)), 0o644); err != nil {
		t.Fatalf("limit a control group: %v", err)
	}
	swapMax := strconv.FormatInt(max, 10)
	if m.v2 {
		swapMax = "0"
	}
	if err := os.WriteFile(filepath.Join(m.dir, swap), []byte(swapMax), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.EACCES) {
		t.Fatalf("limit swap of a control group: %v", err)
	}
	return m
}

// Start starts a program in the control group; the test stops it at its end.
func (m *Memory) Start(t testing.TB, name, path string, args ...string) *Process {
	t.Helper()
	// The shell enters the group and becomes the program.
	enter := `echo $$ > "$0" && exec "$@"`
	return Start(t, name, "/bin/sh", append([]string{"-c", enter, filepath.Join(m.dir, "cgroup.procs"), path}, args...)...)
}

// Kills returns how often the kernel killed a process for its memory.
func (m *Memory) Kills(t testing.TB) (n int) {
	t.Helper()
	file := "memory.oom_control"
	if m.v2 {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(m.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n
		}
	}
	t.Fatalf("%s tells no kills:\n%s", file, b)
	return 0
}

// PeakRSS returns the most memory in bytes that the process has held resident since it began.
func (p *Process) PeakRSS(t testing.TB) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatal("no VmHWM in the status of the process")
	return 0
}
