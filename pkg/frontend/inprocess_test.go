package frontend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// A handler of the same process is asked as over a connection: with the form, the path and the headers; its status,
// headers and body come back while it writes. Who leaves, and a handler that gives up, leave nothing running.
func TestInProcess(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	began := make(chan struct{}, 1)
	client := &http.Client{Transport: InProcess{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/early":
			w.Header().Set("X-Early", "yes")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusTeapot)
			w.Header().Set("X-Late", "yes")
			_, _ = fmt.Fprint(w, r.FormValue("a"), r.RequestURI, r.Host, r.Header.Get("X-Mine"))
		case "/flush":
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/hang":
			began <- struct{}{}
			<-r.Context().Done()
		case "/abort":
			_, _ = fmt.Fprint(w, "half")
			panic(http.ErrAbortHandler)
		case "/long":
			for {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		}
	})}}
	ask := func(ctx context.Context, path string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://here"+path, strings.NewReader("a=b"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("X-Mine", "1")
		return client.Do(req)
	}
	answer := func(path string) (*http.Response, string, error) {
		resp, err := ask(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		return resp, string(b), err
	}
	resp, body, err := answer("/early")
	if err != nil || resp.StatusCode != http.StatusTeapot || body != "b/earlyhere1" || resp.Header.Get("X-Early") != "yes" || resp.Header.Get("X-Late") != "" {
		t.Errorf("%v %q %v %v", resp.StatusCode, body, resp.Header, err)
	}
	if resp, body, err = answer("/nothing"); err != nil || resp.StatusCode != http.StatusOK || body != "" {
		t.Errorf("%v %q %v", resp.StatusCode, body, err)
	}
	if _, body, err = answer("/abort"); err == nil || body != "half" {
		t.Errorf("%q %v", body, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	resp, err = ask(ctx, "/flush")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = resp.Body.Close()
	ctx, cancel = context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if resp, err := ask(ctx, "/hang"); err == nil {
		_ = resp.Body.Close()
	} else if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if resp, err = ask(t.Context(), "/long"); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

// A frontend over a querier of its own process answers range queries and passes the rest through.
func TestFrontendInProcess(t *testing.T) {
	below := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/query_range") {
			if err := r.ParseForm(); err != nil {
				t.Error(err)
				return
			}
			steps(w, r)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprint(w, r.URL.Path, r.FormValue("x"))
	})
	u := &url.URL{Scheme: "http", Host: "querier"}
	f, err := New(Config{Downstream: u, Transport: InProcess{below}, Range: RangeConfig{Align: true, Split: SplitConfig{Interval: 100_000, Parallel: 2}}}, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, rangePath+"?query=up&start=0&end=1000&step=10", nil))
	if n := strings.Count(w.Body.String(), "],["); w.Code != http.StatusOK || n != 100 {
		t.Errorf("%d with %d points: %s", w.Code, n+1, w.Body)
	}
	w = httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/rules?x=y", nil))
	if w.Code != http.StatusAccepted || w.Body.String() != "/api/v1/rulesy" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// Without a range of its own, a request for labels that says no start is the querier's to answer.
	w = httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/labels", nil))
	if w.Code != http.StatusAccepted {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
