package tracing

import (
	"context"
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/baggage"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// ForceHeader is the request header that has a request sampled, whatever the sampler says.
	ForceHeader = "X-Thanos-Force-Tracing"
	// TraceIDHeader is the response header with the trace id of a traced request.
	TraceIDHeader = "X-Thanos-Trace-Id"

	// forceBaggage carries the wish to the processes that are asked in turn.
	forceBaggage = "x-thanos-force-tracing"
)

type forceKey struct{}

// forced samples what a client wants sampled and asks the configured sampler about the rest.
type forced struct{ sdktrace.Sampler }

func (f forced) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if p.ParentContext.Value(forceKey{}) != nil || baggage.FromContext(p.ParentContext).Member(forceBaggage).Value() != "" {
		return sdktrace.SamplingResult{
			Decision:   sdktrace.RecordAndSample,
			Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState(),
		}
	}
	return f.Sampler.ShouldSample(p)
}

func (f forced) Description() string { return "Forced{" + f.Sampler.Description() + "}" }

// Handler traces the requests that h answers as spans called name. It heeds ForceHeader and sets
// TraceIDHeader.
func (p *Provider) Handler(name string, h http.Handler) http.Handler {
	if !p.Enabled() {
		return h
	}
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() && sc.IsSampled() {
			w.Header().Set(TraceIDHeader, sc.TraceID().String())
		}
		if v := r.Header.Get(ForceHeader); v != "" {
			ctx = withForceBaggage(ctx)
		}
		h.ServeHTTP(w, r.WithContext(ctx))
	})
	traced := otelhttp.NewHandler(inner, name,
		otelhttp.WithTracerProvider(p.tracers),
		otelhttp.WithPropagators(p.propagator),
		otelhttp.WithSpanNameFormatter(func(op string, _ *http.Request) string { return op }),
	)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(ForceHeader) != "" {
			r = r.WithContext(context.WithValue(r.Context(), forceKey{}, true))
		}
		traced.ServeHTTP(w, r)
	})
}

func withForceBaggage(ctx context.Context) context.Context {
	m, err := baggage.NewMember(forceBaggage, "true")
	if err != nil {
		return ctx
	}
	b, err := baggage.FromContext(ctx).SetMember(m)
	if err != nil {
		return ctx
	}
	return baggage.ContextWithBaggage(ctx, b)
}
