package endpoint

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/koios-metrics/koios/pkg/clientconf"
	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	"github.com/koios-metrics/koios/test/certs"
)

// secureNode serves with TLS as its files say at each handshake.
func secureNode(t *testing.T, replica string, cfg serve.TLSConfig, more ...grpc.ServerOption) *node {
	t.Helper()
	tlsConfig, err := serve.NewServerTLS(cfg, log.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	n := &node{}
	n.is(sidecarInfo(replica))
	n.start(t, nil, append(more, grpc.Creds(credentials.NewTLS(tlsConfig)))...)
	return n
}

// lines is a log that may be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// with are the lines that hold all the words.
func (l *lines) with(words ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
next:
	for line := range strings.Lines(l.buf.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// One set reaches a peer in clear text and peers of two authorities, single, as a group and found in DNS, with and
// without a client certificate of its own. Each that it can't trust, or that does not trust it, is refused
// with the reason, in the list and in the log, and hinders nobody.
func TestTLSPerEndpoint(t *testing.T) {
	one, two, strangers := certs.New(t, "authority one"), certs.New(t, "authority two"), certs.New(t, "strangers")
	server := func(a *certs.Authority, o certs.Options) serve.TLSConfig {
		p := a.Issue(t, o)
		return serve.TLSConfig{CertFile: p.Cert, KeyFile: p.Key}
	}
	mutual := func(a *certs.Authority) serve.TLSConfig {
		c := server(a, certs.Options{})
		c.ClientCAFile = a.File
		return c
	}
	client, expired, strange := two.Issue(t, certs.Options{}), two.Issue(t, certs.Options{Expired: true}), strangers.Issue(t, certs.Options{})
	plain := newNode(t, sidecarInfo("plain"))
	named := func(n *node) string { _, port, _ := net.SplitHostPort(n.addr); return "dns+localhost:" + port }
	ca := func(a *certs.Authority) string { return "ca_file: " + a.File }
	own := func(p certs.Pair) string { return ", cert_file: " + p.Cert + ", key_file: " + p.Key }

	var file strings.Builder
	file.WriteString("endpoints:\n- address: " + plain.addr + "\n")
	add := func(address, tls, more string) {
		file.WriteString("- address: " + address + "\n  client_config: {tls_config: {" + tls + "}}\n" + more)
	}
	add(secureNode(t, "one", server(one, certs.Options{})).addr, ca(one), "")
	add(secureNode(t, "two", mutual(two)).addr, ca(two)+own(client), "")
	add(secureNode(t, "group", mutual(two)).addr, ca(two)+own(client), "  group: true\n")
	// Its certificate is for the name, and the name is not what is dialled.
	add(named(secureNode(t, "name", server(one, certs.Options{Names: []string{"localhost"}}))), ca(one), "")
	add(named(secureNode(t, "address", server(one, certs.Options{}))), ca(one), "")

	var logged lines
	refused := map[string]string{}
	refuse := func(n *node, tls, reason string) {
		add(n.addr, tls, "")
		refused[n.addr] = reason
	}
	refuse(secureNode(t, "", server(one, certs.Options{})), ca(two), "certificate signed by unknown authority")
	refuse(secureNode(t, "", server(one, certs.Options{Names: []string{"elsewhere"}})), ca(one), "cannot validate certificate for 127.0.0.1")
	refuse(secureNode(t, "", server(one, certs.Options{Expired: true})), ca(one), "certificate has expired")
	refuse(secureNode(t, "", mutual(two)), ca(two), "certificate required")
	refuse(secureNode(t, "", mutual(two)), ca(two)+own(expired), "expired certificate")
	refuse(secureNode(t, "", mutual(two)), ca(two)+own(strange), "certificate required")
	refuse(newNode(t, nil), ca(one), "first record does not look like a TLS handshake")
	refuse(secureNode(t, "", server(one, certs.Options{})), "ca_file: "+one.File+".missing", "no such file")
	foundWrong := secureNode(t, "found", server(one, certs.Options{Names: []string{"elsewhere"}}))
	add(named(foundWrong), ca(one), "")

	cfg := quick()
	// Reasons come with the end of an attempt, so there has to be time for one.
	cfg.InfoTimeout = 2 * time.Second
	cfg.SD = []byte(file.String())
	s := runLogged(t, cfg, &logged)
	// The first attempt may end for want of time; the reason comes with one of the next.
	for addr, reason := range refused {
		until(t, addr+" is refused: "+reason, func() bool {
			st, ok := s.line(addr)
			return ok && st.LastError != nil && strings.Contains(st.LastError.Error(), reason) && len(logged.with(addr, reason)) > 0
		})
	}
	until(t, "the rest joins", func() bool {
		healthy := map[string]bool{}
		for _, st := range s.Status() {
			if _, ill := refused[st.Name]; ill && st.LastError == nil {
				t.Fatalf("%s is let in: want %s", st.Name, refused[st.Name])
			}
			if st.LastError == nil {
				healthy[st.LabelSets[0].Get("replica")] = true
			}
		}
		return healthy["plain"] && healthy["one"] && healthy["two"] && healthy["group"] && healthy["name"] && healthy["address"]
	})
	until(t, "the log says that a client certificate is of no use to a server, which is known on this side only", func() bool {
		return len(logged.with("does not want the client certificate", strange.Cert)) > 0
	})
	until(t, "the log says that the certificate of an address in DNS is for another name", func() bool {
		return len(logged.with(foundWrong.addr, "certificate is valid for elsewhere, not localhost")) > 0
	})
}

func runLogged(t *testing.T, cfg Config, w *lines) *Set {
	t.Helper()
	return runWith(t, cfg, log.NewLogfmtLogger(w), nil)
}

// A peer whose certificate expires is asked no more, and answers say so: the gap names the peer and the reason.
func TestExpiryIsNamedInAnswers(t *testing.T) {
	a := certs.New(t, "authority")
	pair := a.Issue(t, certs.Options{})
	n := secureNode(t, "a", serve.TLSConfig{CertFile: pair.Cert, KeyFile: pair.Key}, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 100 * time.Millisecond}))
	cfg := quick()
	cfg.InfoTimeout = time.Second
	cfg.Endpoints = []string{n.addr}
	cfg.Client = clientconf.GRPC{TLS: true, CAFile: a.File}
	s := run(t, cfg, nil)
	until(t, "the peer joins", func() bool { return storeNames(s) == n.addr })
	a.Reissue(t, pair, certs.Options{Expired: true})
	until(t, "the peer is refused", func() bool {
		st, ok := s.line(n.addr)
		return ok && st.LastError != nil && strings.Contains(st.LastError.Error(), "certificate has expired")
	})
	fan := fanout.New(s.Stores, fanout.Config{ResponseTimeout: time.Minute, Absent: s.Absent}, log.NewNopLogger(), nil)
	ss, err := fan.Series(t.Context(), &store.SeriesRequest{MinTime: 0, MaxTime: 20, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")}})
	if err != nil {
		t.Fatal(err)
	}
	defer ss.Close()
	for ss.Next() { // to the end
	}
	if ss.Err() != nil || len(ss.Warnings()) == 0 {
		t.Fatalf("error %v, warnings %v", ss.Err(), ss.Warnings())
	}
	if w := ss.Warnings()[0].Error(); !strings.Contains(w, n.addr) || !strings.Contains(w, "certificate has expired") {
		t.Errorf("the warning is %s", w)
	}
}

// Settings that can't be used yet, since a certificate is still to be delivered, are tried again.
func TestCertificateComesLater(t *testing.T) {
	a := certs.New(t, "authority")
	pair := a.Issue(t, certs.Options{})
	n := secureNode(t, "a", serve.TLSConfig{CertFile: pair.Cert, KeyFile: pair.Key})
	later := filepath.Join(t.TempDir(), "ca.crt")
	cfg := quick()
	cfg.SD = []byte("endpoints: [{address: '" + n.addr + "', client_config: {tls_config: {ca_file: " + later + "}}}]")
	s := run(t, cfg, nil)
	if st, ok := s.line(n.addr); !ok || st.LastError == nil || !os.IsNotExist(rootCause(st.LastError)) {
		t.Errorf("status %+v, listed %v", st, ok)
	}
	certs.Put(t, later, a.PEM)
	until(t, "the peer joins", func() bool { return storeNames(s) == n.addr })
}

func rootCause(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		err = u.Unwrap()
	}
}
