package api

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/koios-metrics/koios/pkg/store"
)

// pointsMax is how many steps a range query may have. It bounds what one series of an answer weighs, and is
// enough for a week by the minute.
const pointsMax = 11_000

// The ends of the time scale as Prometheus's clients write them.
const (
	firstTimeText = "-292273086-05-16T16:47:06Z"
	lastTimeText  = "292277025-08-18T07:12:54.999999999Z"
)

// Times beyond these, in seconds, do not fit into ms.
const secondsMax = float64(math.MaxInt64 / 1000)

// parseTime reads unix seconds or RFC 3339.
func parseTime(name, s string) (time.Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) || math.Abs(f) > secondsMax {
			return time.Time{}, badRequest("parameter %q: time %s is out of range", name, s)
		}
		return time.UnixMilli(int64(math.Round(f * 1000))).UTC(), nil
	}
	switch s {
	case firstTimeText:
		return time.UnixMilli(math.MinInt64).UTC(), nil
	case lastTimeText:
		return time.UnixMilli(math.MaxInt64).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, badRequest("parameter %q: %q is no time: use unix seconds, or RFC 3339 like 2006-01-02T15:04:05Z", name, s)
	}
	return t, nil
}

// parseDuration reads seconds, or a number with a unit.
func parseDuration(name, s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) || math.Abs(f) > float64(math.MaxInt64/time.Second) {
			return 0, badRequest("parameter %q: duration %s is out of range", name, s)
		}
		return time.Duration(f * float64(time.Second)), nil
	}
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, badRequest("parameter %q: %q is no duration: use seconds, or a number with a unit like 5m", name, s)
	}
	return time.Duration(d), nil
}

func timeParam(r *http.Request, name string, absent time.Time) (time.Time, error) {
	s := r.FormValue(name)
	if s == "" {
		return absent, nil
	}
	return parseTime(name, s)
}

// durationParam returns 0 when the parameter is absent.
func durationParam(r *http.Request, name string) (time.Duration, error) {
	s := r.FormValue(name)
	if s == "" {
		return 0, nil
	}
	return parseDuration(name, s)
}

func boolParam(r *http.Request, name string, absent bool) (bool, error) {
	s := r.FormValue(name)
	if s == "" {
		return absent, nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return false, badRequest("parameter %q: %q is neither true nor false", name, s)
	}
	return v, nil
}

// rangeParams reads start, end and step of a range query.
func (a *API) rangeParams(r *http.Request) (start, end time.Time, step time.Duration, err error) {
	fail := func(err error) (time.Time, time.Time, time.Duration, error) { return time.Time{}, time.Time{}, 0, err }
	for name, t := range map[string]*time.Time{"start": &start, "end": &end} {
		s := r.FormValue(name)
		if s == "" {
			return fail(badRequest("parameter %q is missing: a range query needs start and end", name))
		}
		if *t, err = parseTime(name, s); err != nil {
			return fail(err)
		}
	}
	if end.Before(start) {
		return fail(badRequest("parameter \"end\" (%s) is before \"start\" (%s): swap them", store.FormatTime(end.UnixMilli()), store.FormatTime(start.UnixMilli())))
	}
	// As seconds: the ends of the scale are further apart than a time.Duration reaches.
	seconds := float64(end.UnixMilli())/1000 - float64(start.UnixMilli())/1000
	if s := r.FormValue("step"); s == "" {
		step = max(time.Duration(math.Min(math.Floor(seconds/250), float64(math.MaxInt64/time.Second)))*time.Second, a.cfg.DefaultStep)
	} else if step, err = parseDuration("step", s); err != nil {
		return fail(err)
	}
	if step < time.Millisecond {
		return fail(badRequest("parameter \"step\" (%s) is too short: it must be a millisecond at least", step))
	}
	if points := seconds / step.Seconds(); points > pointsMax {
		return fail(badRequest("a step of %s over this range makes %.0f points per series, %d are allowed: raise \"step\" to %ds or more, or shorten the range",
			step, points, pointsMax, int64(math.Ceil(seconds/pointsMax))))
	}
	return start, end, step, nil
}

// partialParam reads partial_response.
func (a *API) partialParam(r *http.Request) (store.PartialResponse, error) {
	partial, err := boolParam(r, "partial_response", a.cfg.PartialResponse)
	if partial {
		return store.Warn, err
	}
	return store.Abort, err
}

func (a *API) replicaLabelsParam(r *http.Request) []string {
	if ls := r.Form["replicaLabels[]"]; len(ls) > 0 {
		return ls
	}
	return a.cfg.ReplicaLabels
}

func storeMatchersParam(r *http.Request) (all [][]*labels.Matcher, err error) {
	for _, s := range r.Form["storeMatch[]"] {
		ms, err := parser.ParseMetricSelector(s)
		if err != nil {
			return nil, badRequest("parameter \"storeMatch[]\": parse selector %q: %w", s, err)
		}
		all = append(all, ms)
	}
	return all, nil
}

// resolutionParam reads max_source_resolution, in ms; auto is what "auto" stands for.
func (a *API) resolutionParam(r *http.Request, auto time.Duration) (int64, error) {
	const name = "max_source_resolution"
	s := r.FormValue(name)
	if s == "auto" || s == "" && a.cfg.AutoDownsampling {
		return auto.Milliseconds(), nil
	}
	if s == "" {
		return 0, nil
	}
	d, err := parseDuration(name, s)
	if err == nil && d < 0 {
		err = badRequest("parameter %q (%s) must not be negative", name, s)
	}
	return d.Milliseconds(), err
}

// shardParam reads shard_info, with which a query frontend splits a query over several queriers.
func shardParam(r *http.Request) (*store.Shard, error) {
	s := r.FormValue("shard_info")
	if s == "" {
		return nil, nil
	}
	var in struct {
		Index  int64    `json:"shard_index"`
		Total  int64    `json:"total_shards"`
		By     bool     `json:"by"`
		Labels []string `json:"labels"`
	}
	if err := json.Unmarshal([]byte(s), &in); err != nil {
		return nil, badRequest("parameter \"shard_info\": %w", err)
	}
	if in.Total > 0 && (in.Index < 0 || in.Index >= in.Total) {
		return nil, badRequest("parameter \"shard_info\": there is no shard %d of %d", in.Index, in.Total)
	}
	return &store.Shard{Index: in.Index, Total: in.Total, By: in.By, Labels: in.Labels}, nil
}

// limitParam reads limit; 0 is none.
func limitParam(r *http.Request) (int, error) {
	s := r.FormValue("limit")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, badRequest("parameter \"limit\": %q is no number from 0 (no limit) on", s)
	}
	return n, nil
}

// matchersParam reads match[].
func matchersParam(r *http.Request) (all [][]*labels.Matcher, err error) {
	for _, s := range r.Form["match[]"] {
		ms, err := parser.ParseMetricSelector(s)
		if err != nil {
			return nil, badRequest("parameter \"match[]\": parse selector %q: %w", s, err)
		}
		selective := false
		for _, m := range ms {
			selective = selective || !m.Matches("")
		}
		if !selective {
			return nil, badRequest("parameter \"match[]\": selector %q would select everything: it needs a matcher that does not match the empty string", s)
		}
		all = append(all, ms)
	}
	return all, nil
}
