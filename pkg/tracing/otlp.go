package tracing

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/config"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.yaml.in/yaml/v2"
	"google.golang.org/grpc/credentials"
)

// otlpConfig is the config part of type OTLP. Keys it does not know are ignored.
type otlpConfig struct {
	ClientType         string            `yaml:"client_type"`
	ServiceName        string            `yaml:"service_name"`
	ResourceAttributes map[string]string `yaml:"resource_attributes"`
	ReconnectionPeriod time.Duration     `yaml:"reconnection_period"`
	Compression        string            `yaml:"compression"`
	Insecure           bool              `yaml:"insecure"`
	Endpoint           string            `yaml:"endpoint"`
	URLPath            string            `yaml:"url_path"`
	Timeout            time.Duration     `yaml:"timeout"`
	Retry              struct {
		Enabled         bool          `yaml:"retry_enabled"`
		InitialInterval time.Duration `yaml:"retry_initial_interval"`
		MaxInterval     time.Duration `yaml:"retry_max_interval"`
		MaxElapsedTime  time.Duration `yaml:"retry_max_elapsed_time"`
	} `yaml:"retry_config"`
	Headers      map[string]string `yaml:"headers"`
	TLS          config.TLSConfig  `yaml:"tls_config"`
	SamplerType  string            `yaml:"sampler_type"`
	SamplerParam string            `yaml:"sampler_param"`
}

func newOTLP(ctx context.Context, content []byte) (*part, error) {
	var c otlpConfig
	if err := yaml.Unmarshal(content, &c); err != nil {
		return nil, err
	}
	sampler, err := otlpSampler(c.SamplerType, c.SamplerParam)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := config.NewTLSConfig(&c.TLS)
	if err != nil {
		return nil, fmt.Errorf("tls_config: %w", err)
	}
	if c.Compression != "" && c.Compression != "gzip" && c.Compression != "none" {
		return nil, fmt.Errorf("unknown compression %q: want gzip or none", c.Compression)
	}
	p := &part{sampler: sampler, serviceName: c.ServiceName}
	for k, v := range c.ResourceAttributes {
		p.attributes = append(p.attributes, attribute.String(k, v))
	}
	slices.SortFunc(p.attributes, func(a, b attribute.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })

	switch strings.ToLower(c.ClientType) {
	case "grpc":
		p.exporter, err = otlptracegrpc.New(ctx, c.grpcOptions(tlsConfig)...)
	case "http":
		p.exporter, err = otlptracehttp.New(ctx, c.httpOptions(tlsConfig)...)
	default:
		return nil, fmt.Errorf("client_type is %q: want grpc or http", c.ClientType)
	}
	if err != nil {
		return nil, fmt.Errorf("make exporter: %w", err)
	}
	return p, nil
}

func (c *otlpConfig) grpcOptions(tlsConfig *tls.Config) []otlptracegrpc.Option {
	var o []otlptracegrpc.Option
	if c.Endpoint != "" {
		o = append(o, otlptracegrpc.WithEndpoint(c.Endpoint))
	}
	if c.Insecure {
		o = append(o, otlptracegrpc.WithInsecure())
	} else {
		o = append(o, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(tlsConfig)))
	}
	if c.ReconnectionPeriod != 0 {
		o = append(o, otlptracegrpc.WithReconnectionPeriod(c.ReconnectionPeriod))
	}
	if c.Timeout != 0 {
		o = append(o, otlptracegrpc.WithTimeout(c.Timeout))
	}
	if c.Retry.Enabled {
		o = append(o, otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig(c.retry())))
	}
	if len(c.Headers) > 0 {
		o = append(o, otlptracegrpc.WithHeaders(c.Headers))
	}
	if c.Compression == "gzip" {
		o = append(o, otlptracegrpc.WithCompressor("gzip"))
	}
	return o
}

