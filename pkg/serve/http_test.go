package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"go.uber.org/goleak"

	"github.com/koios-metrics/koios/pkg/logging"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mtx sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	return b.buf.String()
}

// startHTTP runs a server on a free port until stop is called, which waits for its end.
func startHTTP(t *testing.T, cfg HTTPConfig, logger log.Logger, add func(*HTTP)) (s *HTTP, probe *Probe, stop func()) {
	t.Helper()
	reg := NewRegistry()
	probe = NewProbe("test", logger, reg)
	cfg.Address = "127.0.0.1:0"
	s, err := NewHTTP(cfg, logger, reg, probe)
	if err != nil {
		t.Fatal(err)
	}
	if add != nil {
		add(s)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel(errors.New("test ends"))
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
			http.DefaultClient.CloseIdleConnections()
		})
	}
	t.Cleanup(stop)
	return s, probe, stop
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// The base paths answer as documented, and the probe shows in them and in thanos_status.
func TestBasePaths(t *testing.T) {
	s, probe, _ := startHTTP(t, HTTPConfig{Prefix: "/p"}, log.NewNopLogger(), nil)
	base := "http://" + s.Addr().String()

	check := func(path string, wantCode int, wantBody string) {
		t.Helper()
		code, body := get(t, base+path)
		if code != wantCode || wantBody != "" && !strings.Contains(body, wantBody) {
			t.Errorf("%s: %d %.80q: want %d %q", path, code, body, wantCode, wantBody)
		}
	}
	check("/-/healthy", 200, "OK")
	check("/-/ready", 503, "NOT OK")
	check("/metrics", 200, `thanos_status{check="ready",component="test"} 0`)
	probe.Ready()
	check("/-/ready", 200, "OK")
	check("/p/-/ready", 200, "OK")
	check("/p/metrics", 200, `thanos_status{check="ready",component="test"} 1`)
	check("/metrics", 200, `thanos_status{check="healthy",component="test"} 1`)
	check("/metrics", 200, "thanos_build_info{")
	check("/metrics", 200, "go_goroutines ")
	check("/metrics", 200, "process_start_time_seconds ")
	check("/debug/pprof/", 200, "goroutine")
	check("/debug/pprof/heap?debug=1", 200, "heap profile")
	check("/debug/pprof/cmdline", 404, "")
	probe.NotReady(errors.New("x"))
	check("/-/ready", 503, "NOT OK")
	probe.NotHealthy(errors.New("x"))
	check("/-/healthy", 503, "NOT OK")
	probe.Healthy()
	probe.End(nil)
	probe.Ready()
	check("/-/ready", 503, "NOT OK")
}

// /metrics speaks OpenMetrics to who asks for it, and HTTP/2 in clear text is spoken where it is on.
func TestOpenMetricsAndH2C(t *testing.T) {
	s, _, _ := startHTTP(t, HTTPConfig{H2C: true}, log.NewNopLogger(), nil)
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: protocols}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.Addr().String()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.ProtoMajor != 2 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/openmetrics-text") {
		t.Errorf("%s %s", resp.Proto, resp.Header.Get("Content-Type"))
	}
}

// A request in flight is answered after the stop began, new ones are refused, and Run returns after it.
func TestHTTPDrain(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s, probe, stop := startHTTP(t, HTTPConfig{GracePeriod: time.Minute}, log.NewNopLogger(), func(s *HTTP) {
		s.Handle("/slow", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-leave
			_, _ = io.WriteString(w, "done")
		}))
	})
	probe.Ready()
	answer := make(chan string, 1)
	go func() {
		_, body := get(t, "http://"+s.Addr().String()+"/slow")
		answer <- body
	}()
	<-entered
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	waitFor(t, "the listener closes", func() bool {
		_, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + s.Addr().String() + "/-/healthy")
		return err != nil
	})
	if probe.IsReady() {
		t.Error("ready while ending")
	}
	select {
	case <-stopped:
		t.Fatal("stopped with a request in flight")
	default:
	}
	close(leave)
	if got := <-answer; got != "done" {
		t.Errorf("answer %q", got)
	}
	<-stopped
}

// A request that outlasts the grace period is cut off.
func TestHTTPGraceEnds(t *testing.T) {
	entered := make(chan struct{})
	s, _, stop := startHTTP(t, HTTPConfig{GracePeriod: 10 * time.Millisecond}, log.NewNopLogger(), func(s *HTTP) {
		s.Handle("/stuck", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		}))
	})
	failed := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + s.Addr().String() + "/stuck")
		if err == nil {
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	<-entered
	stop()
	if err := <-failed; err == nil {
		t.Error("a stuck request was answered")
	}
}

