package components

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A querier reaches a store over TLS with certificates on both sides, asks it in snappy, and does not
// reach it without a certificate of its own.
func TestMutualTLS(t *testing.T) {
	ca := newAuthority(t)
	server := ca.issue(t)
	client := ca.issue(t)
	st := start(t, arguments(t, "store",
		"--grpc-server-tls-cert="+server.cert, "--grpc-server-tls-key="+server.key, "--grpc-server-tls-client-ca="+ca.file)...)
	st.url(t)
	addr := regexp.MustCompile(`service=grpc .*address=(\S+)`).FindStringSubmatch(st.text())[1]

	querier := func(more ...string) (q *program, stores func() string) {
		q = start(t, arguments(t, "query", append(more, "--endpoint="+addr, "--endpoint.info-timeout=1s",
			"--grpc-client-tls-secure", "--grpc-client-tls-ca="+ca.file, "--grpc-compression=snappy")...)...)
		u := q.url(t)
		return q, func() string { _, b := get(t, u+"/api/v1/stores"); return b }
	}
	_, stores := querier("--grpc-client-tls-cert="+client.cert, "--grpc-client-tls-key="+client.key)
	waitFor(t, "the store is an endpoint", func() bool { return strings.Contains(stores(), `"lastError":null`) })
	without, stores := querier()
	waitFor(t, "the querier is refused", func() bool { return strings.Contains(without.text(), "an endpoint does not say what it has") })
	if body := stores(); strings.Contains(body, addr) {
		t.Errorf("a store that refuses is listed: %s", body)
	}
}

type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
}

type keyPair struct{ cert, key string }

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem")}
	var der []byte
	a.key, der = certificate(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

// issue makes a certificate for 127.0.0.1.
func (a *authority) issue(t *testing.T) keyPair {
	t.Helper()
	key, der := certificate(t, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := keyPair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	writePEM(t, p.cert, "CERTIFICATE", der)
	writePEM(t, p.key, "EC PRIVATE KEY", keyDER)
	return p
}

// certificate makes one, signed by itself without a parent.
func certificate(t *testing.T, tmpl, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if tmpl.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	tmpl.Subject = pkix.Name{CommonName: "test"}
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
