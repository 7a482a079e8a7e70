package clientconf

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"google.golang.org/grpc/credentials"
)

// reloadingCredentials read the files anew for each handshake. Handshakes are rare, and nothing has to
// be watched.
type reloadingCredentials struct {
	conf   GRPC
	logger log.Logger
	good   *atomic.Pointer[tls.Config] // made of the files as they last could be read
}

func newReloadingCredentials(g GRPC, logger log.Logger) (credentials.TransportCredentials, error) {
	c := &reloadingCredentials{conf: g, logger: logger, good: &atomic.Pointer[tls.Config]{}}
	return c, c.reload()
}

func (c *reloadingCredentials) reload() error {
	t, err := c.conf.tlsConfig()
	if err != nil {
		return err
	}
	c.good.Store(t)
	return nil
}

func (c *reloadingCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := c.reload(); err != nil {
		level.Error(c.logger).Log("msg", "client certificates can't be read; the last good ones stay in use", "err", err)
	}
	t := c.good.Load().Clone()
	c.tellUnwanted(t, authority)
	if c.conf.named() && !t.InsecureSkipVerify {
		// The verification that this turns off is done by verifyFound.
		t.InsecureSkipVerify, t.VerifyConnection = true, verifyFound(t.RootCAs, c.conf.Name, conn.RemoteAddr())
	}
	secured, info, err := credentials.NewTLS(t).ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	return &untried{Conn: secured}, info, nil
}

// untried is a connection on which the server has not said anything yet. In TLS 1.3 that is when a server refuses
// the client's certificate: the client, done with its own part, finds the connection broken, and why stands in
// an alert that is still to be read.
type untried struct {
	net.Conn
	answered atomic.Bool
}

// alertWait is how long an alert is waited for on a connection that can't be written to.
const alertWait = 100 * time.Millisecond

func (u *untried) Read(b []byte) (int, error) {
	n, err := u.Conn.Read(b)
	if n > 0 {
		u.answered.Store(true)
	}
	return n, err
}

func (u *untried) Write(b []byte) (int, error) {
	n, err := u.Conn.Write(b)
	if err == nil || u.answered.Load() {
		return n, err
	}
	// Nobody can do anything else with the connection any more, so what is read is not missed.
	if u.SetReadDeadline(time.Now().Add(alertWait)) == nil {
		var alert *net.OpError
		if _, rerr := u.Conn.Read(make([]byte, 1)); errors.As(rerr, &alert) && alert.Op == "remote error" {
			return n, rerr
		}
	}
	return n, err
}

// tellUnwanted makes a handshake log that the server wants a certificate of others than those who signed ours, for
// then none is sent, and all that comes back is that one is required.
func (c *reloadingCredentials) tellUnwanted(t *tls.Config, authority string) {
	if len(t.Certificates) == 0 {
		return
	}
	pair := t.Certificates[0]
	t.GetClientCertificate = func(asked *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if err := asked.SupportsCertificate(&pair); err != nil {
			level.Warn(c.logger).Log("msg", "the server does not want the client certificate: it is not of an authority that the server names", "server", authority, "cert", c.conf.CertFile, "err", err)
			return &tls.Certificate{}, nil
		}
		// A server behind an ingress may be told no more than that the certificate is wrong.
		if pair.Leaf != nil && time.Now().After(pair.Leaf.NotAfter) {
			level.Warn(c.logger).Log("msg", "the client certificate has expired: the server will refuse it", "server", authority, "cert", c.conf.CertFile, "until", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
		}
		return &pair, nil
	}
}

func (c *reloadingCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.good.Load()).ServerHandshake(conn)
}

func (c *reloadingCredentials) Info() credentials.ProtocolInfo {
	return credentials.NewTLS(c.good.Load()).Info()
}

// Clone shares the files: it is only ever cloned to be left as it is.
func (c *reloadingCredentials) Clone() credentials.TransportCredentials {
	d := *c
	return &d
}

// OverrideServerName is part of the interface; gRPC itself uses the authority instead.
func (c *reloadingCredentials) OverrideServerName(name string) error {
	c.conf.ServerName = name
	return c.reload()
}

// verifyFound verifies a server that discovery found: its chain as TLS does by itself, and that the leaf is
// for the configured name or, as in certificates that list the addresses of servers, for the address.
func verifyFound(roots *x509.CertPool, name string, addr net.Addr) func(tls.ConnectionState) error {
	host := hostOf(name)
	return func(cs tls.ConnectionState) error {
		leaf, between := cs.PeerCertificates[0], x509.NewCertPool()
		for _, c := range cs.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
		if err == nil {
			if err = leaf.VerifyHostname(host); err != nil && leaf.VerifyHostname(hostOf(addr.String())) == nil {
				err = nil
			}
		}
		if err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
		}
		return nil
	}
}

// hostOf is an address without its port, if it has one.
func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// tlsConfig reads the files.
func (g GRPC) tlsConfig() (*tls.Config, error) {
	version, err := tlsVersion(g.MinVersion)
	if err != nil {
		return nil, err
	}
	t := &tls.Config{MinVersion: version, ServerName: g.ServerName, InsecureSkipVerify: g.InsecureSkipVerify}
	if g.CAFile != "" {
		pem, err := os.ReadFile(g.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read certificate authority: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authority %s holds no PEM certificate", g.CAFile)
		}
	}
	if g.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(g.CertFile, g.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read client certificate %s: %w", g.CertFile, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

func tlsVersion(s string) (uint16, error) {
	switch cmp.Or(s, minVersionDefault) {
	case "1.0":
		return tls.VersionTLS10, nil
	case "1.1":
		return tls.VersionTLS11, nil
	case "1.2":
		return tls.VersionTLS12, nil
	case "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("TLS version %q: want 1.0, 1.1, 1.2 or 1.3", s)
}
