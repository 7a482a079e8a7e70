package sidecar

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/koios-metrics/koios/pkg/promapi"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until cond is true; the deadline only ends a test that has failed.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// fake is a Prometheus that answers what a test tells it to.
type fake struct {
	mu      sync.Mutex
	answers map[string]string // Body by path; without one it is 404.
	status  map[string]int    // Status by path, 200 if absent.
	slow    chan struct{}     // If there is one, answers wait for its end.
	asked   map[string]url.Values
}

func newFake() *fake {
	f := &fake{answers: map[string]string{}, status: map[string]int{}, asked: map[string]url.Values{}}
	f.set("/api/v1/status/buildinfo", `{"status":"success","data":{"version":"3.9.1"}}`)
	f.setFlags(`{"storage.tsdb.path":"/prometheus","storage.tsdb.min-block-duration":"2h","storage.tsdb.max-block-duration":"2h"}`)
	f.setLowest("1000")
	f.setConfig(`global:\n  external_labels:\n    replica: a\n    cluster: one\n`)
	return f
}

func (f *fake) set(path, body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[path] = body
}

func (f *fake) setStatus(path string, code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status[path] = code
}

func (f *fake) setFlags(json string) {
	f.set("/api/v1/status/flags", `{"status":"success","data":`+json+`}`)
}

func (f *fake) setConfig(yaml string) {
	f.set("/api/v1/status/config", `{"status":"success","data":{"yaml":"`+yaml+`"}}`)
}

func (f *fake) setLowest(seconds string) {
	f.set("/metrics", "# TYPE prometheus_tsdb_lowest_timestamp_seconds gauge\nprometheus_tsdb_lowest_timestamp_seconds "+seconds+"\n")
}

func (f *fake) setSlow(slow chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slow = slow
}

func (f *fake) lastAsked(path string) url.Values {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[path]
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	f.mu.Lock()
	f.asked[r.URL.Path] = r.Form
	body, ok := f.answers[r.URL.Path]
	code, slow := f.status[r.URL.Path], f.slow
	f.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-r.Context().Done():
		}
	}
	switch {
	case !ok:
		http.NotFound(w, r)
	case code != 0:
		http.Error(w, body, code)
	default:
		fmt.Fprint(w, body)
	}
}

// home is where a fake answers. It can go away and come back at the same address.
type home struct {
	t    testing.TB
	addr string
	srv  *httptest.Server
	fake *fake
}

// newServer reserves an address; start makes it answer.
func newServer(t testing.TB, f *fake) *home {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	s := &home{t: t, addr: l.Addr().String(), fake: f}
	check(t, l.Close())
	t.Cleanup(s.stop)
	return s
}

func (s *home) start() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.addr)
	check(s.t, err)
	s.srv = &httptest.Server{Listener: l, Config: &http.Server{Handler: s.fake}}
	s.srv.Start()
}

func (s *home) stop() {
	if s.srv != nil {
		s.srv.CloseClientConnections()
		s.srv.Close()
		s.srv = nil
	}
}

// probe remembers what it was told.
type probe struct {
	mu    sync.Mutex
	ready bool
	why   error
}

func (p *probe) Ready() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready, p.why = true, nil
}

func (p *probe) NotReady(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready, p.why = false, reason
}

func (p *probe) isReady() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready
}

func (p *probe) reason() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprint(p.why)
}

// running is a sidecar in action.
type running struct {
	*Sidecar
	probe  *probe
	reg    *prometheus.Registry
	cancel context.CancelFunc
	done   chan error
}

// run starts a sidecar of a Prometheus at addr, quick to retry. It is stopped with the test, and nothing of
// it may stay behind.
func run(t testing.TB, addr string, change ...func(*Config, *Deps)) *running {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	transport := &http.Transport{}
	cfg := Config{GetConfigInterval: 5 * time.Millisecond, RetryInterval: 5 * time.Millisecond, GetConfigTimeout: 10 * time.Second}
	p := &probe{}
	deps := Deps{
		Prometheus: promapi.New(&url.URL{Scheme: "http", Host: addr}, &http.Client{Transport: transport}, ""),
		Probe:      p,
	}
	for _, f := range change {
		f(&cfg, &deps)
	}
	reg := prometheus.NewRegistry()
	s, err := New(cfg, deps, log.NewNopLogger(), reg)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Sidecar: s, probe: p, reg: reg, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-r.done; err != nil {
			t.Errorf("Run: %v", err)
		}
		transport.CloseIdleConnections()
		goleak.VerifyNone(t, leaks,
			goleak.IgnoreAnyFunction("net/http.(*Server).Serve"), goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
			goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"))
	})
	return r
}

// end waits for Run to return by itself.
func (r *running) end() error {
	err := <-r.done
	r.done <- nil
	return err
}

func (r *running) up() float64 { return testutil.ToFloat64(r.metrics.up) }
