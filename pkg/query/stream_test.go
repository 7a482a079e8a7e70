package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// oddities are series with everything that evaluation can trip over: counters with restarts, holes,
// staleness markers, uneven scrapes, series that are short, and values that are huge, NaN, infinite or
// negative zero.
func oddities() []storetest.Input {
	r := rand.New(rand.NewPCG(1, 2))
	stale := math.Float64frombits(value.StaleNaN)
	var ins []storetest.Input
	add := func(n int, interval int64, f func(i int) (v float64, ok bool), ls ...string) {
		var ss []storetest.Sample
		t := base + r.Int64N(interval)
		for i := range n {
			if v, ok := f(i); ok {
				ss = append(ss, storetest.Sample{T: t, V: v})
			}
			t += interval
			if r.IntN(4) == 0 && interval > 1000 {
				t += r.Int64N(interval/5) - interval/10
			}
		}
		ins = append(ins, storetest.Input{Labels: labels.FromStrings(ls...), Samples: ss})
	}
	counter := func(restart, hole float64, marks bool) func(int) (float64, bool) {
		v, away := r.Float64()*100, 0
		return func(i int) (float64, bool) {
			v += r.Float64() * 10
			if r.Float64() < restart {
				v = r.Float64() * 3
			}
			if away > 0 {
				away--
				return v, false
			}
			if r.Float64() < hole {
				away = 1 + r.IntN(40)
				return stale, marks
			}
			return v, true
		}
	}
	for i := range 12 {
		job, instance := []string{"a", "b", "c"}[i%3], fmt.Sprint(i)
		add(240, 15_000, counter([]float64{0, 0.01, 0.1}[i%3], []float64{0, 0.02}[i%2], i%4 == 1), "__name__", "c_total", "instance", instance, "job", job)
		add(240, 15_000, func(int) (float64, bool) { return r.NormFloat64() * 50, r.IntN(10) > 0 }, "__name__", "g", "instance", instance, "job", job)
	}
	special := []float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1), 1e308, -1e308, 1e-300, 1, -1}
	for i := range 4 {
		add(240, 15_000, func(int) (float64, bool) { return special[r.IntN(2+2*i+len(special)/4)], true }, "__name__", "odd", "instance", fmt.Sprint(i), "job", "a")
		add(240, 15_000, func(int) (float64, bool) { return 1e308 * (1 - 0.1*r.Float64()), true }, "__name__", "huge", "instance", fmt.Sprint(i), "job", "a")
		add(240, 15_000, func(int) (float64, bool) { return math.Copysign(0, -1), true }, "__name__", "negzero", "instance", fmt.Sprint(i), "job", "a")
		add(1+i, 15_000, func(j int) (float64, bool) { return float64(j), true }, "__name__", "short_total", "instance", fmt.Sprint(i), "job", "b")
		add(1000, 3_000, counter(0.003, 0.004, i%2 == 0), "__name__", "fast_total", "instance", fmt.Sprint(i), "job", "a", "env", "x")
		add(60, 60_000, counter(0.05, 0.01, true), "__name__", "slow_total", "instance", fmt.Sprint(i), "job", "b", "env", "y")
	}
	add(240, 15_000, counter(0, 0, false), "__name__", "dup_one", "job", "a")
	add(240, 15_000, counter(0, 0, false), "__name__", "dup_two", "job", "a")
	add(240, 15_000, counter(0, 0, false), "__name__", "typed_total", "__type__", "counter", "job", "a")
	add(240, 15_000, counter(0, 0, false), "__name__", "typed_total", "job", "a")
	add(240, 15_000, func(int) (float64, bool) { return stale, true }, "__name__", "onlystale", "job", "a")
	mixed := storetest.Input{Labels: labels.FromStrings("__name__", "mixed", "job", "a")}
	for i := range int64(100) {
		s := storetest.Sample{T: base + i*step, V: float64(i)}
		if i > 50 {
			s.H = &histogram.Histogram{Count: uint64(i), Sum: float64(i), Schema: 1, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{i}}
		}
		mixed.Samples = append(mixed.Samples, s)
	}
	return sortedInputs(append(ins, mixed))
}

var (
	rangeFunctions = []string{"rate", "increase", "delta", "irate", "idelta", "min_over_time", "max_over_time", "sum_over_time", "avg_over_time", "stdvar_over_time", "stddev_over_time", "count_over_time", "present_over_time", "last_over_time", "first_over_time", "resets", "changes"}
	aggregations   = []string{"sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"}
)

