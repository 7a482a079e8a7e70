package integration

import (
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/dataset"
)

// question is a PromQL query of the kinds that people write.
type question struct {
	expr string
	// instant questions make sense at one moment only.
	instant bool
	// ordered answers are compared in their order.
	ordered bool
	// empty is true of questions whose answer may hold nothing.
	empty bool
}

// questions ask about the data of dataset. None names an external label.
var questions = []question{
	// Selectors with every kind of matcher, on labels that are there and that are not.
	{expr: `http_requests_total{method="GET"}`},
	{expr: `http_requests_total{method!="GET",code!~"5.."}`},
	{expr: `{__name__=~"temperature.*|state",sensor!~"d.*"}`},
	{expr: `http_requests_total{zone=""}`},
	{expr: `http_requests_total{zone!="",code=~"200|404"}`},
	{expr: `edge`},
	{expr: `edge{zone!~".+",b=""}`},
	{expr: `special`},
	{expr: `visitor`},
	{expr: `{"service.requests","service.name"="cart"}`},
	{expr: `nothing_like_it`, empty: true},
	// Counters.
	{expr: `rate(http_requests_total[5m])`},
	{expr: `increase(http_requests_total[17m])`},
	{expr: `irate(http_requests_total{code="200"}[2m])`},
	{expr: `resets(http_requests_total[2h])`},
	// Aggregations.
	{expr: `sum by (job, method) (rate(http_requests_total[5m]))`},
	{expr: `sum without (instance, code) (rate(http_requests_total[5m]))`},
	{expr: `avg by (sensor) (temperature_celsius)`},
	{expr: `topk(3, sum by (instance, method) (rate(http_requests_total[7m])))`},
	{expr: `bottomk by (sensor) (1, temperature_celsius)`},
	{expr: `quantile by (job) (0.7, rate(cpu_seconds_total[5m]))`},
	{expr: `stddev by (sensor) (temperature_celsius)`},
	{expr: `count_values("number", state)`},
	{expr: `group by (version) (build_info)`},
	{expr: `count({__name__=~".+"}) by (__name__)`, instant: true},
	// Histograms, classic and native.
	{expr: `histogram_quantile(0.9, sum by (le) (rate(latency_seconds_bucket[5m])))`},
	{expr: `histogram_quantile(0.5, sum by (job) (rate(rpc_duration_seconds[5m])))`},
	{expr: `rpc_duration_seconds`},
	{expr: `sum(rate(rpc_duration_seconds[10m]))`},
	{expr: `histogram_fraction(0.5, 2, rate(rpc_duration_seconds[5m])) + histogram_avg(rate(rpc_duration_seconds[5m]))`},
	{expr: `histogram_count(queue_age_seconds) / histogram_sum(queue_age_seconds)`},
	// Over time.
	{expr: `quantile_over_time(0.9, temperature_celsius[20m])`},
	{expr: `max_over_time(temperature_celsius[30m]) - min_over_time(temperature_celsius[30m])`},
	{expr: `deriv(temperature_celsius[15m])`},
	{expr: `predict_linear(temperature_celsius[15m], 600)`},
	{expr: `changes(state[1h])`},
	{expr: `count_over_time(visitor[10m])`},
	{expr: `last_over_time(visitor[40m])`},
	{expr: `max_over_time(sum by (method) (rate(http_requests_total[2m]))[30m:1m])`},
	{expr: `avg_over_time(temperature_celsius[25m:90s])`},
	// Time itself.
	{expr: `temperature_celsius offset 1h`},
	{expr: `temperature_celsius - temperature_celsius offset -7m`},
	{expr: `temperature_celsius @ 1741057200`},
	{expr: `rate(http_requests_total{code="200"}[5m] @ end())`},
	{expr: `timestamp(state)`},
	{expr: `hour() + minute(vector(time()))`},
	{expr: `time() - scalar(max(state))`},
	// Joins and sets.
	{expr: `temperature_celsius * on (instance) group_left (version) build_info`},
	{expr: `sum by (instance) (http_requests_total{code="500"}) / ignoring (job) sum by (instance) (http_requests_total)`},
	{expr: `state > 0 or build_info{version="1.0"}`},
	{expr: `build_info and on (instance) (state == 1)`},
	{expr: `temperature_celsius unless on (instance) build_info{version="1.1"}`},
	{expr: `state == bool 1`},
	// What is not there, and other names.
	{expr: `absent(temperature_celsius{sensor="gpu"})`},
	{expr: `absent_over_time(visitor{how="vanishes"}[5m])`, empty: true},
	{expr: `label_replace(build_info, "major", "$1", "version", "([0-9]+)[.].*")`},
	{expr: `label_join(build_info, "both", "/", "job", "version")`},
	{expr: `sort_desc(temperature_celsius)`, instant: true, ordered: true},
	{expr: `sort(temperature_celsius)`, instant: true, ordered: true},
	{expr: `http_requests_total{method="PUT"}[3m]`, instant: true},
	{expr: `rpc_duration_seconds[2m]`, instant: true},
	{expr: `"a text"`, instant: true},
	{expr: `1 + 2 * 3`},
}

// The moments asked about: one in the midst of the data, and a range that begins and ends inside it and
// crosses the borders of blocks.
var (
	moment     = dataset.Start.Add(3*time.Hour + 17*time.Minute + 5*time.Second)
	rangeStart = dataset.Start.Add(41 * time.Minute)
	rangeEnd   = dataset.Start.Add(5*time.Hour + 23*time.Minute)
)

const step = 97 * time.Second

// asked are the ways in which a question is put: at the moment, and over the range unless it is instant.
func (q question) asked(params ...string) []answer.Query {
	all := []answer.Query{answer.At(q.expr, moment, params...)}
	if !q.instant {
		all = append(all, answer.Over(q.expr, rangeStart, rangeEnd, step, params...))
	}
	return all
}
