package components

import (
	"time"

	"github.com/koios-metrics/koios/pkg/serve"
)

// queryFlags is the command line of the querier.
type queryFlags struct {
	http       serve.HTTPConfig
	grpc       serve.GRPCConfig
	requestLog content
	limits     storeLimits
	web        webFlags

	routePrefix   string
	alertQueryURL string
	features      []string

	// Endpoints and how they are reached.
	endpoints, strict            []string
	groups, groupsStrict         []string
	injected                     []string
	sdConfig                     content
	sdReload                     time.Duration
	sdFiles                      []string
	sdInterval, dnsInterval      time.Duration
	dnsResolver                  string
	infoTimeout                  time.Duration
	unhealthyTimeout             time.Duration
	responseTimeout              time.Duration
	compression                  string
	tlsSecure, tlsSkipVerify     bool
	tlsCert, tlsKey, tlsCA       string
	tlsServerName, tlsMinVersion string
	connLabels                   []string
	proxyStrategy                string
	lazyBuffered                 int

	// What it tells other queriers about itself, and which data it chooses.
	selectorLabels []string
	selector       content

	// PromQL.
	engine              string
	mode                string
	maxConcurrent       int
	maxConcurrentSelect int
	memory              uint64
	queryMemory         uint64
	shadowSample        float64
	timeout             time.Duration
	lookback            time.Duration
	dynamicLookback     bool
	defaultEvaluation   time.Duration
	defaultStep         time.Duration
	metadataRange       time.Duration
	autoDownsampling    bool
	instantResolution   time.Duration
	replicaLabels       []string
	partitionLabels     []string
	dedupFunc           string
	xFunctions          bool
	noFallback          bool
	overlapping         bool
	activeQueryPath     string

	durationQuantiles, sampleQuantiles, seriesQuantiles []float64

	partial, partialRules, partialTargets, partialMetadata, partialExemplars, partialStatus bool

	tenantHeader, defaultTenant, tenantCertField, tenantLabel string
	enforceTenancy                                            bool

	removedEndpoints, removedStrict []string
	removedDecision                 string
}

// Query is the component that answers PromQL over many StoreAPIs.
func Query() Component {
	return Component{
		name: "query",
		help: "Answer PromQL over many StoreAPI endpoints at once.",
		bind: func(fs *flags) runner {
			c := &queryFlags{}
			c.bind(fs)
			return c.run
		},
	}
}

func (c *queryFlags) bind(fs *flags) {
	httpFlags(fs, &c.http)
	grpcFlags(fs, &c.grpc)
	requestLogFlags(fs, &c.requestLog)
	c.limits.bind(fs)
	c.web.bind(fs)
	fs.string(&c.routePrefix, "web.route-prefix", "", "Path under which the page and its API are served; the path of --web.external-prefix if empty.")
	fs.string(&c.alertQueryURL, "alert.query-url", noDefault, "URL of the querier that alerts link to, as told to the page.")
	fs.strings(&c.features, "enable-feature", "Experimental features to turn on (repeatable, or a comma list): promql-experimental-functions, promql-extended-range-selectors.", "")
	c.bindEndpoints(fs)
	c.bindPromQL(fs)
	c.bindTenancy(fs)
	c.bindRemoved(fs)
}