// aggregationTable are the questions about oddities: every function with every metric, every aggregation
// with every grouping, modifiers, and the places where aggregations stand.
func aggregationTable() (qs []string) {
	metrics := []string{"c_total", "g", "odd", "huge", "negzero", "short_total", "fast_total", "slow_total", "onlystale", "nothing"}
	for i, f := range rangeFunctions {
		for j, m := range metrics {
			op := aggregations[(i+j)%len(aggregations)]
			qs = append(qs, fmt.Sprintf("%s by (job) (%s(%s[%s]))", op, f, m, []string{"1m", "5m", "14s", "30s"}[(i+j)%4]))
		}
	}
	for _, op := range aggregations {
		for _, m := range metrics {
			qs = append(qs, fmt.Sprintf("%s(%s)", op, m))
		}
		for _, by := range []string{"by (job)", "by (job, instance)", "by (instance, job, nosuch)", "by (__name__)", "by ()", "without (instance)", "without (job, instance, env)", "without ()"} {
			qs = append(qs, fmt.Sprintf(`%s %s ({__name__=~"c_total|g|fast_total|odd"})`, op, by))
			qs = append(qs, fmt.Sprintf(`%s %s (rate({__name__=~"c_total|g|fast_total"}[3m]))`, op, by))
			qs = append(qs, fmt.Sprintf(`%s %s (last_over_time({__name__=~"c_total|g|fast_total"}[3m]))`, op, by))
		}
	}
	for i, op := range []string{"+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=", "== bool", "!= bool", "> bool", "< bool", ">= bool", "<= bool"} {
		agg := aggregations[i%len(aggregations)]
		qs = append(qs, fmt.Sprintf(`%s by (job, __name__) (-7 %s ({__name__=~"c_total|g|odd"}))`, agg, op), []string{
			fmt.Sprintf(`%s by (job) (g %s 1.5)`, agg, op),
			fmt.Sprintf(`%s without (instance) (rate(c_total[3m]) %s 0.4)`, agg, op),
			fmt.Sprintf(`%s (1 %s (odd %s 0) > 0)`, agg, op, op),
			fmt.Sprintf(`%s by (instance) (2 * last_over_time({__name__=~"c_total|fast_total"}[3m]) %s 100)`, agg, op),
		}[i%4])
	}
	return append(qs,
		`count(g == 0)`, `count by (__name__) ({__name__=~".+_total"} > 50)`, `group(mixed > 3)`, `count(mixed * 2)`, `sum(typed_total * 2)`,
		`sum({__name__=~"dup_.+"} * 2)`, `sum({__name__=~"dup_.+"} > 2)`, `sum(rate(g[5m]) > 1e300)`,
		`sum(c_total offset 7m)`, `sum(c_total offset -7m)`, `sum(rate(c_total[2m] offset 3m))`, `sum(rate(c_total[2m] offset -3m))`,
		`sum(c_total @ 1700007400)`, `sum(rate(c_total[5m] @ 1700007400))`, `sum(rate(c_total[5m] @ 1700007400 offset 1m))`,
		`sum(rate(c_total[5m] @ start()))`, `sum(rate(c_total[5m] @ end()))`, `avg(g @ end() offset 2m)`,
		`sum by (job) (rate(c_total[2m] @ 1700008100)) / sum by (job) (rate(c_total[2m]))`,
		`max_over_time(sum(rate(c_total[1m]))[10m:40s])`, `max_over_time(sum by (job) (g)[10m:])`,
		`max_over_time(sum(rate(c_total[1m] @ 1700008100))[10m:40s] offset 2m)`,
		`avg_over_time(sum(c_total offset 1m)[7m:1m] @ 1700008000)`, `min_over_time(max_over_time(sum(g)[5m:30s])[10m:1m])`,
		`avg_over_time(sum(rate(c_total[1m] @ start()))[10m:40s] @ end())`,
		`sum(rate(c_total{job="a"}[2m])) / sum(rate(c_total[2m]))`, `sum(c_total{job="a"}) / on () group_right sum by (job) (c_total)`,
		`c_total{job="a"} / on () group_left () sum(c_total)`, `topk(2, sum by (instance) (rate(c_total[2m])))`,
		`sort_desc(sum by (instance) (rate(c_total[2m])))`, `absent(sum(nothing))`, `scalar(sum(g))`, `-sum(g)`, `(sum((g)))`, `sum((rate((c_total[2m]))))`,
		`label_replace(sum by (job) (g), "x", "$1", "job", "(.*)")`, `sum(sum by (job) (g))`, `sum(abs(g))`, `sum(rate(c_total[2m]) * 2)`, `sum(timestamp(g))`,
		`timestamp(sum(g))`, `sum(rate(c_total[2m])) or vector(0)`, `sum(nothing) or vector(0)`, `clamp_max(sum(g), 3)`, `quantile(0.5, g)`, `count_values("v", count by (job) (g))`,
		`sum by (job) (rate(dup_one[2m]))`, `sum(rate({__name__=~"dup_.*"}[2m]))`, `sum({__name__=~"dup_.*"})`, `sum(last_over_time({__name__=~"dup_.*"}[2m]))`,
		`sum(rate(typed_total[2m]))`, `sum without () (typed_total)`, `count by (__type__) (typed_total)`,
		`sum(mixed)`, `sum(rate(mixed[5m]))`, `count(count_over_time(mixed[5m]))`, `avg(mixed)`, `min(mixed)`, `group by (job) ({__name__=~"mixed|g"})`,
		`sum by (job) (rate(mixed[1m])) + sum by (job) (rate(c_total[1m]))`,
		`sum(c_total[5m])`, `sum(rate(c_total))`, `sum by (job) (`, `sum(rate(c_total[0s]))`,
	)
}

