package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/frontend/matrix"
)

// reply is an answer of the querier as it came.
type reply struct {
	body   []byte
	header http.Header
}

// The parameters of an instant query that leave what is known of shards true.
var (
	instantApart = []string{"query", "time"}
	instantKnown = []string{"dedup", "partial_response", "max_source_resolution", "replicaLabels[]", "storeMatch[]", "lookback_delta", "engine", "timeout"}
	errNotVector = errors.New("the querier's answer is not a vector")
)

// serveInstant answers an instant query: as the querier does, after a few attempts if need be, and in shards where
// these are known to make up the whole.
func (f *Frontend) serveInstant(w http.ResponseWriter, r *http.Request, c call) {
	form := r.Form
	if form.Get("partial_response") == "" {
		form.Set("partial_response", fmt.Sprint(f.cfg.Range.PartialResponse))
	}
	if f.cfg.ForceStats && form.Get("stats") == "" {
		form.Set("stats", "all")
	}
	a, err := f.instant(r.Context(), &c, form)
	if err != nil {
		f.writeError(w, err)
		return
	}
	for _, name := range []string{"Content-Type", "Cache-Control", traceHeader} {
		if v := a.header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	c.stats.tell(w)
	_, _ = w.Write(a.body)
}

func (f *Frontend) instant(ctx context.Context, c *call, form url.Values) (reply, error) {
	by := f.instantShards(form)
	if f.cfg.Shards > 1 {
		countShardable(f.metrics.instantShardable, len(by) > 0)
	}
	if len(by) == 0 {
		a, err := f.instantOnce(ctx, c, form)
		if err == nil && f.cfg.ForceStats {
			c.stats.read(a.body)
		}
		return a, err
	}
	answers := make([]*instantAnswer, f.cfg.Shards)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, f.cfg.Range.Split.Parallel))
	for i, part := range shardForms(form, by, f.cfg.Shards) {
		g.Go(func() error {
			a, err := f.instantOnce(gctx, c, part)
			if err == nil {
				answers[i], err = parseInstant(a)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return reply{}, err
	}
	return joinInstant(answers)
}

func (f *Frontend) instantOnce(ctx context.Context, c *call, form url.Values) (reply, error) {
	observe := func(again int) { f.metrics.instantRetries.Observe(float64(again)) }
	return attempt(ctx, f.cfg.InstantAttempts, observe, func(ctx context.Context) (reply, error) {
		var a reply
		var err error
		a.header, err = f.down.post(ctx, c, form, into(&a.body))
		return a, err
	})
}

// instantShards returns the labels by which an instant query is sharded, none if it is asked for as a whole.
func (f *Frontend) instantShards(form url.Values) []string {
	if f.cfg.Shards <= 1 {
		return nil
	}
	if _, err := known(form, instantApart, instantKnown); err != nil {
		return nil
	}
	expr, err := f.cfg.Parse(form.Get("query"))
	if err != nil {
		return nil
	}
	return shardLabels(expr)
}

// instantAnswer is a vector.
type instantAnswer struct {
	elements        []labelSet
	warnings, infos []string
	analysis        json.RawMessage
	noStore         bool
}

func parseInstant(r reply) (*instantAnswer, error) {
	var in struct {
		Status string `json:"status"`
		Data   struct {
			ResultType string            `json:"resultType"`
			Result     []json.RawMessage `json:"result"`
			Analysis   json.RawMessage   `json:"analysis"`
		} `json:"data"`
		Warnings, Infos []string
	}
	if err := json.Unmarshal(r.body, &in); err != nil {
		return nil, fmt.Errorf("read the querier's answer: %w", err)
	}
	if in.Status != "success" || in.Data.ResultType != "vector" {
		return nil, fmt.Errorf("read the querier's answer: %w", errNotVector)
	}
	out := &instantAnswer{warnings: in.Warnings, infos: in.Infos, analysis: in.Data.Analysis, noStore: noStore(r.header)}
	for _, text := range in.Data.Result {
		var e struct {
			Metric json.RawMessage `json:"metric"`
		}
		if err := json.Unmarshal(text, &e); err != nil {
			return nil, fmt.Errorf("read the querier's answer: %w", err)
		}
		ls, err := matrix.ParseLabels(e.Metric)
		if err != nil {
			return nil, fmt.Errorf("read the querier's answer: %w", err)
		}
		out.elements = append(out.elements, labelSet{ls, text})
	}
	return out, nil
}

// joinInstant makes one vector of those of the shards, sorted by labels.
func joinInstant(parts []*instantAnswer) (reply, error) {
	elements, warnings, infos := []labelSet{}, map[string]bool{}, map[string]bool{}
	none := false
	for _, p := range parts {
		elements = append(elements, p.elements...)
		none = none || p.noStore
		for _, s := range p.warnings {
			warnings[s] = true
		}
		for _, s := range p.infos {
			infos[s] = true
		}
	}
	slices.SortStableFunc(elements, func(a, b labelSet) int { return labels.Compare(a.labels, b.labels) })
	texts := make([]json.RawMessage, len(elements))
	for i := range elements {
		if texts[i] = elements[i].text; i > 0 && labels.Equal(elements[i-1].labels, elements[i].labels) {
			return reply{}, fmt.Errorf("read the querier's answer: two shards have %s", elements[i].labels)
		}
	}
	type data struct {
		ResultType string            `json:"resultType"`
		Result     []json.RawMessage `json:"result"`
		Analysis   json.RawMessage   `json:"analysis,omitempty"`
	}
	body, err := json.Marshal(struct {
		Status   string   `json:"status"`
		Data     data     `json:"data"`
		Warnings []string `json:"warnings,omitempty"`
		Infos    []string `json:"infos,omitempty"`
	}{"success", data{"vector", texts, parts[0].analysis}, slices.Sorted(maps.Keys(warnings)), slices.Sorted(maps.Keys(infos))})
	header := http.Header{"Content-Type": {"application/json"}}
	if none {
		header.Set("Cache-Control", "no-store")
	}
	return reply{body, header}, err
}
