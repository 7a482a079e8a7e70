package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-kit/log"
	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/federate"
	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/tenancy"
)

// Config says how requests are read and answered. The zero value of a field is its default.
type Config struct {
	// ReplicaLabels are removed by deduplication unless the request names others.
	ReplicaLabels []string
	// PartialResponse answers with what there is, and a warning, unless the request says otherwise.
	PartialResponse bool
	// AutoDownsampling chooses the resolution by the step of the query unless the request names one.
	AutoDownsampling bool
	// InstantMaxResolution is what AutoDownsampling chooses for instant queries.
	InstantMaxResolution time.Duration
	// DefaultStep is the least step of range queries that state none; the default is one second.
	DefaultStep time.Duration
	// DefaultMetadataTimeRange is how far back labels and series are looked for when the request has no
	// start; 0 is everything.
	DefaultMetadataTimeRange time.Duration
	// Tenancy says where the tenant of a request is found.
	Tenancy tenancy.Config
	// EnforceTenancy adds a matcher on TenantLabel to every selector.
	EnforceTenancy bool
	// TenantLabel is the label of EnforceTenancy; the default is tenancy.DefaultLabel.
	TenantLabel string

	// DisableCORS leaves out the headers that let pages of other origins read answers.
	DisableCORS bool
	// Stores lists the endpoints for /api/v1/stores; nil is none.
	Stores func() []endpoint.Status
	// Federation answers what is no PromQL: rules, alerts, targets, metadata, exemplars and statistics; nil
	// leaves their paths out.
	Federation *federate.Federation
	// Status tells about the process.
	Status Status

	// DurationQuantiles, SampleQuantiles and SeriesQuantiles are the buckets of
	// thanos_store_api_query_duration_seconds, of its label samples_le and of its label series_le.
	DurationQuantiles, SampleQuantiles, SeriesQuantiles []float64
	// Now is the clock; the default is time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.DefaultStep == 0 {
		c.DefaultStep = time.Second
	}
	if c.TenantLabel == "" {
		c.TenantLabel = tenancy.DefaultLabel
	}
	if len(c.DurationQuantiles) == 0 {
		c.DurationQuantiles = []float64{0.1, 0.25, 0.75, 1.25, 1.75, 2.5, 3, 5, 10}
	}
	if len(c.SampleQuantiles) == 0 {
		c.SampleQuantiles = []float64{100, 1_000, 10_000, 100_000, 1_000_000}
	}
	if len(c.SeriesQuantiles) == 0 {
		c.SeriesQuantiles = []float64{10, 100, 1_000, 10_000, 100_000}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Validate explains what is wrong with the configuration.
func (c Config) Validate() error {
	var errs []error
	if err := c.Tenancy.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.DefaultStep < 0 || c.DefaultMetadataTimeRange < 0 || c.InstantMaxResolution < 0 {
		errs = append(errs, errors.New("default step, metadata time range and instant resolution must not be negative"))
	}
	for name, qs := range map[string][]float64{"duration": c.DurationQuantiles, "sample": c.SampleQuantiles, "series": c.SeriesQuantiles} {
		if !slices.IsSorted(qs) {
			errs = append(errs, fmt.Errorf("%s quantiles %v must rise", name, qs))
		}
	}
	return errors.Join(errs...)
}

// API serves the HTTP API of one querier.
type API struct {
	q       *query.Querier
	cfg     Config
	logger  log.Logger
	metrics *metrics
	gzip    func(http.Handler) http.HandlerFunc
}

// New makes the API over a querier.
func New(q *query.Querier, cfg Config, logger log.Logger, reg prometheus.Registerer) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("query API configuration: %w", err)
	}
	cfg = cfg.withDefaults()
	gzip, err := newGzip()
	if err != nil {
		return nil, err
	}
	return &API{q: q, cfg: cfg, logger: logger, metrics: newMetrics(&cfg, reg), gzip: gzip}, nil
}

// newGzip compresses answers for clients that accept gzip, and in no other way: Grafana hands on what
// browsers offer, and can't read zstd.
func newGzip() (func(http.Handler) http.HandlerFunc, error) {
	gzip, err := gzhttp.NewWrapper(gzhttp.MinSize(1024))
	if err != nil {
		return nil, fmt.Errorf("set up compression of answers: %w", err)
	}
	return gzip, nil
}
