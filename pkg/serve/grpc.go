package serve

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/koios-metrics/koios/pkg/tracing"
)

// GRPCConfig says how a process answers gRPC.
type GRPCConfig struct {
	// Address is host:port; an empty host is all of them, port 0 one that the kernel picks.
	Address string
	// GracePeriod bounds the drain: 0 cuts off at once.
	GracePeriod time.Duration
	// MaxConnectionAge closes connections in an orderly way at that age, so that clients spread anew;
	// 0 is never.
	MaxConnectionAge time.Duration
	TLS              TLSConfig
	// RequestLog says which calls are logged; nil is none.
	RequestLog *RequestLog
	// Tracing makes spans of calls; nil is none.
	Tracing *tracing.Provider
	// Options are added to the server's own, for example a codec.
	Options []grpc.ServerOption
}

// keepaliveMin is the shortest interval at which clients may ping; ours do at just that.
const keepaliveMin = 10 * time.Second

// grpcBuckets are the bounds of grpc_server_handling_seconds.
var grpcBuckets = []float64{0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120}

// GRPC is the gRPC server of a process, with health and reflection.
type GRPC struct {
	cfg      GRPCConfig
	logger   log.Logger
	probe    *Probe
	server   *grpc.Server
	health   *health.Server
	listener net.Listener
	// draining ends when the drain begins; stopWatches ends it.
	draining    context.Context
	stopWatches context.CancelFunc
}

// NewGRPC makes the server; register adds the services, and metrics of all their methods exist at 0.
// TLS files are checked here; nothing listens yet.
func NewGRPC(cfg GRPCConfig, logger log.Logger, reg prometheus.Registerer, probe *Probe, register ...func(*grpc.Server)) (*GRPC, error) {
	s := &GRPC{cfg: cfg, logger: log.With(logger, "service", "grpc"), probe: probe, health: health.NewServer()}
	s.draining, s.stopWatches = context.WithCancel(context.Background())
	tlsConfig, err := NewServerTLS(cfg.TLS, s.logger)
	if err != nil {
		return nil, fmt.Errorf("gRPC server: %w", err)
	}
	metrics := grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(
		grpcprom.WithHistogramOpts(&prometheus.HistogramOpts{
			Buckets:                        grpcBuckets,
			NativeHistogramBucketFactor:    1.1,
			NativeHistogramMaxBucketNumber: 256,
		}),
	))
	reg.MustRegister(metrics)

	opts := s.options(metrics, reg)
	if tlsConfig != nil {
		opts = append(opts, grpc.Creds(&refusals{credentials.NewTLS(tlsConfig), s.logger}))
	}
	s.server = grpc.NewServer(append(opts, cfg.Options...)...)
	for _, r := range register {
		r(s.server)
	}
	grpc_health_v1.RegisterHealthServer(s.server, s.health)
	reflection.Register(s.server)
	metrics.InitializeMetrics(s.server)
	probe.OnReady(s.setHealth)
	return s, nil
}

// options are those of every server. Panics are recovered next to the method, so that they are counted
// and logged as calls with an error, and once more around everything, for the interceptors themselves.
func (s *GRPC) options(metrics *grpcprom.ServerMetrics, reg prometheus.Registerer) []grpc.ServerOption {
	rec := grpcRecovery(s.logger, reg)
	unary := []grpc.UnaryServerInterceptor{unaryRequestID, recovery.UnaryServerInterceptor(rec), metrics.UnaryServerInterceptor()}
	stream := []grpc.StreamServerInterceptor{s.endWatches, streamRequestID, recovery.StreamServerInterceptor(rec), metrics.StreamServerInterceptor()}
	if u, st := s.cfg.RequestLog.grpcInterceptors(s.logger); u != nil {
		unary, stream = append(unary, u), append(stream, st)
	}
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(math.MaxInt32),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMin}),
		grpc.ChainUnaryInterceptor(append(unary, recovery.UnaryServerInterceptor(rec))...),
		grpc.ChainStreamInterceptor(append(stream, recovery.StreamServerInterceptor(rec))...),
	}
	if s.cfg.MaxConnectionAge > 0 {
		opts = append(opts, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: s.cfg.MaxConnectionAge}))
	}
	return append(opts, s.cfg.Tracing.ServerOptions()...)
}

// endWatches ends the streams of clients that watch the health when the drain begins, for they would
// never end by themselves.
func (s *GRPC) endWatches(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	if info.FullMethod != grpc_health_v1.Health_Watch_FullMethodName {
		return h(srv, ss)
	}
	ctx, cancel := context.WithCancel(ss.Context())
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	return h(srv, &streamWithContext{ss, ctx})
}

// setHealth makes the health service follow the probe, for the server as a whole and each service.
func (s *GRPC) setHealth(ready bool) {
	st := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if ready {
		st = grpc_health_v1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", st)
	for name := range s.server.GetServiceInfo() {
		s.health.SetServingStatus(name, st)
	}
}

// Listen takes the address. Run does so too; calling it before tells the port early.
func (s *GRPC) Listen() error {
	if s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.cfg.Address)
	if err != nil {
		return fmt.Errorf("listen for gRPC on %s: %w", s.cfg.Address, err)
	}
	s.listener = l
	return nil
}

// Addr is where the server listens, nil before Listen.
func (s *GRPC) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Run serves until the context ends, then turns the probe, drains and returns nil. It returns an error
// when it can't serve.
func (s *GRPC) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	_ = level.Info(s.logger).Log("msg", "listening", "address", s.listener.Addr())
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve gRPC on %s: %w", s.cfg.Address, err)
	case <-ctx.Done():
	}
	s.probe.End(context.Cause(ctx))
	s.drain()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		_ = level.Warn(s.logger).Log("msg", "the server had failed before it was stopped", "err", err)
	}
	_ = level.Info(s.logger).Log("msg", "stopped")
	return nil
}

// drain waits for calls in flight, and cuts off those left after the grace period.
func (s *GRPC) drain() {
	s.stopWatches()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.server.GracefulStop()
	}()
	t := time.NewTimer(s.cfg.GracePeriod)
	defer t.Stop()
	select {
	case <-done:
		return
	case <-t.C:
	}
	_ = level.Warn(s.logger).Log("msg", "calls are still in flight after the grace period: cut off", "grace", s.cfg.GracePeriod)
	s.server.Stop()
	<-done
}