func (c *queryFlags) bindEndpoints(fs *flags) {
	fs.addresses(&c.endpoints, "endpoint", "StoreAPI endpoint, as host:port or a DNS name with prefix dns+, dnssrv+, dnssrvnoa+ or dnsdualstack+ (repeatable).")
	fs.addresses(&c.strict, "endpoint-strict", "Endpoint with a fixed address that is always asked, even when unhealthy (repeatable). See also --endpoint.")
	fs.addresses(&c.groups, "endpoint-group", "DNS name of endpoints that serve the same data, one of which is asked (repeatable). See also --endpoint.")
	fs.addresses(&c.groupsStrict, "endpoint-group-strict", "Endpoint group that is always asked, even when unhealthy (repeatable). See also --endpoint-group.")
	fs.addresses(&c.injected, "inject-test-addresses", "Addresses for tests (repeatable).").Hidden()
	fs.content(&c.sdConfig, "endpoint.sd-config", "endpoints", false)
	fs.promDuration(&c.sdReload, "endpoint.sd-config-reload-interval", "5m", "How often the endpoint file is read again. See also --endpoint.sd-config-file.")
	fs.promDuration(&c.infoTimeout, "endpoint.info-timeout", "5s", "How long an endpoint may take to tell what it has.").Hidden()
	fs.strings(&c.sdFiles, "store.sd-files", "File in Prometheus's file_sd format with endpoints; a glob in the last part is fine (repeatable).")
	fs.promDuration(&c.sdInterval, "store.sd-interval", "5m", "How often the file_sd files are read again without being told of a change. See also --store.sd-files.")
	fs.promDuration(&c.dnsInterval, "store.sd-dns-interval", "30s", "How often DNS names of endpoints are looked up.")
	fs.string(&c.dnsResolver, "store.sd-dns-resolver", "miekgdns", "Resolver of DNS names: golang or miekgdns.").Hidden()
	fs.promDuration(&c.unhealthyTimeout, "store.unhealthy-timeout", "5m", "How long an endpoint that does not answer is still listed.")
	fs.promDuration(&c.responseTimeout, "store.response-timeout", "0ms", "How long an endpoint may send nothing before it is left out of an answer, with a warning; 0ms is as long as the query.")
	fs.enum(&c.compression, "grpc-compression", "none", "Compression that endpoints are asked for.", "snappy", "none")
	fs.bool(&c.tlsSecure, "grpc-client-tls-secure", false, "Use TLS towards endpoints.")
	fs.bool(&c.tlsSkipVerify, "grpc-client-tls-skip-verify", false, "Don't check the certificates of endpoints.")
	fs.string(&c.tlsCert, "grpc-client-tls-cert", "", "TLS certificate shown to endpoints. Read again when it changes. See also --grpc-client-tls-key.")
	fs.string(&c.tlsKey, "grpc-client-tls-key", "", "TLS key of --grpc-client-tls-cert.")
	fs.string(&c.tlsCA, "grpc-client-tls-ca", "", "Authorities that endpoints must have a certificate of; the system's if empty.")
	fs.string(&c.tlsServerName, "grpc-client-server-name", "", "Name expected in the certificates of endpoints.")
	fs.enum(&c.tlsMinVersion, "grpc-client-tls-min-version", "1.3", "Lowest TLS version towards endpoints.", "1.0", "1.1", "1.2", "1.3")
	fs.enums(&c.connLabels, "query.conn-metric.label", "Labels of the metric that counts connected endpoints (repeatable).", []string{"external_labels", "store_type"}, "external_labels", "store_type", "ip_port")
	fs.enum(&c.proxyStrategy, "grpc.proxy-strategy", "eager", "Whether answers of endpoints are read ahead (eager) or when needed (lazy).", "eager", "lazy").Hidden()
	fs.int(&c.lazyBuffered, "query.lazy-retrieval-max-buffered-responses", "20", "Number of responses an endpoint may be read ahead under the lazy strategy. See also --grpc.proxy-strategy.").Hidden()
	fs.strings(&c.selectorLabels, "selector-label", `Label that this querier tells other queriers to have, as name="value" (repeatable).`)
	fs.content(&c.selector, "selector.relabel-config", "relabel rules (keep, drop, hashmod) that choose data by its external labels", true)
}