// Wrapped handlers count by handler and tenant, from 0 before the first request; panics become 500 and
// are counted; ids are kept or made up.
func TestWrap(t *testing.T) {
	var logs lockedBuffer
	logger, err := logging.New(&logs, "debug", "logfmt", "")
	if err != nil {
		t.Fatal(err)
	}
	rl, err := ParseRequestLog([]byte("options: {level: DEBUG, decision: {log_start: true, log_end: true}}"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := HTTPConfig{
		RequestLog:    rl,
		Tenant:        func(r *http.Request) string { return r.Header.Get("THANOS-TENANT") },
		DefaultTenant: "default-tenant",
	}
	s, _, _ := startHTTP(t, cfg, logger, func(s *HTTP) {
		s.Handle("/fine", s.Wrap("fine", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, RequestID(r.Context()))
		})))
		s.Handle("/panics", s.Wrap("panics", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oh no") })))
	})
	base := "http://" + s.Addr().String()
	if _, m := get(t, base+"/metrics"); !strings.Contains(m, `http_requests_total{code="200",handler="fine",method="get",tenant="default-tenant"} 0`) {
		t.Error("no counter before the first request")
	}
	req, _ := http.NewRequest(http.MethodPost, base+"/fine", nil)
	req.Header.Set("THANOS-TENANT", "a")
	req.Header.Set("X-Request-ID", "me")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if string(body) != "me" || resp.Header.Get("X-Request-ID") != "me" {
		t.Errorf("request id %q, header %q", body, resp.Header.Get("X-Request-ID"))
	}
	if code, body := get(t, base+"/panics"); code != 500 || !strings.HasPrefix(body, "internal error") {
		t.Errorf("panic answered %d %q", code, body)
	}
	_, m := get(t, base+"/metrics")
	for _, want := range []string{
		`http_requests_total{code="200",handler="fine",method="post",tenant="a"} 1`,
		`http_requests_total{code="500",handler="panics",method="get",tenant=""} 1`,
		`http_inflight_requests{handler="panics",method="get",tenant=""} 0`,
		`http_request_duration_seconds_count{code="200",handler="fine",method="post",tenant="a"} 1`,
	} {
		if !strings.Contains(m, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	waitFor(t, "log lines", func() bool { return strings.Contains(logs.String(), "http.code=500") })
	for _, want := range []string{`msg="started call"`, "http.request_id=me", "http.code=200", `panic="oh no"`} {
		if !strings.Contains(logs.String(), want) {
			t.Errorf("log lacks %s:\n%s", want, logs.String())
		}
	}
}

// A web config file brings TLS and users; the certificate may change under a running server.
func TestWebConfig(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t)
	ca.issue(t, dir, "one")
	web := filepath.Join(dir, "web.yml")
	write(t, web, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\nhttp_server_config: {headers: {X-Frame-Options: deny}}\n")
	s, _, _ := startHTTP(t, HTTPConfig{WebConfigFile: web}, log.NewNopLogger(), nil)
	name := func() string {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool, ServerName: "localhost"}, DisableKeepAlives: true}}
		resp, err := c.Get("https://" + s.Addr().String() + "/-/healthy")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.Header.Get("X-Frame-Options") != "deny" {
			t.Error("header of the web config is missing")
		}
		return resp.TLS.PeerCertificates[0].Subject.CommonName
	}
	if got := name(); got != "one" {
		t.Errorf("certificate %q", got)
	}
	ca.issue(t, dir, "two")
	if got := name(); got != "two" {
		t.Errorf("certificate %q after the change", got)
	}
}

// What can't work is refused before anything is served, with the file or address in the error.
func TestHTTPRefusals(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yml")
	write(t, bad, "tls_server_confi: {}\n")
	pair := filepath.Join(dir, "pair.yml")
	write(t, pair, "tls_server_config: {cert_file: nowhere.pem, key_file: nowhere.pem}\n")
	for file, want := range map[string]string{
		bad:                         "tls_server_confi",
		pair:                        "nowhere.pem",
		filepath.Join(dir, "x.yml"): "no such file",
	} {
		reg := NewRegistry()
		_, err := NewHTTP(HTTPConfig{WebConfigFile: file}, log.NewNopLogger(), reg, NewProbe("test", log.NewNopLogger(), reg))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", file, err)
		}
	}
	s, _, _ := startHTTP(t, HTTPConfig{}, log.NewNopLogger(), nil)
	reg := NewRegistry()
	other, err := NewHTTP(HTTPConfig{Address: s.Addr().String()}, log.NewNopLogger(), reg, NewProbe("test", log.NewNopLogger(), reg))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("listen for HTTP on %s: listen tcp %s: bind: address already in use", s.Addr(), s.Addr())
	if err := other.Run(context.Background()); err == nil || err.Error() != want {
		t.Errorf("port in use: %v", err)
	}
}

// Request logging refuses what it can't do.
func TestParseRequestLog(t *testing.T) {
	f := func(content, want string) {
		t.Helper()
		_, err := ParseRequestLog([]byte(content))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v: want %q", content, err, want)
		}
	}
	f("", "")
	f("options: {level: ERROR, decision: {log_end: true}}", "")
	f("http: {config: [{path: /api/v1/query, port: 10902}], options: {level: DEBUG, decision: {log_end: true}}}", "")
	f("grpc: {config: [{service: thanos.Store, method: Series}]}", "")
	f("option: {}", "option")
	f("options: {level: debug}", `level is "debug"`)
	f("options: {decision: {log_end: true}}", `level is ""`)
	f("options: {level: INFO, decision: {log_start: true}}", "log_start without log_end")
}

func FuzzParseRequestLog(f *testing.F) {
	f.Add([]byte("options: {level: ERROR, decision: {log_start: true, log_end: true}}"))
	f.Add([]byte("grpc: {config: [{service: a, method: b}]}"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = ParseRequestLog(b) })
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// waitFor polls until ok, for a generous while.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
