package clientconf

import (
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	_ "github.com/koios-metrics/koios/pkg/grpcsnappy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What an endpoint's client_config says and leaves out, on top of global settings with and without TLS.
func TestOverrideApply(t *testing.T) {
	plain := GRPC{Compression: "none"}
	secure := GRPC{TLS: true, CertFile: "c", KeyFile: "k", CAFile: "ca", MinVersion: "1.2", ServerName: "s", Compression: "snappy"}
	f := func(text string, global, want GRPC) {
		t.Helper()
		var o *GRPCOverride
		if err := yaml.UnmarshalStrict([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, o.Apply(global)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	f("", secure, secure)
	f("{}", secure, secure)
	f("tls_config: {}", secure, secure)
	f("server_name: x", secure, GRPC{TLS: true, CertFile: "c", KeyFile: "k", CAFile: "ca", MinVersion: "1.2", ServerName: "x", Compression: "snappy"})
	f("tls_config: {min_version: '1.3'}", plain, GRPC{MinVersion: "1.3", Compression: "none"})
	f("tls_config: {ca_file: x}", plain, GRPC{TLS: true, CAFile: "x", Compression: "none"})
	f("tls_config: {insecure_skip_verify: true}", plain, GRPC{TLS: true, InsecureSkipVerify: true, Compression: "none"})
	f("tls_config: {insecure_skip_verify: false}", plain, plain)
	f("tls_config: {ca_file: x}", secure, GRPC{TLS: true, CertFile: "c", KeyFile: "k", CAFile: "x", MinVersion: "1.2", ServerName: "s", Compression: "snappy"})
	f("tls_config: {enabled: true}", secure, GRPC{TLS: true, Compression: "snappy"})
	f("tls_config: {enabled: true, ca_file: x}\nserver_name: y\ncompression: none", secure, GRPC{TLS: true, CAFile: "x", ServerName: "y", Compression: "none"})
	f("tls_config: {enabled: false}", secure, GRPC{Compression: "snappy"})
	f("compression: snappy", plain, GRPC{Compression: "snappy"})
}

// Settings that contradict themselves or name what is not there are refused before anything is dialled.
func TestGRPCRefuses(t *testing.T) {
	junk := filepath.Join(t.TempDir(), "junk")
	put(t, junk, []byte("no certificate"))
	for _, g := range []GRPC{
		{Compression: "gzip"},
		{TLS: true, CertFile: "only"},
		{TLS: true, MinVersion: "2"},
		{TLS: true, CAFile: "/nowhere/ca"},
		{TLS: true, CAFile: junk},
		{TLS: true, CertFile: junk, KeyFile: junk},
	} {
		if _, err := g.DialOptions(log.NewNopLogger()); err == nil {
			t.Errorf("%+v is taken", g)
		}
	}
}

// serveHealth serves gRPC health on loopback and returns its address.
func serveHealth(t *testing.T, opts ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr().String()
}

// ask connects anew as g says and makes one call.
func ask(t *testing.T, addr string, opts []grpc.DialOption) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	return err
}

// Mutual TLS with both sides verified; both sides move to new authorities while the options made at the
// start stay in use; files that break keep the last good ones.
func TestMutualTLSRotates(t *testing.T) {
	servers, clients := newAuthority(t), newAuthority(t)
	var current atomic.Pointer[tls.Config]
	current.Store(servers.serverTLS(t, clients))
	addr := serveHealth(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil },
	})))
	dir := t.TempDir()
	g := GRPC{TLS: true, Compression: CompressionSnappy}
	g.CertFile, g.KeyFile, _ = clients.files(t, dir, "client.test")
	g.CAFile = filepath.Join(dir, "servers.crt")
	put(t, g.CAFile, servers.pem)
	opts, err := g.DialOptions(log.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, ok bool) {
		t.Helper()
		if err := ask(t, addr, opts); (err == nil) != ok {
			t.Fatalf("%s: error %v", what, err)
		}
	}
	f("at the start", true)

	servers2, clients2 := newAuthority(t), newAuthority(t)
	current.Store(servers2.serverTLS(t, clients2))
	f("a server of an unknown authority", false)
	put(t, g.CAFile, servers2.pem)
	f("a client of an unknown authority", false)
	clients2.files(t, dir, "client.test")
	f("after both were replaced", true)
	put(t, g.CertFile, []byte("half a certif"))
	f("while a certificate is being written", true)
}

// The name in the server's certificate is verified, as dialled or as given; verification can be turned
// off; the least version is kept.
func TestServerIsVerified(t *testing.T) {
	a := newAuthority(t)
	old := a.serverTLS(t, nil)
	old.MaxVersion = tls.VersionTLS12
	addr, addrOld := serveHealth(t, grpc.Creds(credentials.NewTLS(a.serverTLS(t, nil)))), serveHealth(t, grpc.Creds(credentials.NewTLS(old)))
	_, _, ca := a.files(t, t.TempDir(), "unused")
	f := func(addr string, g GRPC, ok bool) {
		t.Helper()
		g.TLS = true
		opts, err := g.DialOptions(log.NewNopLogger())
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(t, addr, opts); (err == nil) != ok {
			t.Errorf("%+v: error %v", g, err)
		}
	}
	f(addr, GRPC{}, false)
	f(addr, GRPC{CAFile: ca}, true)
	f(addr, GRPC{CAFile: ca, ServerName: "server.test"}, true)
	f(addr, GRPC{CAFile: ca, ServerName: "other.test"}, false)
	f(addr, GRPC{InsecureSkipVerify: true}, true)
	f(addrOld, GRPC{CAFile: ca}, false)
	f(addrOld, GRPC{CAFile: ca, MinVersion: "1.2"}, true)
}

// A client set to snappy asks for it on the wire, and the answer comes back the same way.
func TestCompressionOnTheWire(t *testing.T) {
	var seen atomic.Value
	addr := serveHealth(t, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		if s, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ RecvCompress() string }); ok {
			seen.Store(s.RecvCompress())
		}
		return h(ctx, req)
	}))
	opts, err := GRPC{Compression: CompressionSnappy}.DialOptions(log.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(t, addr, opts); err != nil {
		t.Fatal(err)
	}
	if got := seen.Load(); got != "snappy" {
		t.Errorf("the request came with encoding %v", got)
	}
}

func FuzzOverride(f *testing.F) {
	f.Add([]byte("tls_config: {enabled: true, ca_file: x}\nserver_name: y\ncompression: none"))
	f.Add([]byte("tls_config: {min_version: '1.3'}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var o *GRPCOverride
		if yaml.UnmarshalStrict(b, &o) == nil {
			_ = o.Apply(GRPC{TLS: true}).Validate()
		}
	})
}
