package components

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A probe is content with any 2xx, follows redirects and sends the URL's user; everything else ends it with a reason
// that names the page and no password.
func TestProbe(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ready", http.StatusFound) })
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "NOT OK", http.StatusServiceUnavailable) })
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/users", func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "a" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer secure.Close()
	gone := httptest.NewServer(mux)
	gone.Close()
	user := func(password string) string {
		return strings.Replace(plain.URL, "http://", "http://a:"+password+"@", 1) + "/users"
	}

	f := func(want string, c probeConfig) {
		t.Helper()
		if c.timeout == 0 {
			c.timeout = time.Minute
		}
		err := c.run(t.Context())
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.url, err)
			}
			return
		}
		if err == nil || !strings.HasPrefix(err.Error(), "probe") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", c.url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "wrongword") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	f("", probeConfig{url: plain.URL + "/ready"})
	f("", probeConfig{url: plain.URL + "/none"})
	f("", probeConfig{url: plain.URL + "/moved"})
	f("", probeConfig{url: user("secret")})
	f("", probeConfig{url: secure.URL + "/ready", insecure: true})
	f("status 401", probeConfig{url: user("wrongword")})
	f("status 503: NOT OK", probeConfig{url: plain.URL + "/busy"})
	f("status 404", probeConfig{url: plain.URL + "/absent"})
	f("certificate", probeConfig{url: secure.URL + "/ready"})
	f("no answer within 10ms", probeConfig{url: plain.URL + "/hang", timeout: 10 * time.Millisecond})
	f("refused", probeConfig{url: gone.URL + "/ready"})
	f("want http://", probeConfig{url: "localhost:10902/-/ready"})
	f("want http://", probeConfig{url: "ftp://localhost/"})
	f("is no URL", probeConfig{url: "http://a:wrongword@[::1"})

	code := func(want int, args ...string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if got := execute("koios", append([]string{"probe"}, args...), &stdout, &stderr, All()); got != want {
			t.Errorf("%v: code %d, want %d", args, got, want)
		}
		if stdout.Len() > 0 {
			t.Errorf("%v writes %s", args, stdout.String())
		}
	}
	code(0, plain.URL+"/ready")
	code(0, "--timeout=1m", "--insecure-skip-verify", secure.URL+"/ready")
	code(1, plain.URL+"/busy")
	code(1)
}
