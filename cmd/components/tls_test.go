package components

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/koios-metrics/koios/test/certs"
)

var grpcAddress = regexp.MustCompile(`service=grpc .*address=(\S+)`)

// secureStore serves a day of five series over gRPC with client certificates.
func secureStore(t *testing.T, dir string, server certs.Pair, clients string, more ...string) (p *program, addr string) {
	t.Helper()
	p = start(t, append([]string{"store", "--data-dir=" + t.TempDir(), "--objstore.config={type: FILESYSTEM, config: {directory: " + dir + "}}",
		"--grpc-server-tls-cert=" + server.Cert, "--grpc-server-tls-key=" + server.Key, "--grpc-server-tls-client-ca=" + clients}, append(anyPort, more...)...)...)
	u := p.url(t)
	waitFor(t, "the store is ready", func() bool { code, _ := get(t, u+"/-/ready"); return code == 200 })
	return p, grpcAddress.FindStringSubmatch(p.text())[1]
}

// A querier reaches a store over TLS with certificates on both sides, asks it in snappy, and does not
// reach it without a certificate of its own: which both sides say, naming each other.
func TestMutualTLS(t *testing.T) {
	ca := certs.New(t, "authority")
	dir := t.TempDir()
	wholeDay(t, dir)
	st, addr := secureStore(t, dir, ca.Issue(t, certs.Options{}), ca.File)
	client := ca.Issue(t, certs.Options{})

	querier := func(more ...string) (q *program, stores func() string) {
		q = start(t, arguments(t, "query", append(more, "--endpoint="+addr,
			"--grpc-client-tls-secure", "--grpc-client-tls-ca="+ca.File, "--grpc-compression=snappy")...)...)
		u := q.url(t)
		return q, func() string { _, b := get(t, u+"/api/v1/stores"); return b }
	}
	_, stores := querier("--grpc-client-tls-cert="+client.Cert, "--grpc-client-tls-key="+client.Key)
	waitFor(t, "the store is an endpoint", func() bool { return strings.Contains(stores(), `"lastError":null`) })
	without, stores := querier()
	waitFor(t, "the querier is refused", func() bool { return strings.Contains(without.text(), "an endpoint does not say what it has") })
	for what, text := range map[string]string{"the list": stores(), "the log": without.text()} {
		if !strings.Contains(text, addr) || !strings.Contains(text, "certificate required") {
			t.Errorf("%s does not name the endpoint and the reason: %s", what, text)
		}
	}
	if text := st.text(); !strings.Contains(text, "a client is refused in the TLS handshake") || !strings.Contains(text, "client didn't provide a certificate") {
		t.Errorf("the store does not say whom it refuses, and why: %s", text)
	}
}

