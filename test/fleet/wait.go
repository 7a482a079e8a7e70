package fleet

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// pollEvery is the pause between two looks at a condition.
const pollEvery = 50 * time.Millisecond

// given are the addresses that FreeAddr has returned: the kernel may call a port free again that nobody listens on yet.
var given sync.Map

// FreeAddr returns an address of this machine with a port that the kernel says is free, and not the same one twice.
func FreeAddr(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		addr := l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		if _, twice := given.LoadOrStore(addr, true); !twice {
			return addr
		}
	}
}

// Eventually calls f until it returns no error; after the wait it fails the test with the last one.
func Eventually(t testing.TB, what string, wait time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, wait, err)
		}
		time.Sleep(pollEvery)
	}
}

// Get asks for a page and returns its status and body; the status of a server that does not answer is 0.
func Get(ctx context.Context, url string) (status int, body string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// WaitReady waits until url answers 200 and fails the test at once when the program ends instead.
func (p *Process) WaitReady(t testing.TB, url string) {
	t.Helper()
	deadline := time.Now().Add(readyWait)
	for {
		status, body := Get(t.Context(), url)
		if status == http.StatusOK {
			return
		}
		if !p.Running() {
			t.Fatalf("%s ended before it was ready: %v\n%s", p.name, p.exitError(), p.log.tail(logTailLines))
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready after %v: %d %s\n%s", p.name, readyWait, status, body, p.log.tail(logTailLines))
		}
		time.Sleep(pollEvery)
	}
}

// Metric returns the sum of the samples of a metric on the /metrics page of a server, of those series that
// contain all of the given pieces of label text (`name="value"`); ok is false when there is none.
func Metric(ctx context.Context, metricsURL, name string, with ...string) (sum float64, ok bool) {
	_, body := Get(ctx, metricsURL)
	for line := range strings.Lines(body) {
		v, found := sampleOf(strings.TrimSpace(line), name, with)
		if found {
			sum, ok = sum+v, true
		}
	}
	return sum, ok
}
