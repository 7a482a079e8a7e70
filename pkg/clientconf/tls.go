package clientconf

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"sync/atomic"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"google.golang.org/grpc/credentials"
)

// reloadingCredentials read the files anew for each handshake. Handshakes are rare, and nothing has to
// be watched.
type reloadingCredentials struct {
	conf   GRPC
	logger log.Logger
	good   *atomic.Pointer[credentials.TransportCredentials] // made of the files as they last could be read
}

func newReloadingCredentials(g GRPC, logger log.Logger) (credentials.TransportCredentials, error) {
	c := &reloadingCredentials{conf: g, logger: logger, good: &atomic.Pointer[credentials.TransportCredentials]{}}
	return c, c.reload()
}

func (c *reloadingCredentials) reload() error {
	t, err := c.conf.tlsConfig()
	if err != nil {
		return err
	}
	creds := credentials.NewTLS(t)
	c.good.Store(&creds)
	return nil
}

func (c *reloadingCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if err := c.reload(); err != nil {
		level.Error(c.logger).Log("msg", "client certificates can't be read; the last good ones stay in use", "err", err)
	}
	return (*c.good.Load()).ClientHandshake(ctx, authority, conn)
}

func (c *reloadingCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return (*c.good.Load()).ServerHandshake(conn)
}

func (c *reloadingCredentials) Info() credentials.ProtocolInfo { return (*c.good.Load()).Info() }

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
