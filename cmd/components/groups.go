package components

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/go-kit/log"

	"github.com/koios-metrics/koios/pkg/logging"
	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/store/server"
)

// globals are the flags that every component has.
type globals struct {
	logLevel, logFormat string
	debugName           string
	autoMemory          bool
	autoMemoryRatio     float64
	tracing             content
}

func (g *globals) bind(fs *flags) {
	fs.enum(&g.logLevel, "log.level", "info", "Lowest level of log lines that are written.", logging.Levels...)
	fs.enum(&g.logFormat, "log.format", "logfmt", "Format of log lines; journald is written as logfmt.", logging.Formats...)
	fs.string(&g.debugName, "debug.name", noDefault, "Name written with every log line.").Hidden()
	fs.bool(&g.autoMemory, "enable-auto-gomemlimit", false, "Set the soft memory limit of the Go runtime from the memory limit of the container or machine. See also --auto-gomemlimit.ratio.")
	fs.float(&g.autoMemoryRatio, "auto-gomemlimit.ratio", "0.9", "Part of the memory limit that the Go runtime may use. See also --enable-auto-gomemlimit.")
	fs.content(&g.tracing, "tracing.config", "the tracing configuration", true)
}

func (g *globals) logger() (log.Logger, error) {
	return logging.New(os.Stderr, g.logLevel, g.logFormat, g.debugName)
}

// httpFlags are those of components with an HTTP server.
func httpFlags(fs *flags, c *serve.HTTPConfig) {
	fs.string(&c.Address, "http-address", "0.0.0.0:10902", "Address to serve HTTP on.")
	fs.promDuration(&c.GracePeriod, "http-grace-period", "2m", "How long HTTP requests in flight may take once the process ends.")
	fs.string(&c.WebConfigFile, "http.config", "", "Path of a web configuration file with TLS, users and headers. Read again when it changes.")
}

// grpcFlags are those of components with a gRPC server.
func grpcFlags(fs *flags, c *serve.GRPCConfig) {
	fs.string(&c.Address, "grpc-address", "0.0.0.0:10901", "Address to serve gRPC on.")
	fs.goDuration(&c.GracePeriod, "grpc-grace-period", "2m", "How long gRPC calls in flight may take once the process ends.")
	fs.goDuration(&c.MaxConnectionAge, "grpc-server-max-connection-age", "60m", "Age at which gRPC connections are closed in an orderly way, so that clients spread anew; 0s is never.")
	fs.string(&c.TLS.CertFile, "grpc-server-tls-cert", "", "TLS certificate of the gRPC server; none is clear text. Read again when it changes. See also --grpc-server-tls-key.")
	fs.string(&c.TLS.KeyFile, "grpc-server-tls-key", "", "TLS key of the gRPC server. See also --grpc-server-tls-cert.")
	fs.string(&c.TLS.ClientCAFile, "grpc-server-tls-client-ca", "", "Authorities that gRPC clients must have a certificate of; none accepts every client.")
	fs.enum(&c.TLS.MinVersion, "grpc-server-tls-min-version", "1.3", "Lowest TLS version of the gRPC server.", "1.0", "1.1", "1.2", "1.3")
	fs.strings(&c.TLS.Ciphers, "grpc-server-tls-ciphers", "TLS cipher suites of the gRPC server up to TLS 1.2, by Go's names (repeatable, or a comma list).")
	fs.strings(&c.TLS.Curves, "grpc-server-tls-curves", "TLS key exchanges of the gRPC server in order of preference, such as X25519 or CurveP256 (repeatable, or a comma list).")
}

// requestLogFlags are those of components that log requests.
func requestLogFlags(fs *flags, c *content) {
	fs.content(c, "request.logging-config", "the request logging configuration", true)
}

func readRequestLog(c *content) (*serve.RequestLog, error) {
	text, err := c.read()
	if err != nil {
		return nil, err
	}
	l, err := serve.ParseRequestLog(text)
	if err != nil {
		return nil, fmt.Errorf("flag --%s: %w", c.name, err)
	}
	return l, nil
}

// storeLimits are the limits of one StoreAPI request.
type storeLimits struct {
	series, samples uint64
}

func (l *storeLimits) bind(fs *flags) {
	fs.uint64(&l.series, "store.limits.request-series", "0", "Largest number of series that one Series call may return; 0 is no limit.")
	fs.uint64(&l.samples, "store.limits.request-samples", "0", "Largest number of samples that one Series call may return, counted as 120 a chunk; 0 is no limit.")
}

func (l *storeLimits) config() server.Config {
	return server.Config{SeriesLimit: l.series, SamplesLimit: l.samples}
}

// objstoreFlags are those of components over a bucket.
func objstoreFlags(fs *flags, c *content, required bool) {
	c.required = required
	fs.content(c, "objstore.config", "the object storage configuration", true)
}

// webFlags are those of components with a web API under a prefix.
type webFlags struct {
	externalPrefix, prefixHeader string
	disableCORS                  bool
}

func (w *webFlags) bind(fs *flags) {
	fs.string(&w.externalPrefix, "web.external-prefix", "", "Path under which the page and its API are seen from outside, or a whole URL, when a reverse proxy stands in front. See also --web.prefix-header.")
	fs.string(&w.prefixHeader, "web.prefix-header", "", "Request header from which the prefix of a reverse proxy is taken, such as X-Forwarded-Prefix. See also --web.external-prefix.")
	fs.bool(&w.disableCORS, "web.disable-cors", false, "Leave out the headers that let pages of other origins use the API.")
}

// prefix is the path under which the API is served: that of the external prefix, "" for the root.
func (w *webFlags) prefix() (string, error) {
	p, err := pathPrefix(w.externalPrefix)
	if err != nil {
		return "", fmt.Errorf("flag --web.external-prefix: %w", err)
	}
	return p, nil
}

// routePrefix is the path under which the API is served: the route prefix, or that of the external one.
func (w *webFlags) routePrefix(route string) (string, error) {
	if route == "" {
		return w.prefix()
	}
	p, err := pathPrefix(route)
	if err != nil {
		return "", fmt.Errorf("flag --web.route-prefix: %w", err)
	}
	return p, nil
}

// pathPrefix reads a prefix: a path, or a whole URL, of which the path counts. It has a leading slash
// and no trailing one; the root is "".
func pathPrefix(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(u.Path, "{} ") {
		return "", fmt.Errorf("%q can't be a path prefix", s)
	}
	p := path.Clean("/" + strings.Trim(u.Path, "/"))
	if p == "/" {
		return "", nil
	}
	return p, nil
}
