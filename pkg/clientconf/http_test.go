package clientconf

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// YAML is read on top of the defaults it is given; contradictions and unknown keys are refused.
func TestParseHTTP(t *testing.T) {
	f := func(defaults HTTP, text string, ok bool, want HTTP) {
		t.Helper()
		got, err := ParseHTTP(defaults, []byte(text))
		if (err == nil) != ok {
			t.Errorf("%s: error %v", text, err)
		}
		if diff := cmp.Diff(want, got); ok && diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	f(DefaultHTTP(), "", true, DefaultHTTP())
	f(HTTP{}, "", true, HTTP{})
	changed := DefaultHTTP()
	changed.Transport.IdleConnTimeout = 5 * time.Second
	changed.Transport.MaxConnsPerHost = 7
	changed.TLS = HTTPTLS{CAFile: "ca", CertFile: "c", KeyFile: "k", ServerName: "s", InsecureSkipVerify: true}
	changed.BasicAuth = BasicAuth{Username: "u", PasswordFile: "p"}
	changed.ProxyURL = "http://proxy:1"
	f(DefaultHTTP(), `
basic_auth: {username: u, password_file: p}
proxy_url: http://proxy:1
tls_config: {ca_file: ca, cert_file: c, key_file: k, server_name: s, insecure_skip_verify: true}
transport_config: {idle_conn_timeout: 5000000000, max_conns_per_host: 7}
`, true, changed)
	f(HTTP{}, "bearer_token: x", true, HTTP{BearerToken: "x"})
	f(HTTP{}, "bearer_token: x\nbearer_token_file: y", false, HTTP{})
	f(HTTP{}, "basic_auth: {username: u}\nbearer_token_file: y", false, HTTP{})
	f(HTTP{}, "basic_auth: {password: u, password_file: y}", false, HTTP{})
	f(HTTP{}, "tls_config: {cert_file: c}", false, HTTP{})
	f(HTTP{}, "proxy_url: '::'", false, HTTP{})
	f(HTTP{}, "transport_config: {dialer_timeout: -1}", false, HTTP{})
	f(HTTP{}, "nonsense: 1", false, HTTP{})
	f(HTTP{}, "[", false, HTTP{})
}

func FuzzParseHTTP(f *testing.F) {
	f.Add([]byte("bearer_token: x"))
	f.Add([]byte("transport_config: {idle_conn_timeout: 5000000000, max_conns_per_host: 7}\nproxy_url: http://x"))
	f.Add([]byte("basic_auth: {username: u, password: p}\ntls_config: {insecure_skip_verify: true}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseHTTP(DefaultHTTP(), b)
		if err == nil && c.TLS.CAFile == "" && c.TLS.CertFile == "" {
			if _, err := c.Client("x"); err != nil {
				t.Errorf("a config that parses makes no client: %v", err)
			}
		}
	})
}

// Credentials, taken from files at each request, and the user agent reach the server over HTTP/2 with TLS
// on both sides; certificates and passwords that change on disk are picked up.
func TestHTTPClient(t *testing.T) {
	servers, clients := newAuthority(t), newAuthority(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		_, _ = io.WriteString(w, r.Proto+" "+r.UserAgent()+" "+password+" "+r.Header.Get("Authorization")[:6]+" "+r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	srv.TLS = servers.serverTLS(t, clients)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()

	dir := t.TempDir()
	c := DefaultHTTP()
	c.TLS.CertFile, c.TLS.KeyFile, _ = clients.files(t, dir, "first")
	c.TLS.CAFile = filepath.Join(dir, "servers.crt")
	put(t, c.TLS.CAFile, servers.pem)
	c.BasicAuth = BasicAuth{Username: "u", PasswordFile: filepath.Join(dir, "password")}
	put(t, c.BasicAuth.PasswordFile, []byte("one\n"))
	client, err := c.Client("Koios/1")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	f := func(want string) {
		t.Helper()
		resp, err := client.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if string(b) != want {
			t.Errorf("the server saw %q, want %q", b, want)
		}
	}
	f("HTTP/2.0 Koios/1 one Basic  first")
	clients.files(t, dir, "second")
	put(t, c.BasicAuth.PasswordFile, []byte("two"))
	f("HTTP/2.0 Koios/1 two Basic  second")

	c.TLS.CAFile = filepath.Join(dir, "missing")
	if _, err := c.Client(""); err == nil {
		t.Error("a missing authority is taken")
	}
}

// A bearer token goes out as such, and a request that names its own agent keeps it.
func TestBearerTokenAndAgent(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Authorization")+" "+r.UserAgent())
	}))
	defer srv.Close()
	client, err := HTTP{BearerToken: "secret"}.Client("Koios/1")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	req, _ := http.NewRequest(http.MethodGet, srv.URL, nil)
	req.Header.Set("User-Agent", "mine")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "Bearer secret mine" {
		t.Errorf("the server saw %q", b)
	}
}
