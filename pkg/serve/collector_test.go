package serve

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// Shows that the pace follows what is in use, collection by collection, and that it is left alone by who says so.
func TestPaceCollector(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	if v, ok := os.LookupEnv("GOGC"); ok {
		t.Cleanup(func() { _ = os.Setenv("GOGC", v) })
		_ = os.Unsetenv("GOGC")
	}
	now := func() int {
		percent := debug.SetGCPercent(100)
		debug.SetGCPercent(percent)
		return percent
	}
	until := func(what string, ok func(int) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(now()); {
			if time.Now().After(end) {
				t.Fatalf("%s: the collector goes at %d %%", what, now())
			}
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}
	stop := PaceCollector(64<<20, 40)
	defer stop()
	until("little in use", func(p int) bool { return p > 300 })
	func() {
		held := make([]byte, 300<<20)
		until("much in use", func(p int) bool { return p == 40 })
		runtime.KeepAlive(held)
	}()
	until("little again", func(p int) bool { return p > 300 })

	stop()
	debug.SetGCPercent(77)
	for range 3 {
		runtime.GC()
	}
	if p := now(); p != 77 {
		t.Errorf("stopped, it goes at %d %%", p)
	}
	t.Setenv("GOGC", "100")
	PaceCollector(64<<20, 40)()
	if p := now(); p != 77 {
		t.Errorf("it goes at %d %% where GOGC says otherwise", p)
	}
}
