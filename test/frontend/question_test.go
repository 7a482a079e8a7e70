package frontend

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
)

// queries are asked over changing ranges.
var queries = []string{
	`sum by (job) (rate(requests_total[5m]))`,
	`rate(requests_total[5m])`,
	`requests_total`,
	`{job="api"}`,
	`rate({__name__=~"requests_total|errors_total"}[5m])`,
	`sum(rate(errors_total[5m])) / sum(rate(requests_total[5m]))`,
	`max_over_time(temperature[10m])`,
	`avg_over_time(temperature[5m:1m])`,
	`topk(2, temperature)`,
	`count by (__name__) ({__name__=~".+"})`,
	`temperature > 50`,
	`temperature offset 10m`,
	`temperature offset -10m`,
	`rate(requests_total[5m] offset -5m)`,
	`temperature @ end()`,
	`sum(temperature @ start()) + sum(temperature)`,
	`sum_over_time(temperature[10m] @ 1700010000)`,
	`absent(temperature{instance="host-9"})`,
	`absent(temperature)`,
	`vector(time())`,
	`time()`,
	`requests_total or vector(0)`,
	`label_replace(temperature, "job", "$1", "instance", "(.*)-.*")`,
	`label_replace(sum by (instance) (temperature), "host", "$1", "instance", "(.*)")`,
	`label_replace(temperature, "job", "same", "instance", ".*")`,
	`-{__name__=~"requests_total|errors_total"}`,
	`requests_total / on (instance, job) group_left errors_total`,
	`quantile by (job) (0.9, temperature)`,
	`count_values("value", round(temperature, 50))`,
	`increase(temperature[10m])`,
	`sort_desc(temperature)`,
	`timestamp(temperature)`,
	`histogram_quantile(0.9, temperature)`,
	`sum(`,
	`foo bar`,
	`requests_total[5m]`,
	`label_replace(temperature, "job", "$1", "instance", "(")`,
	`day_of_week()`,
	`scalar(temperature{instance="host-0",job="api"})`,
	`limitk(2, temperature)`,
	`latency`,
	`sum(rate(latency[5m]))`,
	`histogram_quantile(0.9, sum by (job) (rate(latency[5m])))`,
	`{__name__=~"latency|temperature",job="api"}`,
	`(temperature - temperature) / 0 or temperature / 0`,
	`predict_linear(temperature[10m], 60)`,
	`sum(sum_over_time(temperature[3m:30s]) @ end())`,
	`{instance=~"h.*st.*<&>.*"}`,
	`changes(requests_total[7m]) > bool 3`,
	`"text"`,
}

// question is what is asked of both.
type question struct {
	request
	// The times are in ms. A plain question is one that the frontend understands, so that it may align and split it.
	start, end, step int64
	plain, ranged    bool
}

// asker makes questions.
type asker struct {
	*rand.Rand
	w       *world
	covered map[string]int
	panels  []question
	steps   [2]int64
	tenants []string
	odd     bool // questions may make no sense
	last    question
}

func (a *asker) one(of ...string) string { return of[a.IntN(len(of))] }

// often tells once in n times to do something, and notes that it is done.
func (a *asker) often(n int, what string) bool {
	if a.IntN(n) != 0 {
		return false
	}
	a.covered[what]++
	return true
}

// timeText is a time in ms in one of the ways to write it.
func (a *asker) timeText(ms int64) string {
	switch {
	case a.often(8, "time in RFC 3339"):
		return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.999Z07:00")
	case a.often(8, "time in another zone"):
		return time.UnixMilli(ms).In(time.FixedZone("", 5400)).Format("2006-01-02T15:04:05.999Z07:00")
	case a.often(8, "time with many digits"):
		return strconv.FormatFloat(float64(ms)/1000, 'e', -1, 64)
	}
	return seconds(ms)
}

func (a *asker) stepText(ms int64) string {
	switch {
	case a.often(6, "step with a unit"):
		return fmt.Sprintf("%dms", ms)
	case a.often(6, "step with several units") && ms%1000 == 0:
		return fmt.Sprintf("%dm%ds", ms/60_000, ms/1000%60)
	}
	return seconds(ms)
}

