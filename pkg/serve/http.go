package serve

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/felixge/fgprof"
	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/koios-metrics/koios/pkg/logging"
	"github.com/koios-metrics/koios/pkg/tracing"
)

// HTTPConfig says how a process answers HTTP.
type HTTPConfig struct {
	// Address is host:port; an empty host is all of them, port 0 one that the kernel picks.
	Address string
	// WebConfigFile is an exporter-toolkit file with TLS, users, headers and rate limit; empty is none.
	// It is read again at each connection.
	WebConfigFile string
	// GracePeriod bounds the drain: 0 cuts off at once.
	GracePeriod time.Duration
	// H2C accepts HTTP/2 in clear text.
	H2C bool
	// Prefix is a path under which the base paths are served as well as at the root; empty is none.
	Prefix string
	// RequestLog says which requests are logged; nil is none.
	RequestLog *RequestLog
	// Tracing makes spans of wrapped handlers; nil is none.
	Tracing *tracing.Provider
	// Tenant tells whose request it is, for metrics; nil leaves the label out.
	Tenant func(*http.Request) string
	// DefaultTenant is the tenant whose metrics exist before the first request.
	DefaultTenant string
}

// readHeaderTimeout bounds how long a client may take to say what it wants.
const readHeaderTimeout = time.Minute

// HTTP is the HTTP server of a process. Handlers are added before Run.
type HTTP struct {
	cfg        HTTPConfig
	logger     log.Logger
	probe      *Probe
	mux        *http.ServeMux
	server     *http.Server
	listener   net.Listener
	instrument *instrument
}

// NewHTTP makes the server with its base paths: /metrics of reg, /-/healthy, /-/ready, /debug/pprof/ and
// /debug/fgprof. The web config file is checked here; nothing listens yet.
func NewHTTP(cfg HTTPConfig, logger log.Logger, reg *prometheus.Registry, probe *Probe) (*HTTP, error) {
	if err := web.Validate(cfg.WebConfigFile); err != nil {
		return nil, fmt.Errorf("read http config %s: %w", cfg.WebConfigFile, err)
	}
	if cfg.Tracing == nil {
		cfg.Tracing = tracing.None()
	}
	s := &HTTP{
		cfg:        cfg,
		logger:     log.With(logger, "service", "http"),
		probe:      probe,
		mux:        http.NewServeMux(),
		instrument: newInstrument(reg, cfg.Tenant, cfg.DefaultTenant),
	}
	s.server = &http.Server{
		Handler:           withRequestID(s.recovered(s.mux)),
		ReadHeaderTimeout: readHeaderTimeout,
		ErrorLog:          stdlog.New(log.NewStdlibAdapter(level.Warn(s.logger)), "", 0),
	}
	if cfg.H2C {
		p := &http.Protocols{}
		p.SetHTTP1(true)
		p.SetHTTP2(true)
		p.SetUnencryptedHTTP2(true)
		s.server.Protocols = p
	}
	s.base("", reg)
	if cfg.Prefix != "" && cfg.Prefix != "/" {
		s.base(cfg.Prefix, reg)
	}
	return s, nil
}

func (s *HTTP) base(prefix string, reg *prometheus.Registry) {
	s.mux.Handle("GET "+prefix+"/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	s.mux.Handle("GET "+prefix+"/-/healthy", s.probe.HealthyHandler())
	s.mux.Handle("GET "+prefix+"/-/ready", s.probe.ReadyHandler())
	if prefix != "" {
		return
	}
	s.mux.HandleFunc("/debug/pprof/", pprof.Index)
	s.mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	s.mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	s.mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s.mux.Handle("/debug/fgprof", fgprof.Handler())
}

// Handle adds a handler for a pattern of http.ServeMux.
func (s *HTTP) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Wrap gives an API handler its metrics, spans and request log under a name.
func (s *HTTP) Wrap(name string, h http.Handler) http.Handler {
	h = s.instrument.handler(name, s.recovered(h))
	if s.cfg.RequestLog != nil {
		h = s.cfg.RequestLog.httpHandler(s.logger, s.Port, h)
	}
	// Outermost, so that measurements and log lines know their trace.
	return s.cfg.Tracing.Handler("/"+name, h)
}

// Listen takes the address. Run does so too; calling it before tells the port early.
func (s *HTTP) Listen() error {
	if s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.cfg.Address)
	if err != nil {
		return fmt.Errorf("listen for HTTP on %s: %w", s.cfg.Address, err)
	}
	s.listener = l
	return nil
}

// Addr is where the server listens, nil before Listen.
func (s *HTTP) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Port is the port that the server listens on, "" before Listen.
func (s *HTTP) Port() string {
	if s.listener == nil {
		return ""
	}
	_, port, _ := net.SplitHostPort(s.listener.Addr().String())
	return port
}

// Run serves until the context ends, then turns the probe, drains and returns nil. It returns an error
// when it can't serve.
func (s *HTTP) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() {
		served <- web.Serve(s.listener, s.server, &web.FlagConfig{WebConfigFile: &s.cfg.WebConfigFile}, logging.Slog(s.logger))
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP on %s: %w", s.cfg.Address, err)
	case <-ctx.Done():
	}
	s.probe.End(context.Cause(ctx))
	s.drain()
	if err := <-served; err != nil && !errors.Is(err, http.ErrServerClosed) {
		_ = level.Warn(s.logger).Log("msg", "the server had failed before it was stopped", "err", err)
	}
	_ = level.Info(s.logger).Log("msg", "stopped")
	return nil
}

// drain waits for requests in flight, and cuts off those left after the grace period.
func (s *HTTP) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.GracePeriod)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		_ = level.Warn(s.logger).Log("msg", "requests are still in flight after the grace period: cut off", "grace", s.cfg.GracePeriod)
	}
	if err != nil {
		_ = s.server.Close()
	}
}