// when are the times of evaluation: instants, steps shorter and longer than scrapes and ranges, and times
// around both ends of the data.
func when() (rs []Request) {
	at := func(ms int64) time.Time { return time.UnixMilli(base + ms) }
	const minute = 60_000
	return []Request{
		{Start: at(20 * minute)},
		{Start: at(64 * minute)},
		{Start: at(-10 * minute), End: at(75 * minute), Step: 61 * time.Second},
		{Start: at(20*minute + 1), End: at(30 * minute), Step: 7 * time.Second},
		{Start: at(0), End: at(60 * minute), Step: 11 * time.Minute},
		{Start: at(30 * minute), End: at(30 * minute), Step: time.Second},
		{Start: at(5 * minute), End: at(50 * minute), Step: 15 * time.Second},
		{Start: at(minute), End: at(40 * minute), Step: 4 * time.Minute, Lookback: 90 * time.Second},
	}
}

// replicated is a Store with two replicas of series, each with outages of its own.
func replicated(ins []storetest.Input) store.Store {
	outage := func(k int) func(int) bool { return func(i int) bool { return (i/30)%7 != k } }
	return together{
		storetest.New(storetest.Data{External: labels.FromStrings("replica", "a"), Series: shifted(ins, 0, outage(2))}),
		storetest.New(storetest.Data{External: labels.FromStrings("replica", "b"), Series: shifted(ins, 5_000, outage(5))}),
	}
}

// kept is a Store over series that are encoded once and for all, merged as one request wants them.
type kept struct {
	store.Store
	series []*store.Series
}

func keep(t testing.TB, st store.Store, opts Options) store.Store {
	t.Helper()
	all := labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")
	c, err := st.Series(t.Context(), opts.request(math.MinInt64, math.MaxInt64, nil, []*labels.Matcher{all}))
	if err != nil {
		t.Fatal(err)
	}
	ss, _, err := store.Drain(c)
	if err != nil {
		t.Fatal(err)
	}
	return kept{Store: st, series: ss}
}

func (k kept) Series(_ context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	var found []*store.Series
	for _, s := range k.series {
		if !slices.ContainsFunc(req.Matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Labels.Get(m.Name)) }) {
			var cs []store.Chunk
			for _, c := range s.Chunks {
				if store.Overlaps(c.MinTime, c.MaxTime, req.MinTime, req.MaxTime) {
					cs = append(cs, c)
				}
			}
			if len(cs) > 0 {
				found = append(found, &store.Series{Labels: s.Labels, Chunks: cs})
			}
		}
	}
	return store.NewSliceCursor(found), nil
}

