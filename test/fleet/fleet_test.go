package fleet

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A program is started, killed, started again and stopped; what it wrote at each start is kept.
func TestProcess(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	p := Start(t, "shell", sh, "-c", `trap "exit 0" TERM; echo up; while :; do sleep 0.01; done`)
	up := func(n int) {
		t.Helper()
		Eventually(t, "it is up", 10*time.Second, func() error {
			if strings.Count(p.Log(), "up\n") != n {
				return os.ErrNotExist
			}
			return nil
		})
	}
	up(1)
	p.Kill()
	if p.Running() {
		t.Error("it runs after it was killed")
	}
	p.Restart(t)
	up(2)
	p.Stop(t)
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("a second stop: %v", err)
	}

	p = Start(t, "shell", sh, "-c", "exit 3")
	if code := p.WaitExit(t, 10*time.Second); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

// Samples are found on a page by name and pieces of their labels, and added up.
func TestMetric(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("# TYPE a counter\na{x=\"1\"} 2\na{x=\"2\"} 3\nab 7\na_total 9\nb 1e3\n"))
	}))
	defer srv.Close()
	f := func(want float64, found bool, name string, with ...string) {
		t.Helper()
		if v, ok := Metric(t.Context(), srv.URL, name, with...); v != want || ok != found {
			t.Errorf("%s %v: %v, %v", name, with, v, ok)
		}
	}
	f(5, true, "a")
	f(3, true, "a", `x="2"`)
	f(1000, true, "b")
	f(0, false, "a", `x="3"`)
	f(0, false, "c")
}
