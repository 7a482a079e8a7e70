package components

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/clientconf"
	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/discovery"
	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/federate"
	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/query/api"
	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/pkg/tenancy"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// run builds the querier.
//
//	HTTP ─▶ api ─▶ Querier ─┐
//	gRPC ─▶ server ─────────┴▶ fanout ─────┬▶ endpoint.Set ─▶ sidecars, stores, queriers …
//	both ─▶ rules, targets … ─▶ Federation ┘   (loop)
func (c *queryFlags) run(p *process) error {
	budget := c.budget()
	set, err := c.endpointSet(p, budget)
	if err != nil {
		return err
	}
	fan, err := c.fanout(p, set)
	if err != nil {
		return err
	}
	c.enableFeatures(p.logger)
	mode, err := dedup.ParseMode(c.dedupFunc)
	if err != nil {
		return fmt.Errorf("flag --deduplication.func: %w", err)
	}
	q, err := query.New(fan, c.queryConfig(budget, mode), p.logger, p.reg)
	if err != nil {
		return err
	}
	p.close(q.Close)
	p.loop(set.Run)
	p.loop(func(ctx context.Context) error { return c.ready(ctx, p, set) })

	prefix, err := c.prefix()
	if err != nil {
		return err
	}
	whose := c.tenancy()
	c.http.Prefix = prefix
	c.http.DefaultTenant = c.defaultTenant
	c.http.Tenant = whose.Whose
	hs, err := p.addHTTP(c.http, &c.requestLog)
	if err != nil {
		return err
	}
	fed, err := c.federation(set, budget)
	if err != nil {
		return err
	}
	a, err := api.New(q, c.apiConfig(p, set, fed, whose), p.logger, p.reg)
	if err != nil {
		return err
	}
	a.Register(hs, prefix, hs.Wrap)
	return p.addGRPC(c.grpc, &c.requestLog, c.services(p, fan, fed))
}

// services are what this querier offers to others above it.
func (c *queryFlags) services(p *process, fan *fanout.Store, fed *federate.Federation) func(*grpc.Server) {
	return func(s *grpc.Server) {
		storepb.RegisterStoreServer(s, server.New(fan, c.limits.config(), p.logger, p.reg))
		infopb.RegisterInfoServer(s, server.NewInfo(func() (*infopb.InfoResponse, error) {
			if !p.probe.IsReady() {
				return nil, server.ErrNotReady
			}
			info := server.InfoOf("query", fan.Describe())
			federate.Announce(info)
			return info, nil
		}))
		fed.Register(s)
	}
}

// readyTimeout is how long the first look at all endpoints may take, unless --store.response-timeout
// says so.
const readyTimeout = 30 * time.Second

// ready makes the querier ready once every endpoint has been asked, or the time for it is over.
func (c *queryFlags) ready(ctx context.Context, p *process, set *endpoint.Set) error {
	wait := c.responseTimeout
	if wait == 0 {
		wait = readyTimeout
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-set.Ready():
	case <-t.C:
	case <-ctx.Done():
		return nil
	}
	p.probe.Ready()
	<-ctx.Done()
	return nil
}

// budget bounds what all queries hold.
func (c *queryFlags) budget() *store.Budget {
	return store.NewBudget("memory for queries (--query.max-memory)", c.memoryMax())
}

func (c *queryFlags) memoryMax() int64 {
	if bytes := int64(min(c.memory, math.MaxInt64)); bytes != 0 {
		return bytes
	}
	return serve.ShareOfMemory()
}

// shadowMemory bounds what shadow evaluations hold, beside the budget of queries: what one query may hold, and no
// more than an eighth of the budget.
func (c *queryFlags) shadowMemory() int64 {
	bytes := c.memoryMax() / 8
	if c.queryMemory > 0 {
		bytes = min(bytes, int64(min(c.queryMemory, math.MaxInt64)))
	}
	return max(bytes, 1)
}

func (c *queryFlags) endpointSet(p *process, budget *store.Budget) (*endpoint.Set, error) {
	cfg := endpoint.DefaultConfig()
	cfg.Endpoints = append(append(cfg.Endpoints, c.endpoints...), c.removedEndpoints...)
	cfg.Strict = append(append(cfg.Strict, c.strict...), c.removedStrict...)
	cfg.Groups, cfg.StrictGroups = c.groups, c.groupsStrict
	if c.sdConfig.inline != "" && c.sdConfig.file != "" {
		_, err := c.sdConfig.read()
		return nil, err
	}
	cfg.SD, cfg.SDFile, cfg.SDReloadInterval = []byte(c.sdConfig.inline), c.sdConfig.file, c.sdReload
	cfg.Files, cfg.FilesInterval = c.sdFiles, c.sdInterval
	cfg.Resolver, cfg.DNSInterval = discovery.Resolver(c.dnsResolver), c.dnsInterval
	cfg.InfoTimeout, cfg.UnhealthyTimeout, cfg.QueryTimeout = c.infoTimeout, c.unhealthyTimeout, c.timeout
	cfg.ConnectionLabels = c.connLabels
	cfg.Budget = budget
	cfg.DialOptions = p.tracing.DialOptions()
	cfg.Client = clientconf.GRPC{
		TLS:                c.tlsSecure,
		InsecureSkipVerify: c.tlsSkipVerify,
		CertFile:           c.tlsCert,
		KeyFile:            c.tlsKey,
		CAFile:             c.tlsCA,
		MinVersion:         c.tlsMinVersion,
		ServerName:         c.tlsServerName,
		Compression:        c.compression,
	}
	set, err := endpoint.New(cfg, p.logger, p.reg)
	if err != nil {
		return nil, fmt.Errorf("set up endpoints: %w", err)
	}
	return set, nil
}

