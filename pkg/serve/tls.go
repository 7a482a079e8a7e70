package serve

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"google.golang.org/grpc/credentials"
)

// TLSConfig is the server side of TLS. The zero value is clear text.
type TLSConfig struct {
	// CertFile and KeyFile hold the server's certificate chain and key in PEM; both or none.
	CertFile, KeyFile string
	// ClientCAFile holds authorities in PEM. When given, clients must show a certificate that one of
	// them signed.
	ClientCAFile string
	// MinVersion is 1.0, 1.1, 1.2 or 1.3; empty is 1.3.
	MinVersion string
	// Ciphers are Go's names of cipher suites up to TLS 1.2; none is Go's choice. An element may be a
	// comma list.
	Ciphers []string
	// Curves are key exchanges in order of preference, as CurveP256, P-256, X25519 or X25519MLKEM768;
	// none is Go's choice. An element may be a comma list.
	Curves []string
}

// NewServerTLS reads and checks the files and returns what a server needs, nil for clear text. The files
// are looked at again at each handshake; changed ones are read anew, and when they are broken, the last
// good ones stay in use and the fault is logged.
func NewServerTLS(cfg TLSConfig, logger log.Logger) (*tls.Config, error) {
	if cfg.CertFile == "" && cfg.KeyFile == "" {
		if cfg.ClientCAFile != "" {
			return nil, errors.New("a client CA is given without a server certificate and key: give all three")
		}
		return nil, nil
	}
	if cfg.CertFile == "" || cfg.KeyFile == "" {
		return nil, errors.New("TLS needs both a server certificate and its key")
	}
	base := &tls.Config{NextProtos: []string{"h2"}}
	var err error
	if base.MinVersion, err = tlsVersion(cfg.MinVersion); err != nil {
		return nil, err
	}
	if base.CipherSuites, err = cipherSuites(cfg.Ciphers); err != nil {
		return nil, err
	}
	if base.CurvePreferences, err = curves(cfg.Curves); err != nil {
		return nil, err
	}
	r := &reloadedTLS{cfg: cfg, base: base, logger: logger}
	if err := r.load(r.stat()); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:         base.MinVersion,
		NextProtos:         base.NextProtos,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.get(), nil },
	}, nil
}

// reloadedTLS keeps the TLS configuration made of three files, renewed when one of them changes.
type reloadedTLS struct {
	cfg    TLSConfig
	base   *tls.Config
	logger log.Logger

	mtx     sync.Mutex
	current *tls.Config
	seen    [3]os.FileInfo // of the last attempt, good or bad
}

func (r *reloadedTLS) get() *tls.Config {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	now := r.stat()
	if sameFiles(r.seen, now) {
		return r.current
	}
	if err := r.load(now); err != nil {
		_ = level.Error(r.logger).Log("msg", "changed TLS files can't be used: the previous ones stay", "err", err)
		return r.current
	}
	_ = level.Info(r.logger).Log("msg", "TLS files reloaded", "cert", r.cfg.CertFile)
	return r.current
}

// load reads the files into current; seen is how they looked before.
func (r *reloadedTLS) load(seen [3]os.FileInfo) error {
	r.seen = seen
	cert, err := tls.LoadX509KeyPair(r.cfg.CertFile, r.cfg.KeyFile)
	if err != nil {
		return fmt.Errorf("load TLS certificate %s with key %s: %w", r.cfg.CertFile, r.cfg.KeyFile, err)
	}
	c := r.base.Clone()
	c.Certificates = []tls.Certificate{cert}
	if r.cfg.ClientCAFile != "" {
		pem, err := os.ReadFile(r.cfg.ClientCAFile)
		if err != nil {
			return fmt.Errorf("read client CA: %w", err)
		}
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("client CA %s holds no certificate in PEM", r.cfg.ClientCAFile)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	r.current = c
	return nil
}

// stat looks at the files, through symbolic links; one that can't be seen is nil.
func (r *reloadedTLS) stat() (infos [3]os.FileInfo) {
	for i, f := range []string{r.cfg.CertFile, r.cfg.KeyFile, r.cfg.ClientCAFile} {
		if f != "" {
			infos[i], _ = os.Stat(f)
		}
	}
	return infos
}

func sameFiles(a, b [3]os.FileInfo) bool {
	for i := range a {
		x, y := a[i], b[i]
		if (x == nil) != (y == nil) {
			return false
		}
		if x != nil && (!os.SameFile(x, y) || !x.ModTime().Equal(y.ModTime()) || x.Size() != y.Size()) {
			return false
		}
	}
	return true
}

// refusals are credentials that log which clients TLS does not come about with, and why: those at the other end
// of a network see no more of it than "bad certificate".
type refusals struct {
	credentials.TransportCredentials
	logger log.Logger
}

// ServerHandshake implements credentials.TransportCredentials.
func (r *refusals) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := r.TransportCredentials.ServerHandshake(conn)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		// A port check, by a load balancer or a probe.
		_ = level.Debug(r.logger).Log("msg", "a client leaves during the TLS handshake", "remote", conn.RemoteAddr(), "err", err)
	default:
		_ = level.Warn(r.logger).Log("msg", "a client is refused in the TLS handshake, or refuses", "remote", conn.RemoteAddr(), "err", err)
	}
	return c, info, err
}

// Clone implements credentials.TransportCredentials.
func (r *refusals) Clone() credentials.TransportCredentials {
	return &refusals{r.TransportCredentials.Clone(), r.logger}
}

func tlsVersion(s string) (uint16, error) {
	switch s {
	case "1.0":
		return tls.VersionTLS10, nil
	case "1.1":
		return tls.VersionTLS11, nil
	case "1.2":
		return tls.VersionTLS12, nil
	case "", "1.3":
		return tls.VersionTLS13, nil
	}
	return 0, fmt.Errorf("unknown TLS version %q: want 1.0, 1.1, 1.2 or 1.3", s)
}

func cipherSuites(lists []string) ([]uint16, error) {
	known := append(tls.CipherSuites(), tls.InsecureCipherSuites()...)
	var ids []uint16
next:
	for _, name := range splitLists(lists) {
		for _, s := range known {
			if s.Name == name {
				ids = append(ids, s.ID)
				continue next
			}
		}
		return nil, fmt.Errorf("unknown TLS cipher suite %q: want a name like %s", name, known[0].Name)
	}
	return ids, nil
}

var curveNames = map[string]tls.CurveID{
	"CurveP256": tls.CurveP256, "P-256": tls.CurveP256, "P256": tls.CurveP256,
	"CurveP384": tls.CurveP384, "P-384": tls.CurveP384, "P384": tls.CurveP384,
	"CurveP521": tls.CurveP521, "P-521": tls.CurveP521, "P521": tls.CurveP521,
	"X25519":             tls.X25519,
	"X25519MLKEM768":     tls.X25519MLKEM768,
	"SecP256r1MLKEM768":  tls.SecP256r1MLKEM768,
	"SecP384r1MLKEM1024": tls.SecP384r1MLKEM1024,
}

func curves(lists []string) ([]tls.CurveID, error) {
	var ids []tls.CurveID
	for _, name := range splitLists(lists) {
		id, ok := curveNames[name]
		if !ok {
			return nil, fmt.Errorf("unknown TLS curve %q: want CurveP256, CurveP384, CurveP521, X25519 or X25519MLKEM768", name)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func splitLists(lists []string) (all []string) {
	for _, l := range lists {
		for s := range strings.SplitSeq(l, ",") {
			if s = strings.TrimSpace(s); s != "" {
				all = append(all, s)
			}
		}
	}
	return all
}
