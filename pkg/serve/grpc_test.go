package serve

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha" //nolint:staticcheck // grpcurl of old speaks nothing newer
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/koios-metrics/koios/pkg/logging"
)

// echo is a service of one method, test.Echo/Call, that does what the test says.
func echo(call func(ctx context.Context) error) func(*grpc.Server) {
	return func(s *grpc.Server) {
		s.RegisterService(&grpc.ServiceDesc{
			ServiceName: "test.Echo",
			HandlerType: (*any)(nil),
			Methods: []grpc.MethodDesc{{
				MethodName: "Call",
				Handler: func(_ any, ctx context.Context, dec func(any) error, ic grpc.UnaryServerInterceptor) (any, error) {
					var in emptypb.Empty
					if err := dec(&in); err != nil {
						return nil, err
					}
					h := func(ctx context.Context, _ any) (any, error) { return &emptypb.Empty{}, call(ctx) }
					return ic(ctx, &in, &grpc.UnaryServerInfo{FullMethod: "/test.Echo/Call"}, h)
				},
			}},
		}, nil)
	}
}

func startGRPC(t *testing.T, cfg GRPCConfig, logger log.Logger, register ...func(*grpc.Server)) (s *GRPC, probe *Probe, reg *prometheus.Registry, stop func()) {
	t.Helper()
	reg = prometheus.NewRegistry()
	probe = NewProbe("test", logger, reg)
	cfg.Address = "127.0.0.1:0"
	s, err := NewGRPC(cfg, logger, reg, probe, register...)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel(errors.New("test ends"))
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return s, probe, reg, stop
}