func (c *queryFlags) fanout(p *process, set *endpoint.Set) (*fanout.Store, error) {
	selector, err := parseLabels(c.selectorLabels)
	if err != nil {
		return nil, fmt.Errorf("flag --selector-label: %w", err)
	}
	text, err := c.selector.read()
	if err != nil {
		return nil, err
	}
	relabel, err := block.ParseSelector(text)
	if err != nil {
		return nil, fmt.Errorf("flag --%s: %w", c.selector.name, err)
	}
	return fanout.New(set.Stores, fanout.Config{
		Name:            "query",
		SelectorLabels:  selector,
		Relabel:         relabel,
		ResponseTimeout: c.responseTimeout,
		Absent:          set.Absent,
	}, p.logger, p.reg), nil
}

// federation asks for what is no PromQL.
func (c *queryFlags) federation(set *endpoint.Set, budget *store.Budget) (*federate.Federation, error) {
	selector, err := parseLabels(c.selectorLabels)
	if err != nil {
		return nil, fmt.Errorf("flag --selector-label: %w", err)
	}
	return federate.New(set, federate.Config{
		ReplicaLabels:  c.replicaLabels,
		SelectorLabels: selector,
		Timeout:        c.responseTimeout,
		Budget:         budget,
		Rules:          partialResponse(c.partialRules),
		Targets:        partialResponse(c.partialTargets),
		Metadata:       partialResponse(c.partialMetadata),
		Exemplars:      partialResponse(c.partialExemplars),
		Status:         partialResponse(c.partialStatus),
	}), nil
}

func partialResponse(warn bool) store.PartialResponse {
	if warn {
		return store.Warn
	}
	return store.Abort
}

func (c *queryFlags) queryConfig(budget *store.Budget, mode dedup.Mode) query.Config {
	return query.Config{
		Engine:                    c.engine,
		DisableFallback:           c.noFallback,
		EnableXFunctions:          c.xFunctions,
		EnginesMode:               c.mode,
		Timeout:                   c.timeout,
		LookbackDelta:             c.lookback,
		DynamicLookback:           c.dynamicLookback,
		DefaultEvaluationInterval: c.defaultEvaluation,
		ActiveQueryPath:           c.activeQueryPath,
		MaxConcurrent:             c.maxConcurrent,
		MaxConcurrentSelect:       c.maxConcurrentSelect,
		Budget:                    budget,
		QueryBytesMax:             int64(min(c.queryMemory, math.MaxInt64)),
		ShadowSample:              c.shadowSample,
		ShadowBytesMax:            c.shadowMemory(),
		Dedup:                     mode,
	}
}

func (c *queryFlags) tenancy() tenancy.Config {
	return tenancy.Config{Header: c.tenantHeader, Tenant: c.defaultTenant, CertificateField: c.tenantCertField}
}

func (c *queryFlags) apiConfig(p *process, set *endpoint.Set, fed *federate.Federation, whose tenancy.Config) api.Config {
	return api.Config{
		ReplicaLabels:            c.replicaLabels,
		PartialResponse:          c.partial,
		AutoDownsampling:         c.autoDownsampling,
		InstantMaxResolution:     c.instantResolution,
		DefaultStep:              c.defaultStep,
		DefaultMetadataTimeRange: c.metadataRange,
		Tenancy:                  whose,
		EnforceTenancy:           c.enforceTenancy,
		TenantLabel:              c.tenantLabel,
		DisableCORS:              c.web.disableCORS,
		Stores:                   set.Status,
		Federation:               fed,
		Status:                   p.status(),
		DurationQuantiles:        c.durationQuantiles,
		SampleQuantiles:          c.sampleQuantiles,
		SeriesQuantiles:          c.seriesQuantiles,
	}
}

// prefix is the path under which the API is served: the route prefix, or else that of the external one.
func (c *queryFlags) prefix() (string, error) {
	if c.routePrefix == "" {
		return c.web.prefix()
	}
	p, err := pathPrefix(c.routePrefix)
	if err != nil {
		return "", fmt.Errorf("flag --web.route-prefix: %w", err)
	}
	return p, nil
}

// parseLabels reads labels of the form name="value"; the quotes may be left out.
func parseLabels(pairs []string) (labels.Labels, error) {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, pair := range pairs {
		name, v, ok := strings.Cut(pair, "=")
		if !ok || !model.UTF8Validation.IsValidLabelName(name) {
			return labels.EmptyLabels(), fmt.Errorf(`%q is no label like name="value"`, pair)
		}
		if strings.HasPrefix(v, `"`) {
			var err error
			if v, err = strconv.Unquote(v); err != nil {
				return labels.EmptyLabels(), fmt.Errorf(`%q is no label like name="value"`, pair)
			}
		}
		b.Set(name, v)
	}
	return b.Labels(), nil
}