// newPanels makes what is asked again and again.
func (a *asker) newPanels() {
	odd := a.odd
	a.odd = false
	defer func() { a.odd = odd }()
	for range 1 + a.IntN(2) {
		q := question{plain: true, ranged: true}
		q.path, q.form, q.header = "/api/v1/query_range", url.Values{"query": {a.favourite()}}, http.Header{}
		if _, err := parser.ParseExpr(q.form.Get("query")); err != nil {
			q.plain = false
		}
		if a.IntN(3) == 0 {
			a.parameters(&q, 4)
		}
		a.who(&q)
		a.panels = append(a.panels, q)
	}
}

// favourite is a query, mostly one that has an answer.
func (a *asker) favourite() string {
	g := expressions{a.Rand}
	for {
		q := queries[a.IntN(len(queries))]
		if a.IntN(6) == 0 {
			q = g.vector(1 + a.IntN(2))
		}
		if _, err := parser.ParseExpr(q); err == nil || a.odd {
			return q
		}
	}
}

// query is a query over a range: a panel, and sometimes other parameters and headers. Often it is the last one with
// something else about it: what was kept of one must not answer the other.
func (a *asker) query() question {
	if a.last.form != nil && a.often(4, "the last question with other parameters") {
		q := a.last.clone()
		if a.IntN(3) == 0 {
			view := "replicas"
			if q.header.Get(viewHeader) == view {
				view = "all"
			}
			q.header.Set(viewHeader, view)
		} else {
			a.parameters(&q, 4)
		}
		return q
	}
	q := a.fresh()
	a.last = q.clone()
	return q
}

func (q *question) clone() question {
	c := *q
	c.header, c.form = q.header.Clone(), url.Values{}
	for name, vs := range q.form {
		c.form[name] = slices.Clone(vs)
	}
	return c
}

func (a *asker) fresh() question {
	q := a.panels[a.IntN(len(a.panels))].clone()
	q.step = a.steps[a.IntN(2)]
	q.end = a.w.now.Load() + a.Int64N(3)*300_000 - a.Int64N(2)*a.Int64N(length/2)
	q.start = max(q.end-a.Int64N(1+a.Int64N(4*3600_000)), begin-1000_000)
	switch a.IntN(8) {
	case 0:
		q.start = q.end
	case 1: // the next question may have the same borders
		q.start, q.end = q.start/3600_000*3600_000, q.end/3600_000*3600_000
	}
	q.form["start"], q.form["end"], q.form["step"] = []string{a.timeText(q.start)}, []string{a.timeText(q.end)}, []string{a.stepText(q.step)}
	if a.IntN(5) == 0 {
		a.parameters(&q, 8)
	}
	if a.IntN(5) == 0 {
		q.header = http.Header{}
		a.who(&q)
	}
	switch {
	case a.often(3, "GET"):
		q.get = true
	case a.often(3, "parameters in URL and body"):
		q.mixed = true
	default:
		a.covered["POST"]++
	}
	return q
}