func dial(t *testing.T, s *GRPC, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(s.Addr().String(), grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func exposition(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	mfs, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, mf := range mfs {
		if _, err := expfmt.MetricFamilyToText(&b, mf); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// Health follows the probe, for the server and for each service; reflection lists the services in both
// versions; metrics of a method exist at 0 before its first call.
func TestGRPCBase(t *testing.T) {
	s, probe, reg, _ := startGRPC(t, GRPCConfig{}, log.NewNopLogger(), echo(func(context.Context) error { return nil }))
	cc := dial(t, s, insecure.NewCredentials())
	hc := grpc_health_v1.NewHealthClient(cc)
	health := func(service string, want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		r, err := hc.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != want {
			t.Errorf("health of %q is %s: want %s", service, r.Status, want)
		}
	}
	health("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	health("test.Echo", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	probe.Ready()
	health("", grpc_health_v1.HealthCheckResponse_SERVING)
	health("test.Echo", grpc_health_v1.HealthCheckResponse_SERVING)
	probe.NotReady(errors.New("x"))
	health("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)

	rc, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	if r, err := rc.Recv(); err != nil || !strings.Contains(r.String(), "test.Echo") {
		t.Errorf("reflection v1: %v %v", r, err)
	}
	_ = rc.CloseSend()
	ra, err := reflectionalphapb.NewServerReflectionClient(cc).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list := &reflectionalphapb.ServerReflectionRequest{MessageRequest: &reflectionalphapb.ServerReflectionRequest_ListServices{}} //nolint:staticcheck // as above
	if err := ra.Send(list); err != nil {
		t.Fatal(err)
	}
	if r, err := ra.Recv(); err != nil || !strings.Contains(r.String(), "test.Echo") {
		t.Errorf("reflection v1alpha: %v %v", r, err)
	}
	_ = ra.CloseSend()

	m := exposition(t, reg)
	for _, want := range []string{
		`grpc_server_started_total{grpc_method="Call",grpc_service="test.Echo",grpc_type="unary"} 0`,
		`grpc_server_handled_total{grpc_code="Internal",grpc_method="Call",grpc_service="test.Echo",grpc_type="unary"} 0`,
		`grpc_server_handling_seconds_bucket{grpc_method="Call",grpc_service="test.Echo",grpc_type="unary",le="120"} 0`,
		`grpc_server_msg_received_total{grpc_method="Call",grpc_service="test.Echo",grpc_type="unary"} 0`,
		`grpc_req_panics_recovered_total 0`,
	} {
		if !strings.Contains(m, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// A panic becomes an error of code Internal, counted once and counted as a handled call; the request id
// of the caller reaches the method and its log line.
func TestGRPCPanicAndRequestID(t *testing.T) {
	var logs lockedBuffer
	logger, err := logging.New(&logs, "debug", "logfmt", "")
	if err != nil {
		t.Fatal(err)
	}
	rl, err := ParseRequestLog([]byte("grpc: {options: {level: DEBUG, decision: {log_end: true}}, config: [{service: test.Echo, method: Call}]}"))
	if err != nil {
		t.Fatal(err)
	}
	var forwarded []string
	s, _, reg, _ := startGRPC(t, GRPCConfig{RequestLog: rl}, logger, echo(func(ctx context.Context) error {
		md, _ := metadata.FromOutgoingContext(ctx)
		forwarded = md.Get("request-id")
		panic("oh no")
	}))
	cc := dial(t, s, insecure.NewCredentials())
	ctx := metadata.AppendToOutgoingContext(t.Context(), "request-id", "me")
	err = cc.Invoke(ctx, "/test.Echo/Call", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "oh no") {
		t.Errorf("panic became %v", err)
	}
	if len(forwarded) != 1 || forwarded[0] != "me" {
		t.Errorf("request id forwarded as %v", forwarded)
	}
	m := exposition(t, reg)
	for _, want := range []string{
		"grpc_req_panics_recovered_total 1",
		`grpc_server_handled_total{grpc_code="Internal",grpc_method="Call",grpc_service="test.Echo",grpc_type="unary"} 1`,
	} {
		if !strings.Contains(m, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	for _, want := range []string{`level=error`, `msg="finished call"`, "request-id=me", "grpc.code=Internal", `panic="oh no"`} {
		if !strings.Contains(logs.String(), want) {
			t.Errorf("log lacks %s:\n%s", want, logs.String())
		}
	}
}

// A call in flight is answered after the stop began, and who watches the health is no hindrance; one that outlasts the grace period is cut off.
func TestGRPCDrain(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s, _, _, stop := startGRPC(t, GRPCConfig{GracePeriod: time.Minute}, log.NewNopLogger(), echo(func(context.Context) error {
		close(entered)
		<-leave
		return nil
	}))
	cc := dial(t, s, insecure.NewCredentials())
	answer := make(chan error, 1)
	go func() {
		answer <- cc.Invoke(context.Background(), "/test.Echo/Call", &emptypb.Empty{}, &emptypb.Empty{})
	}()
	<-entered
	watch, err := grpc_health_v1.NewHealthClient(cc).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	waitFor(t, "the server is not ready", func() bool { return !s.probe.IsReady() })
	close(leave)
	if err := <-answer; err != nil {
		t.Errorf("call in flight: %v", err)
	}
	for err == nil { // It may still tell of a change.
		_, err = watch.Recv()
	}
	<-stopped

	entered2 := make(chan struct{})
	s, _, _, stop = startGRPC(t, GRPCConfig{GracePeriod: 10 * time.Millisecond}, log.NewNopLogger(), echo(func(ctx context.Context) error {
		close(entered2)
		<-ctx.Done()
		return ctx.Err()
	}))
	cc = dial(t, s, insecure.NewCredentials())
	go func() {
		answer <- cc.Invoke(context.Background(), "/test.Echo/Call", &emptypb.Empty{}, &emptypb.Empty{})
	}()
	<-entered2
	stop()
	if err := <-answer; err == nil {
		t.Error("a stuck call was answered")
	}
}

// With mutual TLS a client needs a certificate; changed files count for new connections, and broken ones
// leave the last good in place.
func TestCertificateRotation(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t)
	ca.issue(t, dir, "one")
	write(t, filepath.Join(dir, "ca.pem"), ca.pem)
	cfg := TLSConfig{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), ClientCAFile: filepath.Join(dir, "ca.pem")}
	s, _, _, _ := startGRPC(t, GRPCConfig{TLS: cfg}, log.NewNopLogger(), echo(func(context.Context) error { return nil }))

	clientDir := t.TempDir()
	ca.issue(t, clientDir, "client")
	pair, err := tls.LoadX509KeyPair(filepath.Join(clientDir, "cert.pem"), filepath.Join(clientDir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	handshake := func(certs ...tls.Certificate) (name string, err error) {
		c := &tls.Config{RootCAs: ca.pool, ServerName: "localhost", Certificates: certs, NextProtos: []string{"h2"},
			VerifyConnection: func(cs tls.ConnectionState) error {
				name = cs.PeerCertificates[0].Subject.CommonName
				return nil
			}}
		cc := dial(t, s, credentials.NewTLS(c))
		err = cc.Invoke(t.Context(), "/test.Echo/Call", &emptypb.Empty{}, &emptypb.Empty{})
		_ = cc.Close()
		return name, err
	}
	if name, err := handshake(pair); name != "one" || err != nil {
		t.Errorf("first: %q %v", name, err)
	}
	if _, err := handshake(); err == nil {
		t.Error("a client without a certificate was served")
	}
	ca.issue(t, dir, "two")
	if name, err := handshake(pair); name != "two" || err != nil {
		t.Errorf("after the change: %q %v", name, err)
	}
	write(t, cfg.CertFile, "rubbish")
	if name, err := handshake(pair); name != "two" || err != nil {
		t.Errorf("with a broken file: %q %v", name, err)
	}
	ca.issue(t, dir, "three")
	if name, err := handshake(pair); name != "three" || err != nil {
		t.Errorf("after the repair: %q %v", name, err)
	}
	// Clients of an authority that is no longer trusted are refused.
	other := newCA(t)
	write(t, cfg.ClientCAFile, other.pem)
	if _, err := handshake(pair); err == nil {
		t.Error("a client of the old authority was served")
	}
}

// TLS settings that can't work are refused with what is wrong.
func TestTLSRefusals(t *testing.T) {
	dir := t.TempDir()
	newCA(t).issue(t, dir, "x")
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	f := func(cfg TLSConfig, want string) {
		t.Helper()
		c, err := NewServerTLS(cfg, log.NewNopLogger())
		if want == "" && err == nil {
			return
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v %v: want %q", cfg, c, err, want)
		}
	}
	f(TLSConfig{}, "")
	f(TLSConfig{CertFile: cert, KeyFile: key, MinVersion: "1.2", Ciphers: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}, Curves: []string{"X25519,CurveP256", "P-384"}}, "")
	f(TLSConfig{CertFile: cert}, "needs both")
	f(TLSConfig{KeyFile: key}, "needs both")
	f(TLSConfig{ClientCAFile: cert}, "without a server certificate")
	f(TLSConfig{CertFile: cert, KeyFile: cert}, "load TLS certificate")
	f(TLSConfig{CertFile: cert, KeyFile: dir + "/none"}, "no such file")
	f(TLSConfig{CertFile: cert, KeyFile: key, ClientCAFile: key}, "holds no certificate")
	f(TLSConfig{CertFile: cert, KeyFile: key, MinVersion: "2"}, `unknown TLS version "2"`)
	f(TLSConfig{CertFile: cert, KeyFile: key, Ciphers: []string{"X"}}, `unknown TLS cipher suite "X"`)
	f(TLSConfig{CertFile: cert, KeyFile: key, Curves: []string{"X"}}, `unknown TLS curve "X"`)
}

// authority issues certificates for localhost.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
	pool *x509.CertPool
}

func newCA(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, cert: cert, pool: x509.NewCertPool(), pem: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
	a.pool.AddCert(cert)
	return a
}

// issue writes cert.pem and key.pem of a new certificate into dir.
func (a *authority) issue(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	// A pair that is half new is refused and the old one stays, until the second file is there.
	write(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})))
}
