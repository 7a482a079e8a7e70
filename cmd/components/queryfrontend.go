package components

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-kit/log/level"
	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/prometheus/promql/parser"
	xparse "github.com/thanos-io/promql-engine/execution/parse"

	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/frontend"
	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/tenancy"
)

// frontendFlags is the command line of the query frontend.
type frontendFlags struct {
	http       serve.HTTPConfig
	requestLog content
	features   []string
	xFunctions bool

	downstream  string
	tripper     content
	compress    bool
	disableCORS bool
	forceStats  bool
	slow        time.Duration
	slowUser    string

	tenantHeader, defaultTenant, tenantCertField string
	orgHeaders, forwardHeaders                   []string

	// Range and instant queries.
	align, downsampled, rangePartial bool
	maxLength                        time.Duration
	split, minSplit, maxSplit        time.Duration
	horizontalShards                 int64
	verticalShards                   int
	rangeParallel, rangeAttempts     int
	instantAttempts                  int
	rangeCache                       content
	rangeFreshness                   time.Duration
	compression                      string
	concurrency, waitingMax          int
	weights                          []string
	labelsRange, labelsSplit         time.Duration
	labelsParallel, labelsAttempts   int
	labelsPartial                    bool
	labelsCache                      content
	labelsFreshness                  time.Duration
	removedAlertQueryURL             string
}

// QueryFrontend is the component that splits, caches and tries again what is asked of queriers.
func QueryFrontend() Component {
	return Component{
		name: "query-frontend",
		help: "Split, cache and retry what is asked of queriers.",
		bind: func(fs *flags) runner {
			c := &frontendFlags{}
			c.bind(fs)
			return c.run
		},
	}
}

func (c *frontendFlags) bind(fs *flags) {
	httpFlags(fs, &c.http)
	requestLogFlags(fs, &c.requestLog)
	fs.bool(&c.disableCORS, "web.disable-cors", false, "Leave out the headers that let pages of other origins use the API.")
	fs.strings(&c.features, "enable-feature", "Experimental features to turn on (repeatable, or a comma list): promql-experimental-functions, promql-extended-range-selectors.", "")
	c.bindDownstream(fs)
	c.bindRange(fs)
	c.bindLabels(fs)
	fs.string(&c.compression, "cache-compression-type", "", "Compression of entries in response caches: snappy, or none if empty.")
	fs.string(&c.tenantHeader, "query-frontend.tenant-header", tenancy.DefaultHeader, "HTTP header that names the tenant.").Hidden()
	fs.string(&c.defaultTenant, "query-frontend.default-tenant-id", tenancy.DefaultTenant, "Tenant of requests that name none.").Hidden()
	fs.enum(&c.tenantCertField, "query-frontend.tenant-certificate-field", "", "Field of the client's certificate that names the tenant, in place of the header.", "", "organization", "organizationalUnit", "commonName").Hidden()
	fs.string(&c.removedAlertQueryURL, "alert.query-url", noDefault, "Gone.").Hidden()
}

