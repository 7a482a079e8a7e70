package tracing

import (
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"google.golang.org/grpc"
)

// Transport makes spans of the HTTP requests that go through next and carries their context along.
func (p *Provider) Transport(next http.RoundTripper) http.RoundTripper {
	if !p.Enabled() {
		return next
	}
	return otelhttp.NewTransport(next, otelhttp.WithTracerProvider(p.tracers), otelhttp.WithPropagators(p.propagator))
}

// DialOptions make spans of the gRPC calls of a client and carry their context along.
func (p *Provider) DialOptions() []grpc.DialOption {
	if !p.Enabled() {
		return nil
	}
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(
		otelgrpc.WithTracerProvider(p.tracers),
		otelgrpc.WithPropagators(p.propagator),
	))}
}

// ServerOptions make spans of the gRPC calls that a server answers.
func (p *Provider) ServerOptions() []grpc.ServerOption {
	if p == nil || !p.Enabled() {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(p.tracers),
		otelgrpc.WithPropagators(p.propagator),
	))}
}
