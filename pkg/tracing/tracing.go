// Package tracing turns the tracing YAML of a component into an OpenTelemetry provider: exporters for
// OTLP and Jaeger, samplers, and the two headers by which a client forces and finds a trace.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"go.opentelemetry.io/contrib/propagators/autoprop"
	"go.opentelemetry.io/contrib/propagators/jaeger"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.yaml.in/yaml/v2"
)

// Provider makes the spans of a process. A Provider without a configuration makes none and costs nothing.
// All methods may be called in parallel.
type Provider struct {
	tracers    trace.TracerProvider
	propagator propagation.TextMapPropagator
	shutdown   func(context.Context) error
}

// part is what a back end contributes.
type part struct {
	exporter    sdktrace.SpanExporter
	sampler     sdktrace.Sampler
	close       func()
	serviceName string
	attributes  []attribute.KeyValue
	batch       []sdktrace.BatchSpanProcessorOption
	// jaegerHeader adds Jaeger's own propagation header to those of the environment.
	jaegerHeader bool
}

// errUnsupported is a back end that is known by name and can't be written to.
var errUnsupported = errors.New("not supported")

// None returns a provider that makes no spans.
func None() *Provider {
	return &Provider{
		tracers:    noop.NewTracerProvider(),
		propagator: propagation.NewCompositeTextMapPropagator(),
		shutdown:   func(context.Context) error { return nil },
	}
}

// New reads the tracing configuration of a component; empty content means no tracing. The service is
// called thanos-<component> unless the configuration or OTEL_SERVICE_NAME say otherwise, and
// OTEL_RESOURCE_ATTRIBUTES are added. Back ends that are known but can't be written to are logged and
// leave the process without traces; anything else that is wrong is an error. The caller must Shutdown.
func New(ctx context.Context, content []byte, component string, logger log.Logger) (*Provider, error) {
	if strings.TrimSpace(string(content)) == "" {
		return None(), nil
	}
	var top struct {
		Type   string        `yaml:"type"`
		Config yaml.MapSlice `yaml:"config"`
	}
	if err := yaml.UnmarshalStrict(content, &top); err != nil {
		return nil, fmt.Errorf("parse tracing config: %w", err)
	}
	inner, err := yaml.Marshal(top.Config)
	if err != nil {
		return nil, fmt.Errorf("parse tracing config: %w", err)
	}
	p, err := newPart(ctx, strings.ToUpper(top.Type), inner, logger)
	if errors.Is(err, errUnsupported) {
		_ = level.Warn(logger).Log("msg", "no traces are written", "err", err)
		return None(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("tracing config of type %s: %w", top.Type, err)
	}
	return p.provider(ctx, component)
}

func newPart(ctx context.Context, typ string, config []byte, logger log.Logger) (*part, error) {
	switch typ {
	case "OTLP":
		return newOTLP(ctx, config)
	case "JAEGER":
		return newJaeger(config, logger)
	case "LIGHTSTEP":
		return newLightstep(ctx, config)
	case "GOOGLE_CLOUD", "STACKDRIVER":
		var c struct {
			ServiceName  string  `yaml:"service_name"`
			ProjectID    string  `yaml:"project_id"`
			SampleFactor float64 `yaml:"sample_factor"`
		}
		return nil, unsupported(typ, config, &c)
	case "ELASTIC_APM":
		var c struct {
			ServiceName        string  `yaml:"service_name"`
			ServiceVersion     string  `yaml:"service_version"`
			ServiceEnvironment string  `yaml:"service_environment"`
			SampleRate         float64 `yaml:"sample_rate"`
		}
		return nil, unsupported(typ, config, &c)
	case "":
		return nil, errors.New("type is missing: want OTLP, JAEGER, LIGHTSTEP, GOOGLE_CLOUD or ELASTIC_APM")
	}
	return nil, errors.New("unknown type: want OTLP, JAEGER, LIGHTSTEP, GOOGLE_CLOUD or ELASTIC_APM")
}

func unsupported(typ string, config []byte, into any) error {
	if err := yaml.Unmarshal(config, into); err != nil {
		return err
	}
	return fmt.Errorf("tracing type %s is %w: send OTLP to a collector that exports to it", typ, errUnsupported)
}

func (p *part) provider(ctx context.Context, component string) (*Provider, error) {
	name := p.serviceName
	if name == "" {
		name = "thanos-" + component
	}
	// Later ones win: the configuration over the default name, the environment over both.
	res, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", name)),
		resource.WithAttributes(p.attributes...),
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithFromEnv(),
	)
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("describe the process for tracing: %w", err)
	}
	sdk := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(p.exporter, p.batch...),
		sdktrace.WithResource(res),
		sdktrace.WithSampler(forced{p.sampler}),
	)
	props := []propagation.TextMapPropagator{propagation.TraceContext{}, propagation.Baggage{}}
	if p.jaegerHeader {
		// Before W3C's, so that the latter wins where a request has both.
		props = append([]propagation.TextMapPropagator{jaeger.Jaeger{}}, props...)
	}
	return &Provider{
		tracers:    sdk,
		propagator: autoprop.NewTextMapPropagator(props...),
		shutdown: func(ctx context.Context) error {
			if p.close != nil {
				p.close()
			}
			return sdk.Shutdown(ctx)
		},
	}, nil
}

// Enabled tells whether spans are made at all.
func (p *Provider) Enabled() bool {
	_, no := p.tracers.(noop.TracerProvider)
	return !no
}

// Tracers is what instrumentation takes its tracers from.
func (p *Provider) Tracers() trace.TracerProvider { return p.tracers }

// Propagator carries trace contexts into and out of requests.
func (p *Provider) Propagator() propagation.TextMapPropagator { return p.propagator }

// Install makes the provider the one that libraries find by themselves (the PromQL engines do). It is
// called once, by the main of a process.
func (p *Provider) Install(logger log.Logger) {
	otel.SetTracerProvider(p.tracers)
	otel.SetTextMapPropagator(p.propagator)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		_ = level.Warn(logger).Log("msg", "tracing", "err", err)
	}))
}

// shutdownTimeout bounds the writing of the last spans.
const shutdownTimeout = 5 * time.Second

// Shutdown writes the spans that wait, for a few seconds at most.
func (p *Provider) Shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	return p.shutdown(ctx)
}
