package serve

import (
	"context"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
)

// durationBuckets are in seconds, sizeBuckets in bytes.
var (
	durationBuckets = []float64{0.001, 0.01, 0.1, 0.3, 0.6, 1, 3, 6, 9, 20, 30, 60, 90, 120, 240, 360, 720}
	sizeBuckets     = prometheus.ExponentialBuckets(256, 4, 8) // 256 B … 4 MiB
)

// instrument counts and times the requests of API handlers, by handler and (where the component has
// tenants) by tenant.
type instrument struct {
	tenant        func(*http.Request) string
	defaultTenant string

	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	reqSize  *prometheus.HistogramVec
	respSize *prometheus.HistogramVec
	inflight *prometheus.GaugeVec
}

func newInstrument(reg prometheus.Registerer, tenant func(*http.Request) string, defaultTenant string) *instrument {
	labels, inflightLabels := []string{"code", "handler", "method"}, []string{"handler", "method"}
	if tenant != nil {
		labels, inflightLabels = append(labels, "tenant"), append(inflightLabels, "tenant")
	}
	f := promauto.With(reg)
	return &instrument{
		tenant:        tenant,
		defaultTenant: defaultTenant,
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "http_requests_total",
			Help: "HTTP requests answered.",
		}, labels),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:                           "http_request_duration_seconds",
			Help:                           "Time to answer HTTP requests, in seconds.",
			Buckets:                        durationBuckets,
			NativeHistogramBucketFactor:    1.1,
			NativeHistogramMaxBucketNumber: 256,
		}, labels),
		reqSize: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "http_request_size_bytes",
			Help:    "Size of HTTP requests, in bytes.",
			Buckets: sizeBuckets,
		}, labels),
		respSize: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "http_response_size_bytes",
			Help:    "Size of HTTP answers, in bytes.",
			Buckets: sizeBuckets,
		}, labels),
		inflight: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "http_inflight_requests",
			Help: "HTTP requests being answered.",
		}, inflightLabels),
	}
}

type tenantKey struct{}

func tenantFromContext(ctx context.Context) string {
	t, _ := ctx.Value(tenantKey{}).(string)
	return t
}

// handler wraps h. A counter of each handler exists at 0 before its first request.
func (i *instrument) handler(name string, h http.Handler) http.Handler {
	curry := prometheus.Labels{"handler": name}
	opts := []promhttp.Option{promhttp.WithExemplarFromContext(exemplar)}
	zero := prometheus.Labels{"handler": name, "code": "200", "method": "get"}
	if i.tenant != nil {
		opts = append(opts, promhttp.WithLabelFromCtx("tenant", tenantFromContext))
		zero["tenant"] = i.defaultTenant
	}
	i.requests.With(zero)

	h = promhttp.InstrumentHandlerCounter(i.requests.MustCurryWith(curry),
		promhttp.InstrumentHandlerDuration(i.duration.MustCurryWith(curry),
			promhttp.InstrumentHandlerRequestSize(i.reqSize.MustCurryWith(curry),
				promhttp.InstrumentHandlerResponseSize(i.respSize.MustCurryWith(curry), h, opts...), opts...), opts...), opts...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		labels := prometheus.Labels{"handler": name, "method": method(r.Method)}
		if i.tenant != nil {
			t := i.tenant(r)
			labels["tenant"] = t
			r = r.WithContext(context.WithValue(r.Context(), tenantKey{}, t))
		}
		g := i.inflight.With(labels)
		g.Inc()
		defer g.Dec()
		h.ServeHTTP(w, r)
	})
}

// exemplar links a measured request to its trace.
func exemplar(ctx context.Context) prometheus.Labels {
	if sc := trace.SpanContextFromContext(ctx); sc.IsSampled() {
		return prometheus.Labels{"traceID": sc.TraceID().String()}
	}
	return nil
}

// method is the label value of a method; what clients make up counts as unknown.
func method(m string) string {
	switch m {
	case http.MethodGet, "":
		return "get"
	case http.MethodPost:
		return "post"
	case http.MethodHead:
		return "head"
	case http.MethodOptions:
		return "options"
	case http.MethodPut:
		return "put"
	case http.MethodDelete:
		return "delete"
	}
	return "unknown"
}
