package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/tenancy"
)

// query answers an instant query.
func (a *API) query(r *http.Request) (*answer, error) {
	req, err := a.instantRequest(r)
	if err != nil {
		return nil, err
	}
	return a.exec(r, req)
}

// queryRange answers a range query.
func (a *API) queryRange(r *http.Request) (*answer, error) {
	req, err := a.rangeRequest(r)
	if err != nil {
		return nil, err
	}
	a.metrics.timespan.Observe(req.End.Sub(req.Start).Seconds())
	return a.exec(r, req)
}

func (a *API) explain(r *http.Request) (*answer, error) {
	req, err := a.instantRequest(r)
	if err != nil {
		return nil, err
	}
	return a.explained(r, req)
}

func (a *API) explainRange(r *http.Request) (*answer, error) {
	req, err := a.rangeRequest(r)
	if err != nil {
		return nil, err
	}
	return a.explained(r, req)
}

func (a *API) explained(r *http.Request, req *query.Request) (*answer, error) {
	plan, err := a.q.Explain(r.Context(), *req)
	if err != nil {
		return nil, err
	}
	return &answer{data: plan}, nil
}

func (a *API) formatQuery(r *http.Request) (*answer, error) {
	expr, err := a.q.Parse(r.FormValue("query"))
	if err != nil {
		return nil, badRequest("parameter \"query\": %w", err)
	}
	return &answer{data: expr.Pretty(0)}, nil
}

func (a *API) instantRequest(r *http.Request) (*query.Request, error) {
	at, err := timeParam(r, "time", a.cfg.Now())
	if err != nil {
		return nil, err
	}
	return a.request(r, query.Request{Start: at, End: at}, a.cfg.InstantMaxResolution)
}

func (a *API) rangeRequest(r *http.Request) (*query.Request, error) {
	start, end, step, err := a.rangeParams(r)
	if err != nil {
		return nil, err
	}
	return a.request(r, query.Request{Start: start, End: end, Step: step}, step/5)
}

// request reads what both kinds of queries share.
func (a *API) request(r *http.Request, req query.Request, autoResolution time.Duration) (*query.Request, error) {
	if r.FormValue("query") == "" {
		return nil, badRequest("parameter \"query\" is missing: it takes a PromQL expression")
	}
	var errs [8]error
	req.Expr, errs[0] = a.enforceExpr(r, r.FormValue("query"))
	req.Dedup, errs[1] = boolParam(r, "dedup", true)
	req.PartialResponse, errs[2] = a.partialParam(r)
	req.MaxResolution, errs[3] = a.resolutionParam(r, autoResolution)
	req.StoreMatchers, errs[4] = storeMatchersParam(r)
	req.Shard, errs[5] = shardParam(r)
	req.Lookback, errs[6] = durationParam(r, "lookback_delta")
	_, errs[7] = durationParam(r, "timeout")
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	req.ReplicaLabels = a.replicaLabelsParam(r)
	req.Engine = r.FormValue("engine")
	req.Stats, req.PerStepStats = r.FormValue("stats") != "", r.FormValue("stats") == "all"
	analyze := r.FormValue("analyze")
	req.Analyze = analyze == "true" || analyze == "1"
	return &req, nil
}

func (a *API) exec(r *http.Request, req *query.Request) (*answer, error) {
	ctx := r.Context()
	if d, _ := durationParam(r, "timeout"); d > 0 { // It was checked by request.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, d, promql.ErrQueryTimeout(fmt.Sprintf("query execution: it took longer than the requested %s", d)))
		defer cancel()
	}
	begin := time.Now()
	res, err := a.q.Exec(ctx, *req)
	if err != nil {
		return nil, err
	}
	name, _ := tenancy.FromContext(ctx)
	a.metrics.observe(time.Since(begin), res.Fetched, name)

	data := &queryData{result: res, analysis: struct{}{}}
	out := &answer{data: data, done: res.Close}
	out.annotate(res.Annotations, req.Expr)
	if res.Stats != nil {
		data.stats = stats.NewQueryStats(res.Stats)
	}
	if res.Analysis != nil {
		data.analysis = res.Analysis
	}
	if res.AnalysisErr != nil {
		out.warnings = append(out.warnings, fmt.Sprintf("there is no analysis: %v", res.AnalysisErr))
	}
	return out, nil
}

// annotate sorts annotations into warnings and infos. A warning of a Store means that data may be missing.
func (a *answer) annotate(as annotations.Annotations, expr string) {
	a.warnings, a.infos = as.AsStrings(expr, 0, 0)
	slices.Sort(a.warnings)
	slices.Sort(a.infos)
	for _, err := range as {
		if query.IsStoreWarning(err) {
			a.noStore = true
		}
	}
}

// warn adds the warnings of a Store.
func (a *answer) warn(ws annotations.Annotations) {
	for _, w := range ws {
		to := &a.warnings
		if errors.Is(w, annotations.PromQLInfo) {
			to = &a.infos
		}
		if text := w.Error(); !slices.Contains(*to, text) {
			*to = append(*to, text)
		}
		a.noStore = true
	}
	slices.Sort(a.warnings)
	slices.Sort(a.infos)
}

// truncated is the warning of a list that was cut to the requested limit.
const truncated = "results truncated due to limit"
