package api

import (
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/store"
)

// about is what a request about labels or series asks for.
type about struct {
	opts     query.Options
	querier  storage.Querier
	mint     int64
	maxt     int64
	matchers [][]*labels.Matcher
	limit    int // 0 is none
}

// about reads the parameters; the caller closes the querier.
func (a *API) about(r *http.Request, opts query.Options) (*about, error) {
	m := &about{opts: opts}
	start, end, err := a.metadataTimes(r)
	if err != nil {
		return nil, err
	}
	m.mint, m.maxt = start.UnixMilli(), end.UnixMilli()
	if m.opts.PartialResponse, err = a.partialParam(r); err != nil {
		return nil, err
	}
	if m.opts.StoreMatchers, err = storeMatchersParam(r); err != nil {
		return nil, err
	}
	if m.matchers, err = matchersParam(r); err != nil {
		return nil, err
	}
	if m.limit, err = limitParam(r); err != nil {
		return nil, err
	}
	m.matchers = a.enforceMatchers(r, m.matchers)
	m.querier, err = a.q.Queryable(m.opts).Querier(m.mint, m.maxt)
	return m, err
}

// metadataTimes reads start and end, which have defaults.
func (a *API) metadataTimes(r *http.Request) (start, end time.Time, err error) {
	start, end = time.UnixMilli(math.MinInt64), time.UnixMilli(math.MaxInt64)
	if a.cfg.DefaultMetadataTimeRange > 0 {
		end = a.cfg.Now()
		start = end.Add(-a.cfg.DefaultMetadataTimeRange)
	}
	if start, err = timeParam(r, "start", start); err != nil {
		return start, end, err
	}
	if end, err = timeParam(r, "end", end); err != nil {
		return start, end, err
	}
	if end.Before(start) {
		return start, end, badRequest("parameter \"end\" (%s) is before \"start\" (%s): swap them", store.FormatTime(end.UnixMilli()), store.FormatTime(start.UnixMilli()))
	}
	return start, end, nil
}

// downstreamLimit is one more than the limit, so that it is seen when there is more.
func (m *about) downstreamLimit() int {
	if m.limit == 0 || m.limit == math.MaxInt {
		return 0
	}
	return m.limit + 1
}

// list collects sorted, unique strings for each list of matchers.
func (m *about) list(get func(*storage.LabelHints, []*labels.Matcher) ([]string, annotations.Annotations, error)) (*answer, error) {
	defer m.querier.Close()
	out := &answer{}
	all := []string{}
	lists := m.matchers
	if len(lists) == 0 {
		lists = [][]*labels.Matcher{nil}
	}
	for _, ms := range lists {
		ss, warnings, err := get(&storage.LabelHints{Limit: m.downstreamLimit()}, ms)
		if err != nil {
			return nil, err
		}
		out.warn(warnings)
		all = append(all, ss...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	out.data = cut(out, all, m.limit)
	return out, nil
}

// cut shortens a list to the limit, with a warning.
func cut[T any](out *answer, list []T, limit int) []T {
	if limit == 0 || len(list) <= limit {
		return list
	}
	out.warnings = append(out.warnings, truncated)
	return list[:limit]
}

// labelNames lists the names of labels.
func (a *API) labelNames(r *http.Request) (*answer, error) {
	// No replica labels are named: they are labels to look for, too.
	m, err := a.about(r, query.Options{Dedup: true})
	if err != nil {
		return nil, err
	}
	return m.list(func(h *storage.LabelHints, ms []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return m.querier.LabelNames(r.Context(), h, ms...)
	})
}

// labelValues lists the values of a label, whose name may be in the U__ escaping of UTF-8 names.
func (a *API) labelValues(r *http.Request) (*answer, error) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return nil, badRequest("%q is no label name", name)
	}
	m, err := a.about(r, query.Options{Dedup: true})
	if err != nil {
		return nil, err
	}
	return m.list(func(h *storage.LabelHints, ms []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return m.querier.LabelValues(r.Context(), name, h, ms...)
	})
}

// series lists the label sets of series.
func (a *API) series(r *http.Request) (*answer, error) {
	if len(r.Form["match[]"]) == 0 {
		return nil, badRequest("parameter \"match[]\" is missing: say which series, for example match[]=up")
	}
	dedup, err := boolParam(r, "dedup", true)
	if err != nil {
		return nil, err
	}
	m, err := a.about(r, query.Options{Dedup: dedup, ReplicaLabels: a.replicaLabelsParam(r), MaxResolution: math.MaxInt64, SkipChunks: true})
	if err != nil {
		return nil, err
	}
	defer m.querier.Close()
	var sets []storage.SeriesSet
	for _, ms := range m.matchers {
		sets = append(sets, m.querier.Select(r.Context(), true, &storage.SelectHints{
			Start: m.mint, End: m.maxt, Limit: m.downstreamLimit(), Func: "series",
		}, ms...))
	}
	out := &answer{}
	all := []labels.Labels{}
	for _, set := range sets {
		for set.Next() {
			all = append(all, set.At().Labels())
		}
		if err := set.Err(); err != nil {
			return nil, err
		}
		out.warn(set.Warnings())
	}
	slices.SortFunc(all, labels.Compare)
	all = slices.CompactFunc(all, labels.Equal)
	out.data = cut(out, all, m.limit)
	return out, nil
}