func (c *queryFlags) bindPromQL(fs *flags) {
	fs.enum(&c.engine, "query.promql-engine", "thanos", "PromQL engine of requests that name none: thanos is the fast one, and leaves what it is known to be wrong about to prometheus. (In Thanos the default is prometheus.) See also --query.shadow-sample.", "prometheus", "thanos")
	fs.enum(&c.mode, "query.mode", "local", "Whether queries are evaluated here or, in part, by the queriers below.", "local", "distributed")
	fs.int(&c.maxConcurrent, "query.max-concurrent", "20", "Number of queries that are worked on at a time; others wait.")
	fs.int(&c.maxConcurrentSelect, "query.max-concurrent-select", "4", "Number of selectors of one query that are read at a time.")
	fs.bytes(&c.memory, "query.max-memory", "0", "Memory for the series, chunks and results of all queries together; a query past it is refused. 0 is 60 % of the soft memory limit of the Go runtime or, where there is none, 40 % of what the container or machine has. See also --enable-auto-gomemlimit.")
	fs.bytes(&c.queryMemory, "query.max-memory-per-query", "0", "The same for each query by itself; 0 is no bound of its own. See also --query.max-memory.")
	fs.float(&c.shadowSample, "query.shadow-sample", "0", "Part of the queries answered by the thanos engine, from 0 to 1, that the prometheus engine evaluates too when the answer has been sent, one at a time; koios_query_shadow_total counts differences.")
	fs.promDuration(&c.timeout, "query.timeout", "2m", "How long one query may take.")
	fs.goDuration(&c.lookback, "query.lookback-delta", noDefault, "How far back the last sample of a series counts as current; 5m if not given.")
	fs.bool(&c.dynamicLookback, "query.dynamic-lookback-delta", true, "Look back further when downsampled data is asked for.").Hidden()
	fs.promDuration(&c.defaultEvaluation, "query.default-evaluation-interval", "1m", "Step of subqueries that give none.")
	fs.promDuration(&c.defaultStep, "query.default-step", "1s", "Smallest step of range queries that give none.")
	fs.goDuration(&c.metadataRange, "query.metadata.default-time-range", "0s", "Time range until now of label and series requests that give none; 0s is all time.")
	fs.bool(&c.autoDownsampling, "query.auto-downsampling", false, "Choose the resolution of data from the step, in requests that name none.")
	fs.promDuration(&c.instantResolution, "query.instant.default.max_source_resolution", "0s", "Resolution of instant queries under automatic downsampling. See also --query.auto-downsampling.").Hidden()
	fs.strings(&c.replicaLabels, "query.replica-label", "Label that tells replicas of the same data apart; series that differ in it alone are deduplicated (repeatable).")
	fs.strings(&c.partitionLabels, "query.partition-label", "Label that tells apart which endpoints hold disjoint data, for distributed queries (repeatable).")
	fs.enum(&c.dedupFunc, "deduplication.func", "penalty", "How replicas become one series: penalty for scrapes of several Prometheus, chain for copies of the same samples.", "penalty", "chain")
	fs.bool(&c.xFunctions, "query.enable-x-functions", false, "Offer xrate, xincrease and xdelta in the thanos engine.")
	fs.bool(&c.noFallback, "query.disable-fallback", false, "Refuse what the thanos engine lacks and take its answers as they are, instead of using the prometheus engine.").Hidden()
	fs.bool(&c.overlapping, "query.distributed-with-overlapping-interval", false, "Evaluate distributed queries although the time ranges of queriers overlap.").Hidden()
	fs.string(&c.activeQueryPath, "query.active-query-path", "", "Folder of the file that lists the queries in work, for reading after a crash; none if empty.")
	fs.floats(&c.durationQuantiles, "query.telemetry.request-duration-seconds-quantiles", "Bounds in seconds of the histogram of StoreAPI request durations (repeatable).", "0.1", "0.25", "0.75", "1.25", "1.75", "2.5", "3", "5", "10")
	fs.floats(&c.sampleQuantiles, "query.telemetry.request-samples-quantiles", "Bounds of the sample counts by which that histogram is split (repeatable).", "100", "1000", "10000", "100000", "1000000")
	fs.floats(&c.seriesQuantiles, "query.telemetry.request-series-seconds-quantiles", "Bounds of the series counts by which that histogram is split (repeatable).", "10", "100", "1000", "10000", "100000")
	fs.bool(&c.partial, "query.partial-response", true, "Answer with a warning when an endpoint fails, in requests that don't say; otherwise fail.")
	fs.bool(&c.partialRules, "rule.partial-response", true, "The same for rules and alerts.").Hidden()
	fs.bool(&c.partialTargets, "target.partial-response", true, "The same for targets.").Hidden()
	fs.bool(&c.partialMetadata, "metric-metadata.partial-response", true, "The same for metric metadata.").Hidden()
	fs.bool(&c.partialExemplars, "exemplar.partial-response", true, "The same for exemplars.").Hidden()
	fs.bool(&c.partialStatus, "status.partial-response", true, "The same for TSDB status.").Hidden()
}

func (c *queryFlags) bindTenancy(fs *flags) {
	fs.string(&c.tenantHeader, "query.tenant-header", "THANOS-TENANT", "Request header that names the tenant.")
	fs.string(&c.defaultTenant, "query.default-tenant-id", "default-tenant", "Tenant of requests that name none.")
	fs.enum(&c.tenantCertField, "query.tenant-certificate-field", "", "Field of the client certificate that names the tenant, instead of the header.", "", "organization", "organizationalUnit", "commonName")
	fs.string(&c.tenantLabel, "query.tenant-label-name", "tenant_id", "Label with the tenant's name. See also --query.enforce-tenancy.")
	fs.bool(&c.enforceTenancy, "query.enforce-tenancy", false, "Show a tenant only series that have its name in the tenant label. See also --query.tenant-label-name.")
}

// bindRemoved takes what old manifests still say.
func (c *queryFlags) bindRemoved(fs *flags) {
	for _, name := range []string{"store", "rule", "metadata", "exemplar", "target"} {
		fs.addresses(&c.removedEndpoints, name, "Gone: an endpoint.").Hidden()
	}
	fs.addresses(&c.removedStrict, "store-strict", "Gone: a strict endpoint.").Hidden()
	fs.string(&c.removedDecision, "log.request.decision", noDefault, "Gone.").Hidden()
}