func (c *frontendFlags) bindDownstream(fs *flags) {
	fs.string(&c.downstream, "query-frontend.downstream-url", "http://localhost:9090", "URL of the queriers.")
	fs.content(&c.tripper, "query-frontend.downstream-tripper-config", "connections to the queriers: times, numbers, TLS", true)
	fs.bool(&c.compress, "query-frontend.compress-responses", false, "Compress answers with gzip for clients that accept it.")
	fs.goDuration(&c.slow, "query-frontend.log-queries-longer-than", "0", "Log requests that take longer; 0 is none, what is negative all.")
	fs.string(&c.slowUser, "query-frontend.slow-query-logs-user-header", "", "Header that names the user in the log of slow queries; without it, basic authentication does. See also --query-frontend.log-queries-longer-than.")
	fs.bool(&c.forceStats, "query-frontend.force-query-stats", false, "Ask queriers for statistics of every query, for the log of slow ones and the header Server-Timing.")
	fs.strings(&c.orgHeaders, "query-frontend.org-id-header", "Header that says who asks, for logs and keys of caches; the first that is there counts (repeatable).")
	fs.strings(&c.forwardHeaders, "query-frontend.forward-header", "Header that goes on to the queriers (repeatable).")
	fs.bool(&c.xFunctions, "query-frontend.enable-x-functions", false, "Understand the functions xrate, xincrease and xdelta, as queriers with --query.enable-x-functions do.")
	fs.int(&c.verticalShards, "query-frontend.vertical-shards", noDefault, "Number of shards of series that a query is cut into, where that is known to give the same answer.")
	fs.int(&c.concurrency, "query-frontend.max-concurrent", "256", "Number of requests that queriers have at a time; others wait. 0 is any number. Not in Thanos.")
	fs.int(&c.waitingMax, "query-frontend.max-waiting-per-tenant", "4096", "Number of requests of one tenant that may wait; more are answered with 429 and Retry-After. Not in Thanos. See also --query-frontend.max-concurrent.")
	fs.strings(&c.weights, "query-frontend.tenant-weight", "Share of a tenant while others wait, as tenant=weight; 1 for those without (repeatable). Not in Thanos. See also --query-frontend.max-concurrent.")
}

func (c *frontendFlags) bindRange(fs *flags) {
	fs.bool(&c.align, "query-range.align-range-with-step", true, "Move start and end of range queries down to multiples of the step, so that answers can be found again.")
	fs.bool(&c.downsampled, "query-range.request-downsampled", true, "Ask for the missing beginning of an answer at coarser resolutions, where a request has max_source_resolution=auto.")
	fs.goDuration(&c.split, "query-range.split-interval", "24h", "Length of the parts that range queries are split into; 0 splits nothing.")
	fs.goDuration(&c.minSplit, "query-range.min-split-interval", "0", "Shortest part of a range that is split into a number of parts. See also --query-range.horizontal-shards.")
	fs.goDuration(&c.maxSplit, "query-range.max-split-interval", "0", "Longest part of a range that is split into a number of parts. See also --query-range.horizontal-shards.")
	fs.int64(&c.horizontalShards, "query-range.horizontal-shards", "0", "Number of parts that ranges are split into; needs --query-range.min-split-interval, --query-range.max-split-interval and --query-range.split-interval=0.")
	fs.goDuration(&c.maxLength, "query-range.max-query-length", "0", "Longest range that may be asked for; 0 is any.")
	fs.int(&c.rangeParallel, "query-range.max-query-parallelism", "14", "Number of parts of one query that are asked for at a time.")
	fs.int(&c.rangeAttempts, "query-range.max-retries-per-request", "5", "How often a part of a range query is asked for at most.")
	fs.int(&c.instantAttempts, "query.max-retries-per-request", "5", "How often an instant query is asked at most.")
	fs.bool(&c.rangePartial, "query-range.partial-response", true, "Accept partial answers to range and instant queries that do not say.")
	fs.content(&c.rangeCache, "query-range.response-cache-config", "the cache of answers to range queries", true)
	fs.goDuration(&c.rangeFreshness, "query-range.response-cache-max-freshness", "1m", "What is newer is not kept, since it may still change.")
}

func (c *frontendFlags) bindLabels(fs *flags) {
	fs.goDuration(&c.labelsSplit, "labels.split-interval", "24h", "Length of the parts that requests for labels and series are split into; 0 splits nothing.")
	fs.int(&c.labelsParallel, "labels.max-query-parallelism", "14", "Number of parts of one request for labels or series that are asked for at a time.")
	fs.int(&c.labelsAttempts, "labels.max-retries-per-request", "5", "How often a part of a request for labels or series is asked for at most.")
	fs.bool(&c.labelsPartial, "labels.partial-response", true, "Accept partial answers to requests for labels and series that do not say.")
	fs.goDuration(&c.labelsRange, "labels.default-time-range", "24h", "How far back requests for labels and series without a start look.")
	fs.content(&c.labelsCache, "labels.response-cache-config", "the cache of answers about labels and series", true)
	fs.goDuration(&c.labelsFreshness, "labels.response-cache-max-freshness", "1m", "What is about newer time is not kept, since it may still change.")
}