func (c *otlpConfig) httpOptions(tlsConfig *tls.Config) []otlptracehttp.Option {
	var o []otlptracehttp.Option
	if c.Endpoint != "" {
		o = append(o, otlptracehttp.WithEndpoint(c.Endpoint))
	}
	if c.URLPath != "" {
		o = append(o, otlptracehttp.WithURLPath(c.URLPath))
	}
	if c.Insecure {
		o = append(o, otlptracehttp.WithInsecure())
	} else {
		o = append(o, otlptracehttp.WithTLSClientConfig(tlsConfig))
	}
	if c.Timeout != 0 {
		o = append(o, otlptracehttp.WithTimeout(c.Timeout))
	}
	if c.Retry.Enabled {
		o = append(o, otlptracehttp.WithRetry(otlptracehttp.RetryConfig(c.retry())))
	}
	if len(c.Headers) > 0 {
		o = append(o, otlptracehttp.WithHeaders(c.Headers))
	}
	if c.Compression == "gzip" {
		o = append(o, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	}
	return o
}

// retry fills what the configuration leaves open with the exporter's own defaults.
func (c *otlpConfig) retry() (r struct {
	Enabled         bool
	InitialInterval time.Duration
	MaxInterval     time.Duration
	MaxElapsedTime  time.Duration
}) {
	r.Enabled = true
	r.InitialInterval = orElse(c.Retry.InitialInterval, 5*time.Second)
	r.MaxInterval = orElse(c.Retry.MaxInterval, 30*time.Second)
	r.MaxElapsedTime = orElse(c.Retry.MaxElapsedTime, time.Minute)
	return r
}

func orElse(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

func otlpSampler(typ, param string) (sdktrace.Sampler, error) {
	ratio := 1.0
	if param != "" {
		var err error
		if ratio, err = strconv.ParseFloat(param, 64); err != nil {
			return nil, fmt.Errorf("sampler_param %q is no number", param)
		}
	}
	switch strings.ToLower(typ) {
	case "alwayssample":
		return sdktrace.AlwaysSample(), nil
	case "neversample":
		return sdktrace.NeverSample(), nil
	case "traceidratiobased":
		return sdktrace.TraceIDRatioBased(ratio), nil
	case "parentbasedalwayssample":
		return sdktrace.ParentBased(sdktrace.AlwaysSample()), nil
	case "parentbasedneversample":
		return sdktrace.ParentBased(sdktrace.NeverSample()), nil
	case "", "parentbasedtraceidratiobased":
		return sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio)), nil
	}
	return nil, fmt.Errorf("unknown sampler_type %q", typ)
}

// newLightstep sends OTLP to the given collector with the access token, which is how that service takes
// traces today.
func newLightstep(ctx context.Context, content []byte) (*part, error) {
	var c struct {
		AccessToken string `yaml:"access_token"`
		Collector   struct {
			Scheme    string `yaml:"scheme"`
			Host      string `yaml:"host"`
			Port      int    `yaml:"port"`
			Plaintext bool   `yaml:"plaintext"`
		} `yaml:"collector"`
		Tags map[string]string `yaml:"tags"`
	}
	if err := yaml.Unmarshal(content, &c); err != nil {
		return nil, err
	}
	if c.AccessToken == "" {
		return nil, errors.New("access_token is missing")
	}
	o := otlpConfig{
		Endpoint: "ingest.lightstep.com:443",
		Insecure: c.Collector.Plaintext || c.Collector.Scheme == "http",
		Headers:  map[string]string{"lightstep-access-token": c.AccessToken},
	}
	if c.Collector.Host != "" {
		port := c.Collector.Port
		if port == 0 {
			port = 443
		}
		o.Endpoint = net.JoinHostPort(c.Collector.Host, strconv.Itoa(port))
	}
	exporter, err := otlptracegrpc.New(ctx, o.grpcOptions(&tls.Config{MinVersion: tls.VersionTLS12})...)
	if err != nil {
		return nil, fmt.Errorf("make exporter: %w", err)
	}
	p := &part{exporter: exporter, sampler: sdktrace.ParentBased(sdktrace.AlwaysSample())}
	for k, v := range c.Tags {
		if k == "lightstep.component_name" {
			p.serviceName = v
		}
		p.attributes = append(p.attributes, attribute.String(k, v))
	}
	return p, nil
}