// streamedAsWell asks one question with streaming and with Prometheus's engine over the same Store and
// returns how many points were compared. Aggregations are the same to the last bit; around them EngineThanos
// may calculate in another order. Over native histograms it is compared with EngineThanos as it is, which
// has differences of its own.
func streamedAsWell(t *testing.T, q, plain *Querier, req Request) (points int) {
	t.Helper()
	precision := 1e-9
	if expr, err := parser.ParseExpr(req.Expr); err == nil && isPlainAggregation(expr) {
		precision = 0
	}
	name := fmt.Sprintf("%s from %d to %d each %s", req.Expr, req.Start.UnixMilli()-base, req.End.UnixMilli()-base, req.Step)
	req.Engine = EnginePrometheus
	if strings.Contains(req.Expr, "mixed") && !strings.Contains(req.Expr, `!~"mixed`) {
		req.Engine = EngineThanos
	}
	want, wantErr := plain.Exec(t.Context(), req)
	req.Engine = EngineThanos
	got, err := q.Exec(t.Context(), req)
	if (err != nil) != (wantErr != nil) {
		t.Errorf("%s: got error %v, want %v", name, err, wantErr)
	}
	if wantErr == nil {
		defer want.Close()
	}
	if err == nil {
		defer got.Close()
	}
	if err != nil || wantErr != nil {
		return 0
	}
	if got.Engine != EngineThanos {
		return 0
	}
	if diff := differBy(precision, got.Value, want.Value); diff != "" {
		// The engine may be to blame: around the aggregation it calculates itself.
		stock, stockErr := plain.Exec(t.Context(), req)
		if precision == 0 || stockErr != nil || differ(got.Value, stock.Value) != "" {
			t.Errorf("%s: %s", name, diff)
		} else {
			t.Logf("%s: the engine differs from Prometheus without streaming, too: %s", name, diff)
		}
		if stockErr == nil {
			stock.Close()
		}
	}
	if g, w := notes(got, req.Expr), notes(want, req.Expr); !slices.Equal(g, w) {
		t.Errorf("%s: got annotations %q, want %q", name, g, w)
	}
	switch v := want.Value.(type) {
	case promql.Matrix:
		return v.TotalSamples()
	case promql.Vector:
		return len(v)
	}
	return 0
}

// isPlainAggregation tells whether an expression is one aggregation of a selector, or a function of one.
func isPlainAggregation(expr parser.Expr) bool {
	a, ok := expr.(*parser.AggregateExpr)
	if !ok {
		return false
	}
	switch e := a.Expr.(type) {
	case *parser.VectorSelector:
		return true
	case *parser.Call:
		return len(e.Args) == 1 && e.Args[0].Type() == parser.ValueTypeMatrix && !strings.Contains(a.String(), ":")
	}
	return false
}

