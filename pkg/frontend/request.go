package frontend

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// call is what every request has, on its way down.
type call struct {
	// path is the request's own, as the client sent it.
	path string
	// form are the parameters but for those that the kind of request keeps apart. It is shared by all copies of a call and
	// never changed.
	form url.Values
	// header are the headers that go down with it; shared and never changed.
	header http.Header
	// tenant is whose data is asked for, org who asks: it is part of the keys of caches and of logs.
	tenant, org string
	// stats gathers what the request took; nil gathers nothing.
	stats *queryStats
	// requestID is the request's name in logs, which goes down with it.
	requestID string
	// noCache is true when nothing kept may be used, and nothing kept of it.
	noCache bool
}

// rangeQuery is a range query. Handlers pass on changed copies.
type rangeQuery struct {
	call
	query string
	expr  parser.Expr // what query says; never changed
	// start, end and step are in ms, start and end inclusive.
	start, end, step int64
}

// errMissing tells of parameters without which a request has no meaning here; the querier says it better.
var errMissing = errors.New("parameter is missing")

// The parameters of a range query by what they are to the frontend. Any other makes a query pass untouched: what it
// means for the parts of a range nobody knows.
var (
	rangeTimes  = []string{"query", "start", "end", "step"}
	rangeKnown  = []string{"dedup", "partial_response", "max_source_resolution", "replicaLabels[]", "storeMatch[]", "lookback_delta", "engine", "timeout", "stats", "analyze"}
	boolsKnown  = []string{"dedup", "partial_response", "analyze"}
	singleKnown = []string{"query", "start", "end", "step", "dedup", "partial_response", "max_source_resolution", "lookback_delta", "engine", "timeout", "stats", "analyze", "time", "shard_info"}
)

// parseRange reads a range query. An error means that it has to go down as it is.
func parseRange(c call, form url.Values, parse func(string) (parser.Expr, error)) (*rangeQuery, error) {
	rest, err := known(form, rangeTimes, rangeKnown)
	if err != nil {
		return nil, err
	}
	q := &rangeQuery{call: c, query: form.Get("query")}
	q.form = rest
	for name, to := range map[string]*int64{"start": &q.start, "end": &q.end} {
		if *to, err = parseTime(form.Get(name)); err != nil {
			return nil, fmt.Errorf("parameter %q: %w", name, err)
		}
	}
	if q.step, err = parseDuration(form.Get("step")); err != nil {
		return nil, fmt.Errorf("parameter \"step\": %w", err)
	}
	if q.step <= 0 || q.end < q.start || (q.end-q.start)/q.step > pointsMax {
		return nil, errors.New("the querier refuses this range")
	}
	if q.expr, err = parse(q.query); err != nil {
		return nil, err
	}
	return q, nil
}

// pointsMax is the most steps that a querier answers.
const pointsMax = 11_000

// known splits a form into what a kind of request keeps apart and the rest, which must be among the known.
func known(form url.Values, apart, rest []string) (url.Values, error) {
	left := url.Values{}
	is := func(names []string, name string) bool {
		for _, n := range names {
			if n == name {
				return true
			}
		}
		return false
	}
	for name, vs := range form {
		if len(vs) > 1 && is(singleKnown, name) {
			return nil, fmt.Errorf("parameter %q comes %d times", name, len(vs))
		}
		switch {
		case is(boolsKnown, name):
			b, err := strconv.ParseBool(vs[0])
			if err != nil {
				if vs[0] == "" {
					continue
				}
				return nil, fmt.Errorf("parameter %q: %w", name, err)
			}
			left.Set(name, strconv.FormatBool(b))
		case is(apart, name):
		case is(rest, name):
			// It is not in the keys of caches, so that a senseless one must not find what others have asked for.
			if d, err := parseDuration(vs[0]); name == "timeout" && vs[0] != "" && (err != nil || d <= 0) {
				return nil, fmt.Errorf("parameter %q: the querier refuses it", name)
			}
			left[name] = vs
		default:
			return nil, fmt.Errorf("parameter %q is not known here", name)
		}
	}
	return left, nil
}

// parseTime reads unix seconds or RFC 3339, in ms as a querier rounds them.
func parseTime(s string) (int64, error) {
	if s == "" {
		return 0, errMissing
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) || math.Abs(f) > timeMax/1000 {
			return 0, errors.New("time is out of range")
		}
		return int64(math.Round(f * 1000)), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, err
	}
	if t.Year() < 1 || t.Year() > 9999 {
		return 0, errors.New("time is out of range")
	}
	return t.UnixMilli(), nil
}

// timeMax bounds times in ms, so that sums of a few can't run over: about ten thousand years.
const timeMax = float64(1 << 58)

// parseDuration reads seconds or a number with a unit, in ms.
func parseDuration(s string) (int64, error) {
	if s == "" {
		return 0, errMissing
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		ms := f * 1000
		if math.IsNaN(f) || math.Abs(ms) > timeMax {
			return 0, errors.New("duration is out of range")
		}
		if ms != math.Trunc(ms) {
			return 0, errors.New("duration has parts of a millisecond")
		}
		return int64(ms), nil
	}
	d, err := model.ParseDuration(s)
	return time.Duration(d).Milliseconds(), err
}

// values is the form that goes down.
func (q *rangeQuery) values() url.Values {
	v := url.Values{}
	for name, vs := range q.form {
		v[name] = vs
	}
	v.Set("query", q.query)
	v.Set("start", formatTime(q.start))
	v.Set("end", formatTime(q.end))
	v.Set("step", formatTime(q.step))
	return v
}

// formatTime writes ms as seconds.
func formatTime(ms int64) string {
	b := strconv.AppendInt(nil, ms/1000, 10)
	if rest := ms % 1000; rest != 0 {
		if ms < 0 {
			if ms > -1000 {
				b = append([]byte("-"), b...)
			}
			rest = -rest
		}
		b = append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
	}
	return string(b)
}

// during returns the same query over another range.
func (q *rangeQuery) during(start, end int64) *rangeQuery {
	c := *q
	c.start, c.end = start, end
	return &c
}