// One querier sees three stores that are secured by three authorities, and while certificates and then authorities
// of servers and client are replaced and connections are made anew all the time, no query fails or lacks anything.
func TestRotationUnderQueries(t *testing.T) {
	const clusters, askers = 3, 2
	var sd strings.Builder
	sd.WriteString("endpoints:\n")
	type cluster struct {
		server, client   certs.Pair
		servers, clients *certs.Authority
	}
	cs := make([]*cluster, clusters)
	stores := make([]*program, clusters)
	for i := range cs {
		c := &cluster{servers: certs.New(t, "servers"), clients: certs.New(t, "clients")}
		c.server, c.client = c.servers.Issue(t, certs.Options{}), c.clients.Issue(t, certs.Options{})
		dir := t.TempDir()
		wholeDay(t, dir)
		var addr string
		stores[i], addr = secureStore(t, dir, c.server, c.clients.File, "--grpc-server-max-connection-age=300ms")
		fmt.Fprintf(&sd, "- address: %s\n  client_config: {tls_config: {ca_file: %s, cert_file: %s, key_file: %s}}\n", addr, c.servers.File, c.client.Cert, c.client.Key)
		cs[i] = c
	}
	q := start(t, arguments(t, "query", "--endpoint.sd-config="+sd.String(), "--no-query.partial-response")...)
	u := q.url(t)
	ask := func() (value string, err error) {
		resp, err := http.Get(u + "/api/v1/query?" + url.Values{"query": {"sum(count_over_time(up[1h]))"}, "time": {fmt.Sprint(19_700*86400 + 7200)}, "dedup": {"false"}}.Encode())
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return "", err
		}
		var body struct {
			Warnings []string
			Data     struct {
				Result []struct{ Value []any }
			}
		}
		if err := json.Unmarshal(text, &body); err != nil || resp.StatusCode != http.StatusOK || len(body.Warnings) > 0 || len(body.Data.Result) != 1 {
			return "", fmt.Errorf("answer %d %s (%v)", resp.StatusCode, text, err)
		}
		return fmt.Sprint(body.Data.Result[0].Value[1]), nil
	}
	waitFor(t, "all stores are asked", func() bool {
		_, body := get(t, u+"/api/v1/stores")
		return strings.Count(body, `"lastError":null`) == clusters
	})
	want, err := ask()
	if err != nil || want == "0" {
		t.Fatalf("answer %q, %v", want, err)
	}

	var asked atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := ask()
				if err != nil || got != want {
					t.Errorf("query %d: %q, %v: want %s", asked.Load(), got, err, want)
					return
				}
				asked.Add(1)
			}
		})
	}
	// settle changes files, and lets queries and new connections come about with what they hold then.
	settle := func(what string, change func()) {
		t.Helper()
		loads := make([]int, clusters)
		reloads := func(i int) int { return strings.Count(stores[i].text(), "TLS files reloaded") }
		for i := range loads {
			loads[i] = reloads(i)
		}
		change()
		from := asked.Load()
		waitFor(t, what, func() bool {
			for i := range loads {
				if reloads(i) == loads[i] {
					return t.Failed()
				}
			}
			return t.Failed() || asked.Load() > from+20
		})
	}
	both := func(a, b *certs.Authority) []byte { return append(append([]byte{}, a.PEM...), b.PEM...) }
	for range 2 {
		settle("new certificates", func() {
			for _, c := range cs {
				c.servers.Reissue(t, c.server, certs.Options{})
				c.clients.Reissue(t, c.client, certs.Options{})
			}
		})
	}
	// New authorities: first both are trusted, then the new ones sign, then the old ones are dropped.
	next := make([][2]*certs.Authority, clusters)
	settle("both authorities", func() {
		for i, c := range cs {
			next[i] = [2]*certs.Authority{certs.New(t, "new servers"), certs.New(t, "new clients")}
			certs.Put(t, c.servers.File, both(c.servers, next[i][0]))
			certs.Put(t, c.clients.File, both(c.clients, next[i][1]))
		}
	})
	settle("certificates of the new authorities", func() {
		for i, c := range cs {
			next[i][0].Reissue(t, c.server, certs.Options{})
			next[i][1].Reissue(t, c.client, certs.Options{})
		}
	})
	settle("without the old authorities", func() {
		for i, c := range cs {
			certs.Put(t, c.servers.File, next[i][0].PEM)
			certs.Put(t, c.clients.File, next[i][1].PEM)
		}
	})
	close(stop)
	wg.Wait()
	t.Logf("%d queries", asked.Load())
}

// The querier's HTTP is encrypted and wants a client certificate, as its web configuration says; the frontend before
// it shows one, and has users of its own.
func TestWebTLSAndUsers(t *testing.T) {
	ca := certs.New(t, "authority")
	server, client := ca.Issue(t, certs.Options{}), ca.Issue(t, certs.Options{})
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	q := start(t, arguments(t, "query", "--http.config="+write("query.yml",
		"tls_server_config: {cert_file: "+server.Cert+", key_file: "+server.Key+", client_auth_type: RequireAndVerifyClientCert, client_ca_file: "+ca.File+", min_version: TLS13}\n"))...)
	downstream := strings.Replace(q.url(t), "http://", "https://", 1)
	const hash = "$2a$04$Wu8cKO8qtUF6WJ9r/PPz1OTqqXNzdtyRaP1rlz/xGx0nqeq4G4K6S" // of "open sesame"
	f := start(t, "query-frontend", "--http-address=127.0.0.1:0", "--query-frontend.downstream-url="+downstream,
		"--query-frontend.downstream-tripper-config={tls_config: {ca_file: "+ca.File+", cert_file: "+client.Cert+", key_file: "+client.Key+"}}",
		"--http.config="+write("frontend.yml", "tls_server_config: {cert_file: "+server.Cert+", key_file: "+server.Key+"}\nbasic_auth_users: {grafana: "+hash+"}\n"))
	front := strings.Replace(f.url(t), "http://", "https://", 1)

	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	ask := func(u, password string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u+"/api/v1/query?query=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			req.SetBasicAuth("grafana", password)
		}
		resp, err := c.Do(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	waitFor(t, "an answer through the frontend", func() bool { code, err := ask(front, "open sesame"); return err == nil && code == http.StatusOK })
	for _, password := range []string{"", "guess"} {
		if code, err := ask(front, password); err != nil || code != http.StatusUnauthorized {
			t.Errorf("with the password %q: %d, %v", password, code, err)
		}
	}
	if code, err := ask(downstream, ""); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("without a client certificate: %d, %v", code, err)
	}
}
