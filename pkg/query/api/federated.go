package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/koios-metrics/koios/pkg/federate"
	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/pkg/tenancy"
	"github.com/koios-metrics/koios/proto/exemplarspb"
	"github.com/koios-metrics/koios/proto/metadatapb"
	"github.com/koios-metrics/koios/proto/rulespb"
	"github.com/koios-metrics/koios/proto/statuspb"
	"github.com/koios-metrics/koios/proto/targetspb"
)

// registerFederated adds what is asked of all peers and is no PromQL.
func (a *API) registerFederated(r *registrar) {
	if a.cfg.Federation == nil {
		return
	}
	const get, post = http.MethodGet, http.MethodPost
	r.add("alerts", "/alerts", a.tenant(a.alerts), get)
	r.add("rules", "/rules", a.tenant(a.rules), get)
	r.add("targets", "/targets", a.tenant(a.targets), get)
	r.add("metadata", "/metadata", a.tenant(a.metricMetadata), get)
	r.add("exemplars", "/query_exemplars", a.tenant(a.exemplars), get, post)
	r.add("status_tsdb", "/status/tsdb", a.tenant(a.statusTSDB), get)
}

// federated makes an answer of one of a Federation. Nobody keeps one with warnings: a part may be missing.
func federated[T any](got *federate.Answer[T], data any) *answer {
	return &answer{data: data, warnings: got.Warnings, noStore: len(got.Warnings) > 0, done: got.Close}
}

// rules lists rules with their states.
func (a *API) rules(r *http.Request) (*answer, error) {
	req := &rulespb.RulesRequest{
		MatcherString: r.Form["match[]"],
		RuleName:      listParam(r, "rule_name"),
		RuleGroup:     listParam(r, "rule_group"),
		File:          listParam(r, "file"),
	}
	switch typ := r.FormValue("type"); strings.ToLower(typ) {
	case "", "all":
	case "alert":
		req.Type = rulespb.RulesRequest_ALERT
	case "record":
		req.Type = rulespb.RulesRequest_RECORD
	default:
		return nil, badRequest("parameter \"type\": %q is none of all, alert and record", typ)
	}
	got, err := a.cfg.Federation.Rules(r.Context(), req)
	if err != nil {
		return nil, err
	}
	return federated(got, federate.RulesJSON(got.Data)), nil
}

// listParam reads a list, which some clients write with brackets and some without.
func listParam(r *http.Request, name string) []string {
	return append(slices.Clip(r.Form[name+"[]"]), r.Form[name]...)
}

// alerts lists the active alerts.
func (a *API) alerts(r *http.Request) (*answer, error) {
	got, err := a.cfg.Federation.Rules(r.Context(), &rulespb.RulesRequest{Type: rulespb.RulesRequest_ALERT})
	if err != nil {
		return nil, err
	}
	return federated(got, federate.AlertsJSON(got.Data)), nil
}

// targets lists what is scraped.
func (a *API) targets(r *http.Request) (*answer, error) {
	req := &targetspb.TargetsRequest{}
	switch state := r.FormValue("state"); strings.ToLower(state) {
	case "", "any":
	case "active":
		req.State = targetspb.TargetsRequest_ACTIVE
	case "dropped":
		req.State = targetspb.TargetsRequest_DROPPED
	default:
		return nil, badRequest("parameter \"state\": %q is none of any, active and dropped", state)
	}
	got, err := a.cfg.Federation.Targets(r.Context(), req)
	if err != nil {
		return nil, err
	}
	return federated(got, federate.TargetsJSON(got.Data)), nil
}

// metricMetadata tells type, help and unit of metrics.
func (a *API) metricMetadata(r *http.Request) (*answer, error) {
	req := &metadatapb.MetricMetadataRequest{Metric: r.FormValue("metric"), Limit: -1}
	if s := r.FormValue("limit"); s != "" {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return nil, badRequest("parameter \"limit\": %q is no number (below 0 is no limit)", s)
		}
		req.Limit = int32(n)
	}
	got, err := a.cfg.Federation.Metadata(r.Context(), req)
	if err != nil {
		return nil, err
	}
	return federated(got, federate.MetadataJSON(got.Data)), nil
}

// exemplars finds the exemplars of a query's selectors.
func (a *API) exemplars(r *http.Request) (*answer, error) {
	req := &exemplarspb.ExemplarsRequest{Query: r.FormValue("query"), Start: promapi.MinTime, End: promapi.MaxTime}
	for name, ms := range map[string]*int64{"start": &req.Start, "end": &req.End} {
		s := r.FormValue(name)
		if s == "" {
			continue
		}
		t, err := parseTime(name, s)
		if err != nil {
			return nil, err
		}
		*ms = min(max(t.UnixMilli(), promapi.MinTime), promapi.MaxTime)
	}
	if req.End < req.Start {
		return nil, badRequest("parameter \"end\" (%s) is before \"start\" (%s): swap them", store.FormatTime(req.End), store.FormatTime(req.Start))
	}
	if req.Query == "" {
		return nil, badRequest("parameter \"query\" is missing: say of which series, for example query=up")
	}
	got, err := a.cfg.Federation.Exemplars(r.Context(), req)
	if err != nil {
		return nil, err
	}
	return federated(got, federate.ExemplarsJSON(got.Data)), nil
}

// statisticsMax is how long the lists of status/tsdb are unless the request says otherwise.
const statisticsMax = 10

// statusTSDB tells what takes room in the databases below: of the caller's tenant if tenancy is enforced,
// else of all tenants together.
func (a *API) statusTSDB(r *http.Request) (*answer, error) {
	req := &statuspb.TSDBStatisticsRequest{Limit: statisticsMax}
	if s := r.FormValue("limit"); s != "" {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return nil, badRequest("parameter \"limit\": %q is no number", s)
		}
		if n >= 1 {
			req.Limit = int32(n)
		}
	}
	for _, s := range r.Form["match[]"] {
		ms, err := parser.ParseMetricSelector(s)
		if err != nil {
			return nil, badRequest("parameter \"match[]\": parse selector %q: %w", s, err)
		}
		req.Matchers = append(req.Matchers, wire.EncodeMatchers(ms)...)
	}
	name := ""
	if a.cfg.EnforceTenancy {
		name, _ = tenancy.FromContext(r.Context())
		req.Tenant = name
	}
	got, err := a.cfg.Federation.TSDBStatistics(r.Context(), req)
	if err != nil {
		return nil, err
	}
	var all []*statuspb.TSDBStatisticsEntry
	for tenant, e := range got.Data {
		if !a.cfg.EnforceTenancy || tenant == name {
			all = append(all, e)
		}
	}
	if a.cfg.EnforceTenancy && len(all) == 0 {
		got.Close()
		return nil, &internalError{fmt.Errorf("no endpoint has statistics of tenant %q", name)}
	}
	return federated(got, federate.StatisticsJSON(federate.MergeStatistics(all), int(req.Limit))), nil
}

// internalError is shown as errorInternal.
type internalError struct{ error }

// Unwrap returns the error itself.
func (e *internalError) Unwrap() error { return e.error }