// parameters sets parameters of a query, each once in so many times; where questions may be odd, some make no sense.
func (a *asker) parameters(q *question, often int) {
	set := func(often int, plain bool, name string, values ...string) {
		if a.IntN(often) != 0 {
			return
		}
		v := values[a.IntN(len(values))]
		a.covered[fmt.Sprintf("%s=%s", name, v)]++
		if name == "start" || name == "end" || name == "step" || !plain && (a.IntN(2) == 0 || q.form.Get(name) == "") {
			q.form.Del(name)
		}
		if plain && !strings.HasSuffix(name, "[]") {
			q.form.Del(name)
		}
		q.form.Add(name, v)
		q.plain = q.plain && plain
	}
	set(often, true, "dedup", "false", "true", "0", "1", "")
	set(often, true, "partial_response", "false", "true", "F", "")
	set(often, true, "max_source_resolution", "auto", "auto", "5m", "0s", "3600", "0", "")
	set(often, true, "lookback_delta", "2m", "300", "1m")
	set(often, true, "engine", "prometheus", "thanos", "")
	set(2*often, true, "stats", "1", "all")
	set(2*often, true, "analyze", "true", "1", "false")
	set(often, true, "timeout", "1m", "30")
	if a.IntN(often) == 0 {
		set(1, true, "replicaLabels[]", "replica", "cluster", "none", "")
		set(2, true, "replicaLabels[]", "instance", "replica")
	}
	if a.IntN(often) == 0 {
		set(1, true, "storeMatch[]", `{__address__="eu-a"}`, `{__address__=~"us-.*"}`, `{__address__!="us-b",x="y"}`, `{__address__="nobody"}`)
		set(3, true, "storeMatch[]", `{__address__="us-b"}`)
	}
	// What the frontend does not know goes down as it is.
	set(4*often, false, "unheard_of", "1")
	set(4*often, false, "explain", "true")
	set(4*often, false, "limit", "2")
	set(4*often, false, "shard_info", `{"shard_index":1,"total_shards":2,"by":true,"labels":["instance"]}`)
	if !a.odd {
		return
	}
	set(often, true, "max_source_resolution", "-1", "x")
	set(often, true, "lookback_delta", "x")
	set(often, true, "engine", "none")
	set(often, false, "timeout", "x")
	set(often, true, "storeMatch[]", "{")
	set(often, false, "dedup", "maybe")
	set(often, false, "partial_response", "yes")
	set(often, false, "analyze", "yes")
	set(often, false, "step", "0", "-1", "1h1", "1e30", "NaN", "0.0001", "")
	set(often, false, "start", "yesterday", "", "9999999999999", "NaN")
	set(often, false, "end", "", "1", "tomorrow")
	for _, name := range []string{"engine", "step", "query", "start"} {
		if q.form.Has(name) && a.often(2*often, name+" twice") {
			q.form.Add(name, "1")
			q.plain = false
		}
	}
}

// who sets headers.
func (a *asker) who(q *question) {
	if len(a.tenants) > 0 {
		q.header.Set("THANOS-TENANT", a.one(a.tenants...))
		a.covered["tenant "+q.header.Get("THANOS-TENANT")]++
	}
	if a.often(8, "header Cache-Control: no-store") {
		q.header.Set("Cache-Control", "no-store")
	}
	if a.often(8, "forwarded header") {
		q.header.Set(viewHeader, a.one("replicas", "all"))
	}
	if a.often(8, "header of the organisation") {
		q.header.Set("X-Org", a.one("one", "two"))
	}
	if a.odd && a.often(20, "tenant with a bad name") {
		q.header.Set("THANOS-TENANT", "../other")
	}
}

// instant is an instant query.
func (a *asker) instant() question {
	q := a.query()
	q.path, q.ranged = "/api/v1/query", false
	q.form.Del("start")
	q.form.Del("step")
	if at := q.form["end"]; len(at) > 0 && a.IntN(10) != 0 {
		q.form["time"] = at
	}
	q.form.Del("end")
	return q
}

// passedPaths are those that go through untouched, with all headers.
var passedPaths = []string{"/api/v1/query_range_explain", "/api/v1/format_query", "/api/v1/status/nothing"}

// passed is a question that the frontend knows nothing about.
func (a *asker) passed() question {
	q := a.query()
	q.plain, q.ranged = false, false
	q.path = a.one(passedPaths...)
	a.covered[q.path]++
	return q
}

// below is what the querier is asked where a frontend is asked a question.
func (q *question) below(f *front) request {
	r := q.request
	r.form, r.header = url.Values{}, q.header.Clone()
	for name, vs := range q.form {
		r.form[name] = vs
	}
	if !slices.Contains(f.cfg.ForwardHeaders, viewHeader) && !slices.Contains(passedPaths, q.path) {
		r.header.Del(viewHeader)
	}
	if (q.path == "/api/v1/query_range" || q.path == "/api/v1/query") && r.form.Get("partial_response") == "" {
		r.form.Set("partial_response", fmt.Sprint(f.cfg.Range.PartialResponse))
	}
	if q.path == "/api/v1/query" && f.cfg.ForceStats && r.form.Get("stats") == "" {
		r.form.Set("stats", "all") // they come along
	}
	if q.plain && q.ranged && f.cfg.Range.Align {
		r.form.Set("start", seconds(q.start/q.step*q.step))
		r.form.Set("end", seconds(q.end/q.step*q.step))
	}
	return r
}

func (q *question) String() string {
	return fmt.Sprintf("%s %v %v, from %d to %d every %d ms, GET %v, plain %v", q.path, q.form, q.header, q.start, q.end, q.step, q.get, q.plain)
}

func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64) }