// notes are the annotations without positions, which EngineThanos does not know.
func notes(r *Result, expr string) []string {
	ws, is := r.Annotations.AsStrings(expr, 0, 0)
	all := append(ws, is...)
	for i, s := range all {
		if at := strings.LastIndex(s, " ("); at > 0 {
			all[i] = s[:at]
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func streamQuerier(t testing.TB, st store.Store, cfg Config) (*Querier, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	q, err := New(st, cfg, log.NewNopLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q, reg
}

// Shows that streamed aggregations answer as Prometheus's engine does over the same series, for every
// question of a table, at all kinds of times, over one replica and over two. Mutants seen to fail: sides of an operator
// exchanged in pointwise.go; batch.some taken after the operators, so that notes of series without values are lost.
func TestStreamedTable(t *testing.T) {
	table := aggregationTable()
	if len(table) < 150 {
		t.Fatalf("only %d questions", len(table))
	}
	ins := oddities()
	for _, c := range []struct {
		name  string
		store store.Store
		opts  Options
	}{
		{"one", storetest.New(storetest.Data{Series: ins}), Options{}},
		{"pair", replicated(ins), Options{Dedup: true, ReplicaLabels: []string{"replica"}}},
		{"apart", replicated(ins), Options{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			st := keep(t, c.store, c.opts)
			q, _ := streamQuerier(t, st, Config{})
			plain, _ := streamQuerier(t, st, Config{DisableStreaming: true})
			points := 0
			for _, expr := range table {
				for _, req := range when() {
					req.Options, req.Expr = c.opts, expr
					points += streamedAsWell(t, q, plain, req)
				}
			}
			done, unfit := testutil.ToFloat64(q.metrics.scans.WithLabelValues(scanDone)), testutil.ToFloat64(q.metrics.scans.WithLabelValues(scanUnfit))
			t.Logf("%d questions, %d points, %v aggregations streamed, %v over unfit data", len(table)*len(when()), points, done, unfit)
			if done < 1500 || unfit == 0 {
				t.Errorf("only %v aggregations were streamed and %v fell back", done, unfit)
			}
		})
	}
}

// randomAggregation makes a question of the kind that is streamed.
func randomAggregation(r *rand.Rand) string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	selector := pick("c_total", "g", "odd", "huge", "short_total", "fast_total", "slow_total", `{__name__=~"(c|fast|slow)_total"}`, `{job="a",__name__!~"mixed|typed_total|dup_.*"}`) + pick("", "", `{job="a"}`, "", `{instance=~"1.*|2|3"}`, `{job!="b"}`)
	selector = strings.ReplaceAll(selector, "}{", ",")
	modifier := pick("", "", "", " offset 1m", " offset 90s", " offset -2m", " @ 1700007234.5", " @ end()", " @ start() offset 3m")
	inner := selector + modifier
	if r.IntN(4) > 0 {
		inner = fmt.Sprintf("%s(%s[%s]%s)", rangeFunctions[r.IntN(len(rangeFunctions))], selector, pick("31s", "1m", "2m30s", "5m", "5m", "20m", "1h"), modifier)
	}
	agg := func(inner string) string {
		return fmt.Sprintf("%s%s(%s)", aggregations[r.IntN(len(aggregations))], pick("", " by (job) ", " by (instance, job) ", " without (instance) ", " without (job, env) ", " by (env) "), inner)
	}
	q := agg(inner)
	switch r.IntN(8) {
	case 0:
		q = agg(q)
	case 1:
		q = fmt.Sprintf("%s %s %s", q, pick("+", "/", "-", "or", "and", ">"), q)
	case 2:
		q = fmt.Sprintf("%s_over_time(%s[%s:%s]%s)", pick("max", "avg", "sum"), q, pick("5m", "13m"), pick("1m", "45s"), pick("", " offset 1m"))
	}
	return q
}

// Shows that 3,000 generated aggregations answer as Prometheus's engine does.
func TestStreamedGenerated(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	ins := oddities()
	pair := Options{Dedup: true, ReplicaLabels: []string{"replica"}}
	kept2, kept1 := keep(t, replicated(ins), pair), keep(t, storetest.New(storetest.Data{Series: ins}), Options{})
	two, _ := streamQuerier(t, kept2, Config{})
	one, _ := streamQuerier(t, kept1, Config{})
	twoPlain, _ := streamQuerier(t, kept2, Config{DisableStreaming: true})
	onePlain, _ := streamQuerier(t, kept1, Config{DisableStreaming: true})
	points, answered := 0, 0
	const n = 3000
	for i := range n {
		req := when()[r.IntN(len(when()))]
		req.Start = req.Start.Add(time.Duration(r.IntN(600_000)) * time.Millisecond)
		req.End = req.End.Add(10 * time.Minute)
		req.Expr = randomAggregation(r)
		over, plain := one, onePlain
		if i%2 == 0 {
			over, plain = two, twoPlain
			req.Options = pair
		}
		if p := streamedAsWell(t, over, plain, req); p > 0 {
			points += p
			answered++
		}
		if t.Failed() && i > 200 {
			break
		}
	}
	t.Logf("%d points in %d answers", points, answered)
	if answered < n*6/10 {
		t.Errorf("only %d of %d answers have points", answered, n)
	}
}

// Shows that a scan that needs more memory than there is refuses with the kind of a limit, says how much
// there is, and gives everything back.
func TestStreamedBudget(t *testing.T) {
	q, _ := streamQuerier(t, storetest.New(storetest.Data{Series: oddities()}), Config{ChunkBytesMax: 140_000})
	req := when()[6]
	req.Engine = EngineThanos
	for _, expr := range []string{`sum by (instance, job, __name__) (last_over_time({__name__=~".+_total"}[5m]))`, `sum by (instance) (c_total) + sum by (instance) (g)`} {
		for _, kind := range []string{"refused", "answered"} {
			req.Expr = expr
			if kind == "answered" {
				req.Expr = `sum(rate(c_total[5m]))`
			}
			res, err := q.Exec(t.Context(), req)
			if kind == "refused" {
				if store.KindOf(err) != store.KindLimit || !strings.Contains(err.Error(), "140000") {
					t.Errorf("%s: got %v", req.Expr, err)
				}
			} else if err != nil {
				t.Errorf("%s: %v", req.Expr, err)
			} else {
				res.Close()
			}
			if used := q.chunkBytes.Used(); used != 0 {
				t.Errorf("%s: %d bytes are still in use", req.Expr, used)
			}
		}
	}
}

// Shows that a scan holds nothing after its query has failed elsewhere, be its Store ever so slow to notice.
func TestStreamedLeftovers(t *testing.T) {
	slow := &slowToEnd{Store: storetest.New(storetest.Data{Series: oddities()}), closed: make(chan struct{})}
	q, _ := streamQuerier(t, slow, Config{ChunkBytesMax: 1 << 30})
	req := when()[6]
	req.Engine, req.Expr = EngineThanos, `sum by (instance) (g) + sum by (instance) (c_total)`
	if _, err := q.Exec(t.Context(), req); err == nil {
		t.Fatal("the query did not fail")
	}
	<-slow.closed
	if used := q.chunkBytes.Used(); used != 0 {
		t.Errorf("%d bytes are still in use", used)
	}
	queryable := q.Queryable(req.Options)
	queryable.close()
	if _, _, err := (&scan{q: queryable}).run(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("a scan that begins after its query's end: got %v", err)
	}
}

// slowToEnd fails for c_total and answers everything else some time after its request was cancelled.
type slowToEnd struct {
	store.Store
	closed chan struct{}
}

func (s *slowToEnd) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	if slices.ContainsFunc(req.Matchers, func(m *labels.Matcher) bool { return m.Value == "c_total" }) {
		time.Sleep(10 * time.Millisecond) // until the other scan runs
		return nil, store.Errorf(store.KindAborted, "the store went away")
	}
	<-ctx.Done()
	time.Sleep(50 * time.Millisecond)
	c, err := s.Store.Series(context.WithoutCancel(ctx), req)
	return &noticedCursor{Cursor: c, closed: s.closed}, err
}

type noticedCursor struct {
	store.Cursor
	closed chan struct{}
}

func (c *noticedCursor) Close() error {
	defer close(c.closed)
	return c.Cursor.Close()
}

// failing breaks after some series.
type failing struct {
	store.Store
	after int
	panic bool
}

func (f failing) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	c, err := f.Store.Series(ctx, req)
	return &failingCursor{Cursor: c, failing: f}, err
}

type failingCursor struct {
	store.Cursor
	failing
	err error
}

func (c *failingCursor) Next() bool {
	if c.after--; c.after < 0 {
		if c.panic {
			panic("oh no")
		}
		c.err = store.Errorf(store.KindAborted, "the store went away")
		return false
	}
	return c.Cursor.Next()
}

func (c *failingCursor) Err() error { return c.err }

func (c *failingCursor) Warnings() store.Warnings { return store.Warnings{fmt.Errorf("careful")} }

// Shows that a failing Store fails the query with its own error, that a panic is one, too, and that
// warnings of a Store reach the result.
func TestStreamedFailures(t *testing.T) {
	req := when()[6]
	req.Engine, req.Expr = EngineThanos, `sum by (job) (rate(c_total[5m]))`
	st := storetest.New(storetest.Data{Series: oddities()})
	q, _ := streamQuerier(t, failing{Store: st, after: 7}, Config{})
	if _, err := q.Exec(t.Context(), req); store.KindOf(err) != store.KindAborted {
		t.Errorf("got %v", err)
	}
	q, _ = streamQuerier(t, failing{Store: st, after: 7, panic: true}, Config{})
	if _, err := q.Exec(t.Context(), req); err == nil || !strings.Contains(err.Error(), "oh no") {
		t.Errorf("got %v", err)
	}
	q, _ = streamQuerier(t, failing{Store: st, after: 1000}, Config{})
	res, err := q.Exec(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	if got := fmt.Sprint(res.Annotations.AsErrors()); got != "[careful]" {
		t.Errorf("got annotations %s", got)
	}
}

// Shows that streaming can be turned off.
func TestStreamingOff(t *testing.T) {
	q, _ := streamQuerier(t, storetest.New(storetest.Data{Series: oddities()}), Config{DisableStreaming: true})
	req := when()[6]
	req.Engine, req.Expr = EngineThanos, `sum by (job) (rate(c_total[5m]))`
	streamedAsWell(t, q, q, req)
	if n := testutil.ToFloat64(q.metrics.scans.WithLabelValues(scanDone)); n != 0 {
		t.Errorf("%v aggregations were streamed", n)
	}
}

// Shows that several workers give what one pass in order gives: the values of Prometheus's engine to the last
// bit, and its numbers of samples, over thousands of series.
func TestStreamedInParallel(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	f := newFleet(3000, 7, 15*time.Second, time.Hour)
	q, _ := streamQuerier(t, f, Config{})
	for _, expr := range []string{
		`sum by (job) (rate(http_requests_total[5m]))`, `avg(http_requests_total)`, `stddev by (job) (increase(http_requests_total[10m]))`,
		`sum without (instance) (sum_over_time(http_requests_total[7m] offset 3m))`, `count by (instance) (http_requests_total)`,
	} {
		req := Request{
			Options: Options{Dedup: true, ReplicaLabels: []string{"replica"}}, Expr: expr, Stats: true, PerStepStats: true,
			Start: time.UnixMilli(base + 600_000), End: time.UnixMilli(base + 3600_000), Step: time.Minute,
		}
		req.Engine = EnginePrometheus
		want, err := q.Exec(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			req.Engine = EngineThanos
			got, err := q.Exec(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if diff := differBy(0, got.Value, want.Value); diff != "" {
				t.Errorf("%s: %s", expr, diff)
			}
			if g, w := got.Stats.Samples.TotalSamples, want.Stats.Samples.TotalSamples; g != w {
				t.Errorf("%s: %d samples, want %d", expr, g, w)
			}
			if g, w := got.Stats.Samples.TotalSamplesPerStep, want.Stats.Samples.TotalSamplesPerStep; !slices.Equal(g, w) {
				t.Errorf("%s: samples per step %v, want %v", expr, g, w)
			}
			if got.Fetched.Series != 3000 {
				t.Errorf("%s: fetched %v", expr, got.Fetched)
			}
			got.Close()
		}
		want.Close()
	}
	if used := q.chunkBytes.Used(); used != 0 {
		t.Errorf("%d bytes are still in use", used)
	}
}

// Shows that a Store that fails, or a reader that goes away, in the middle of thousands of series ends all
// workers with the cause, and gives their memory back.
func TestStreamedEndsInTheMiddle(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	f := newFleet(3000, 7, 15*time.Second, time.Hour)
	req := Request{
		Options: Options{Dedup: true, ReplicaLabels: []string{"replica"}}, Expr: `sum by (job) (rate(http_requests_total[5m]))`, Engine: EngineThanos,
		Start: time.UnixMilli(base), End: time.UnixMilli(base + 3600_000), Step: time.Minute,
	}
	for _, broken := range []failing{{Store: f, after: 1500}, {Store: f, after: 1500, panic: true}} {
		q, _ := streamQuerier(t, broken, Config{ChunkBytesMax: 1 << 30})
		if _, err := q.Exec(t.Context(), req); err == nil {
			t.Error("no error")
		}
		if used := q.chunkBytes.Used(); used != 0 {
			t.Errorf("%d bytes are still in use", used)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	q, _ := streamQuerier(t, leaving{Store: f, after: 1500, leave: cancel}, Config{ChunkBytesMax: 1 << 30})
	if _, err := q.Exec(ctx, req); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if used := q.chunkBytes.Used(); used != 0 {
		t.Errorf("%d bytes are still in use", used)
	}
}

// leaving calls leave in the middle, and its cursors end when their context does.
type leaving struct {
	store.Store
	after int
	leave func()
}

func (l leaving) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	c, err := l.Store.Series(ctx, req)
	return &leavingCursor{Cursor: c, leaving: l, ctx: ctx}, err
}

type leavingCursor struct {
	store.Cursor
	leaving
	ctx context.Context
}

func (c *leavingCursor) Next() bool {
	if c.after--; c.after == 0 {
		c.leave()
	}
	return c.ctx.Err() == nil && c.Cursor.Next()
}

func (c *leavingCursor) Err() error { return c.ctx.Err() }