// run builds the frontend.
//
//	HTTP ─▶ CORS, gzip ─▶ Frontend ─▶ queriers
//	                      (loop: are they ready?)
func (c *frontendFlags) run(p *process) error {
	turnOnFeatures(c.features, p.logger)
	cfg, err := c.config(p)
	if err != nil {
		return err
	}
	f, err := frontend.New(cfg, p.logger, p.reg)
	if err != nil {
		return err
	}
	p.loop(func(ctx context.Context) error { c.watch(ctx, p, f); return nil })

	c.http.DefaultTenant = c.defaultTenant
	c.http.Tenant = cfg.Tenancy.Whose
	hs, err := p.addHTTP(c.http, &c.requestLog)
	if err != nil {
		return err
	}
	var h http.Handler = f
	if !c.disableCORS {
		h = frontend.WithCORS(h)
	}
	if c.compress {
		// gzip and nothing else: Grafana hands on what browsers offer, and can't read zstd.
		gzip, err := gzhttp.NewWrapper(gzhttp.MinSize(1024))
		if err != nil {
			return fmt.Errorf("set up compression of answers: %w", err)
		}
		h = gzip(h)
	}
	hs.Handle("/", hs.Wrap("query-frontend", h))
	return nil
}

func (c *frontendFlags) config(p *process) (frontend.Config, error) {
	tripper, err := c.tripper.read()
	if err != nil {
		return frontend.Config{}, err
	}
	transport, err := frontend.ParseTransport(tripper)
	if err != nil {
		return frontend.Config{}, fmt.Errorf("flag --%s: %w", c.tripper.name, err)
	}
	p.close(func() error { transport.CloseIdleConnections(); return nil })
	if err := c.validate(); err != nil {
		return frontend.Config{}, err
	}
	downstream, err := url.Parse(c.downstream)
	if err != nil {
		return frontend.Config{}, fmt.Errorf("flag --query-frontend.downstream-url: %w", err)
	}
	weights, err := parseWeights(c.weights)
	if err != nil {
		return frontend.Config{}, fmt.Errorf("flag --query-frontend.tenant-weight: %w", err)
	}
	cfg := frontend.Config{
		Downstream:          downstream,
		Transport:           p.tracing.Transport(transport),
		Parse:               c.parser(),
		Tenancy:             tenancy.Config{Header: c.tenantHeader, Tenant: c.defaultTenant, CertificateField: c.tenantCertField},
		OrgHeaders:          c.orgHeaders,
		ForwardHeaders:      c.forwardHeaders,
		InstantAttempts:     c.instantAttempts,
		Shards:              c.verticalShards,
		Queue:               frontend.QueueConfig{Concurrent: c.concurrency, WaitingMax: c.waitingMax, Weights: weights},
		ForceStats:          c.forceStats,
		SlowQuery:           c.slow,
		SlowQueryUserHeader: c.slowUser,
		Range: frontend.RangeConfig{
			LengthMax:       c.maxLength.Milliseconds(),
			Align:           c.align,
			Split:           frontend.SplitConfig{Interval: c.split.Milliseconds(), Min: c.minSplit.Milliseconds(), Max: c.maxSplit.Milliseconds(), Shards: c.horizontalShards, Parallel: c.rangeParallel},
			Attempts:        c.rangeAttempts,
			PartialResponse: c.rangePartial,
			Downsampled:     c.downsampled,
			Freshness:       c.rangeFreshness,
			Compress:        c.compression != "",
		},
		Metadata: frontend.MetadataConfig{
			RangeMs:         c.labelsRange.Milliseconds(),
			SplitMs:         c.labelsSplit.Milliseconds(),
			Parallel:        c.labelsParallel,
			Attempts:        c.labelsAttempts,
			PartialResponse: c.labelsPartial,
			Freshness:       c.labelsFreshness,
			Compress:        c.compression != "",
		},
	}
	if cfg.Range.Cache, cfg.Range.TTL, err = openCache(p, &c.rangeCache, "query_range"); err != nil {
		return cfg, err
	}
	cfg.Metadata.Cache, cfg.Metadata.TTL, err = openCache(p, &c.labelsCache, "labels")
	return cfg, err
}

