package clientconf

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/go-kit/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The compressions that a gRPC client may ask for. Snappy takes effect in a program that imports
// package grpcsnappy.
const (
	CompressionNone   = "none"
	CompressionSnappy = "snappy"
)

// minVersionDefault is the least TLS version spoken if nothing else is said.
const minVersionDefault = "1.3"

// GRPC is the complete setting of one gRPC client. It is comparable: equal settings make equal clients.
type GRPC struct {
	// TLS turns encryption on; the fields below it count only then.
	TLS                bool
	InsecureSkipVerify bool
	// CertFile and KeyFile are the client's own certificate, both or none.
	CertFile, KeyFile string
	// CAFile signs the servers; without it the system's authorities do.
	CAFile string
	// MinVersion is 1.0, 1.1, 1.2 or 1.3, by default 1.3.
	MinVersion string
	// ServerName is expected in the server's certificate instead of the name that was dialled.
	ServerName string
	// Name is the host:port, or host, as configured, of a server whose address discovery found. It is what the
	// server is called in TLS and in requests unless ServerName is given, and its certificate must be for the
	// name or for the address.
	Name string
	// Compression is none, by default, or snappy.
	Compression string
}

// GRPCOverride is the client_config of the endpoint file: settings in place of the global ones. A nil
// field was not given.
type GRPCOverride struct {
	TLS         *GRPCOverrideTLS `yaml:"tls_config"`
	ServerName  string           `yaml:"server_name"`
	Compression string           `yaml:"compression"`
}

// GRPCOverrideTLS is the TLS part of a GRPCOverride.
type GRPCOverrideTLS struct {
	Enabled            *bool   `yaml:"enabled"`
	InsecureSkipVerify *bool   `yaml:"insecure_skip_verify"`
	CertFile           *string `yaml:"cert_file"`
	KeyFile            *string `yaml:"key_file"`
	CAFile             *string `yaml:"ca_file"`
	MinVersion         *string `yaml:"min_version"`
}

// Apply returns the settings that o makes of the global ones:
//   - nothing about TLS given: the global settings;
//   - enabled not given: it is true if a certificate, key, authority or skip_verify is, else as globally,
//     and what is not given is as globally;
//   - enabled true: what is not given has its default; enabled false: no TLS.
//
// Server name and compression are the global ones unless given.
func (o *GRPCOverride) Apply(global GRPC) GRPC {
	if o == nil {
		return global
	}
	g := global
	g.ServerName = cmp.Or(o.ServerName, global.ServerName)
	g.Compression = cmp.Or(o.Compression, global.Compression)
	t := o.TLS
	if t == nil || *t == (GRPCOverrideTLS{}) {
		return g
	}
	if t.Enabled != nil {
		g = GRPC{TLS: *t.Enabled, ServerName: o.ServerName, Compression: g.Compression}
	} else if t.CertFile != nil || t.KeyFile != nil || t.CAFile != nil || t.InsecureSkipVerify != nil && *t.InsecureSkipVerify {
		g.TLS = true
	}
	set(&g.InsecureSkipVerify, t.InsecureSkipVerify)
	set(&g.CertFile, t.CertFile)
	set(&g.KeyFile, t.KeyFile)
	set(&g.CAFile, t.CAFile)
	set(&g.MinVersion, t.MinVersion)
	return g
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// Validate explains contradictions. Files are not looked at.
func (g GRPC) Validate() error {
	switch g.Compression {
	case "", CompressionNone, CompressionSnappy:
	default:
		return fmt.Errorf("gRPC compression %q: want %s or %s", g.Compression, CompressionNone, CompressionSnappy)
	}
	if !g.TLS {
		return nil
	}
	if (g.CertFile == "") != (g.KeyFile == "") {
		return errors.New("gRPC client TLS: certificate and key go together")
	}
	_, err := tlsVersion(g.MinVersion)
	return err
}

// named tells whether the server is called by Name.
func (g GRPC) named() bool { return g.TLS && g.ServerName == "" && g.Name != "" }

// DialOptions returns the options that make a connection as set. Certificates are read now, so that a
// wrong path is an error now, and again for each handshake; while they can't be read the last good ones
// are used, and that is logged.
func (g GRPC) DialOptions(logger log.Logger) ([]grpc.DialOption, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if g.TLS {
		var err error
		if creds, err = newReloadingCredentials(g, logger); err != nil {
			return nil, err
		}
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(creds)}
	if g.named() {
		opts = append(opts, grpc.WithAuthority(g.Name))
	}
	if g.Compression == CompressionSnappy {
		opts = append(opts, grpc.WithDefaultCallOptions(grpc.UseCompressor(CompressionSnappy)))
	}
	return opts, nil
}
