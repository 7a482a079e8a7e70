//go:build linux && campaign

package fleet

import (
	"testing"
	"time"
)

// A program within its memory lives, one past it is killed, and both are seen.
func TestMemory(t *testing.T) {
	m := NewMemory(t, 64<<20)
	small := m.Start(t, "small", "/bin/sh", "-c", "exec sleep 60")
	if small.PeakRSS(t) == 0 || m.Kills(t) != 0 {
		t.Errorf("peak %d, %d kills", small.PeakRSS(t), m.Kills(t))
	}
	greedy := m.Start(t, "greedy", "/bin/sh", "-c", `a=x; while :; do a="$a$a"; done`)
	if code := greedy.WaitExit(t, time.Minute); code == 0 || m.Kills(t) != 1 {
		t.Errorf("exit code %d, %d kills", code, m.Kills(t))
	}
	small.Kill()
}