// validate tells which flags contradict each other.
func (c *frontendFlags) validate() error {
	switch dynamic := c.minSplit > 0 || c.maxSplit > 0 || c.horizontalShards > 0; {
	case dynamic && c.split > 0:
		return errors.New("flag --query-range.split-interval must be 0 where --query-range.horizontal-shards, --query-range.min-split-interval or --query-range.max-split-interval is set")
	case dynamic && (c.minSplit <= 0 || c.maxSplit <= 0 || c.horizontalShards <= 0):
		return errors.New("flags --query-range.horizontal-shards, --query-range.min-split-interval and --query-range.max-split-interval need each other: set all three above 0")
	case c.labelsRange <= 0:
		return errors.New("flag --labels.default-time-range must be above 0")
	case c.compression != "" && c.compression != "snappy":
		return fmt.Errorf("flag --cache-compression-type: %q is neither empty nor snappy", c.compression)
	case len(c.orgHeaders) > 0 && c.tenantHeader != tenancy.DefaultHeader:
		return errors.New("flags --query-frontend.org-id-header and --query-frontend.tenant-header exclude each other: give one of them")
	}
	return nil
}

// openCache opens a configured cache, nil if there is none.
func openCache(p *process, text *content, what string) (cache.Cache, time.Duration, error) {
	b, err := text.read()
	if err != nil {
		return nil, 0, err
	}
	cfg, err := frontend.ParseCache(b)
	if err != nil {
		return nil, 0, fmt.Errorf("flag --%s: %w", text.name, err)
	}
	if cfg == nil {
		return nil, 0, nil
	}
	c, err := cfg.Open(context.Background(), what, p.logger, p.reg)
	if err != nil {
		return nil, 0, fmt.Errorf("flag --%s: %w", text.name, err)
	}
	p.close(c.Close)
	return c, cfg.TTL, nil
}

// parser reads PromQL as the queriers do.
func (c *frontendFlags) parser() func(string) (parser.Expr, error) {
	if !c.xFunctions {
		return parser.ParseExpr
	}
	functions := maps.Clone(parser.Functions)
	maps.Copy(functions, xparse.XFunctions)
	return func(text string) (parser.Expr, error) {
		p := parser.NewParser(text, parser.WithFunctions(functions))
		defer p.Close()
		return p.ParseExpr()
	}
}

// parseWeights reads tenant=weight.
func parseWeights(pairs []string) (map[string]float64, error) {
	out := map[string]float64{}
	for _, pair := range pairs {
		tenant, text, ok := strings.Cut(pair, "=")
		w, err := strconv.ParseFloat(text, 64)
		if !ok || err != nil || tenant == "" {
			return nil, fmt.Errorf("%q is no weight like team-a=2", pair)
		}
		out[tenant] = w
	}
	return out, nil
}

// Times of looking whether the queriers are ready.
const (
	watchInterval = 10 * time.Second
	startInterval = time.Second // until the queriers are ready for the first time
	watchTimeout  = 10 * time.Second
)

// watch turns the probe ready and back with the queriers, until the context ends.
func (c *frontendFlags) watch(ctx context.Context, p *process, f *frontend.Frontend) {
	t := time.NewTicker(startInterval)
	defer t.Stop()
	for {
		look, cancel := context.WithTimeout(ctx, watchTimeout)
		err := f.Ready(look)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if p.probe.IsReady() {
				_ = level.Warn(p.logger).Log("msg", "the queriers are not ready", "err", err)
			}
			p.probe.NotReady(fmt.Errorf("ask the queriers whether they are ready: %w", err))
		default:
			t.Reset(watchInterval)
			p.probe.Ready()
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
