package query

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
	"go.uber.org/goleak"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	base = storetest.Base
	step = storetest.Step
)

// shop is data of all kinds: counters with restarts, gauges, a series that ends, classic and native histograms.
func shop() []storetest.Input {
	var ins []storetest.Input
	add := func(f func(i int64) (storetest.Sample, bool), ls ...string) {
		var ss []storetest.Sample
		for i := range int64(240) {
			if s, ok := f(i); ok {
				s.T = base + i*step
				ss = append(ss, s)
			}
		}
		ins = append(ins, storetest.Input{Labels: labels.FromStrings(ls...), Samples: ss})
	}
	for n, code := range []string{"200", "404", "500"} {
		for m, job := range []string{"api", "web"} {
			add(func(i int64) (storetest.Sample, bool) {
				return storetest.Sample{V: float64((i%(90+int64(n)*20))*int64(3+n+m)) + 0.5}, true
			}, "__name__", "requests_total", "code", code, "job", job)
		}
	}
	for m, job := range []string{"api", "web", "batch"} {
		add(func(i int64) (storetest.Sample, bool) {
			return storetest.Sample{V: 100 + 20*math.Sin(float64(i)/10+float64(m))}, m < 2 || i < 100
		}, "__name__", "temperature", "job", job)
	}
	add(func(i int64) (storetest.Sample, bool) {
		v := 1.0
		if i == 120 {
			v = math.Float64frombits(value.StaleNaN)
		}
		return storetest.Sample{V: v}, i <= 120
	}, "__name__", "up", "job", "gone")
	for _, le := range []string{"0.1", "1", "10", "+Inf"} {
		add(func(i int64) (storetest.Sample, bool) {
			return storetest.Sample{V: float64(i * int64(len(le)+2))}, true
		}, "__name__", "latency_bucket", "le", le)
	}
	native := func(i int64) *histogram.Histogram {
		return &histogram.Histogram{
			Schema: 1, ZeroThreshold: 0.001, ZeroCount: uint64(i), Count: uint64(6*i + 5), Sum: float64(10 * i),
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{i + 1, 1, 0},
			NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{2 * i},
		}
	}
	add(func(i int64) (storetest.Sample, bool) { return storetest.Sample{H: native(i)}, true }, "__name__", "native", "kind", "int")
	add(func(i int64) (storetest.Sample, bool) { return storetest.Sample{FH: native(i).ToFloat(nil)}, true }, "__name__", "native", "kind", "float")
	return sortedInputs(ins)
}

func sortedInputs(ins []storetest.Input) []storetest.Input {
	slices.SortFunc(ins, func(a, b storetest.Input) int { return labels.Compare(a.Labels, b.Labels) })
	return ins
}

// shifted moves the samples of all series by ms.
func shifted(ins []storetest.Input, ms int64, keep func(i int) bool) (out []storetest.Input) {
	for _, in := range ins {
		c := storetest.Input{Labels: in.Labels}
		for i, s := range in.Samples {
			s.T += ms
			if keep == nil || keep(i) {
				c.Samples = append(c.Samples, s)
			}
		}
		out = append(out, c)
	}
	return out
}

// together is a Store over several.
type together []store.Store

func (ts together) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	var cs []store.Cursor
	for _, t := range ts {
		c, err := t.Series(ctx, req)
		if err != nil {
			return nil, err
		}
		cs = append(cs, c)
	}
	return store.Merge(cs), nil
}

func (ts together) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	return ts[0].LabelNames(ctx, req)
}

func (ts together) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	return ts[0].LabelValues(ctx, req)
}
func (ts together) Describe() store.Description { return ts[0].Describe() }

func newQuerier(t testing.TB, st store.Store, cfg Config) *Querier {
	t.Helper()
	q, err := New(st, cfg, log.NewNopLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

// questions are PromQL of many kinds over shop.
var questions = []string{
	`1 + 2`,
	`"text"`,
	`time()`,
	`temperature`,
	`temperature{job!="web"} > 100`,
	`up`,
	`absent(up{job="nothing"})`,
	`rate(requests_total[2m])`,
	`increase(requests_total{code="200"}[5m])`,
	`irate(requests_total[1m])`,
	`resets(requests_total[30m])`,
	`sum by (job) (rate(requests_total[2m]))`,
	`sum without (code) (requests_total)`,
	`count(requests_total)`,
	`topk(2, temperature)`,
	`avg_over_time(temperature[3m])`,
	`min_over_time(temperature[3m])`,
	`max_over_time(temperature[3m])`,
	`count_over_time(up[10m])`,
	`stddev_over_time(temperature[3m])`,
	`quantile_over_time(0.9, temperature[3m])`,
	`temperature offset 5m`,
	`temperature @ 1700007000`,
	`max_over_time(rate(requests_total[1m])[10m:30s])`,
	`sum(rate(requests_total{code="500"}[2m])) / sum(rate(requests_total[2m]))`,
	`requests_total * on (job) group_left temperature`,
	`histogram_quantile(0.9, rate(latency_bucket[5m]))`,
	`histogram_quantile(0.9, rate(native[5m]))`,
	`histogram_count(native)`,
	`rate(native[5m])`,
	`sum(native)`,
	`label_replace(temperature, "x", "$1", "job", "(.).*")`,
	`changes(temperature[5m])`,
	`deriv(temperature[5m])`,
	`predict_linear(temperature[5m], 60)`,
	`clamp_max(temperature, 110)`,
	`sort_desc(temperature)`,
	`group by (__name__) ({__name__=~".+_total|temperature"})`,
	`scalar(temperature{job="api"})`,
	`{job="gone"}`,
}

// Shows that both engines over a Store answer as Prometheus does over its own database, for every
// question, at an instant and over a range; and so with two replicas that are deduplicated.
func TestLikePrometheus(t *testing.T) {
	db, err := tsdb.Open(t.TempDir(), nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	app := db.Appender(t.Context())
	for _, in := range shop() {
		for _, s := range in.Samples {
			if s.H != nil || s.FH != nil {
				_, err = app.AppendHistogram(0, in.Labels, s.T, s.H, s.FH)
			} else {
				_, err = app.Append(0, in.Labels, s.T, s.V)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	prom := promql.NewEngine(promql.EngineOpts{
		MaxSamples: math.MaxInt32, Timeout: time.Minute, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 },
	})

	replica := func(name string) labels.Labels { return labels.FromStrings("replica", name) }
	one := storetest.New(storetest.Data{Series: shop()})
	pair := together{
		storetest.New(storetest.Data{External: replica("a"), Series: shop()}),
		storetest.New(storetest.Data{External: replica("b"), Series: shifted(shop(), 4_000, nil)}),
	}
	start, end := time.UnixMilli(base+10*60_000), time.UnixMilli(base+55*60_000)
	for _, c := range []struct {
		name  string
		store store.Store
		opts  Options
	}{
		{"one", one, Options{}},
		{"pair", pair, Options{Dedup: true, ReplicaLabels: []string{"replica"}}},
	} {
		q := newQuerier(t, c.store, Config{})
		for _, engine := range []string{EnginePrometheus, EngineThanos} {
			for _, expr := range questions {
				for _, step := range []time.Duration{0, 37 * time.Second} {
					name := fmt.Sprintf("%s/%s/%s/%s", c.name, engine, step, expr)
					var want promql.Query
					if step == 0 {
						want, err = prom.NewInstantQuery(t.Context(), db, nil, expr, start)
					} else {
						want, err = prom.NewRangeQuery(t.Context(), db, nil, expr, start, end, step)
					}
					got, gotErr := q.Exec(t.Context(), Request{Options: c.opts, Expr: expr, Start: start, End: end, Step: step, Engine: engine})
					if err != nil {
						if gotErr == nil || store.KindOf(gotErr) != store.KindBadRequest {
							t.Errorf("%s: got error %v, want %v", name, gotErr, err)
						}
						continue
					}
					if gotErr != nil {
						t.Errorf("%s: %v", name, gotErr)
						continue
					}
					res := want.Exec(t.Context())
					if res.Err != nil {
						t.Fatalf("%s: reference: %v", name, res.Err)
					}
					if diff := differ(got.Value, res.Value); diff != "" {
						t.Errorf("%s: %s", name, diff)
					}
					got.Close()
					want.Close()
				}
			}
		}
	}
}

// differ compares results, values to 1e-9 of their size; "" is no difference.
func differ(got, want parser.Value) string { return differBy(1e-9, got, want) }

// differBy compares results, values to a part of their size.
func differBy(part float64, got, want parser.Value) string {
	flat := func(v parser.Value) promql.Matrix {
		switch v := v.(type) {
		case promql.Vector:
			m := promql.Matrix{}
			for _, s := range v {
				if s.H != nil {
					m = append(m, promql.Series{Metric: s.Metric, Histograms: []promql.HPoint{{T: s.T, H: s.H}}})
				} else {
					m = append(m, promql.Series{Metric: s.Metric, Floats: []promql.FPoint{{T: s.T, F: s.F}}})
				}
			}
			return m
		case promql.Scalar:
			return promql.Matrix{{Floats: []promql.FPoint{{T: v.T, F: v.V}}}}
		case promql.Matrix:
			return v
		}
		return nil
	}
	if s, ok := want.(promql.String); ok {
		if g, ok := got.(promql.String); !ok || g != s {
			return fmt.Sprintf("got %v, want %v", got, want)
		}
		return ""
	}
	if got.Type() != want.Type() {
		return fmt.Sprintf("got a %s, want a %s", got.Type(), want.Type())
	}
	near := func(a, b float64) bool {
		return a == b || math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= part*math.Max(math.Abs(a), math.Abs(b))
	}
	g, w := flat(got), flat(want)
	byLabels := func(a, b promql.Series) int { return labels.Compare(a.Metric, b.Metric) }
	slices.SortStableFunc(g, byLabels)
	slices.SortStableFunc(w, byLabels)
	if len(g) != len(w) {
		return fmt.Sprintf("got %d series, want %d:\n%v\n%v", len(g), len(w), got, want)
	}
	for i := range w {
		if !labels.Equal(g[i].Metric, w[i].Metric) || len(g[i].Floats) != len(w[i].Floats) || len(g[i].Histograms) != len(w[i].Histograms) {
			return fmt.Sprintf("got %v, want %v", g[i], w[i])
		}
		for j, p := range w[i].Floats {
			if o := g[i].Floats[j]; o.T != p.T || !near(o.F, p.F) {
				return fmt.Sprintf("%s: got %v, want %v", g[i].Metric, o, p)
			}
		}
		for j, p := range w[i].Histograms {
			if o := g[i].Histograms[j]; o.T != p.T || !near(o.H.Count, p.H.Count) || !near(o.H.Sum, p.H.Sum) {
				return fmt.Sprintf("%s: got %v, want %v", g[i].Metric, o, p)
			}
		}
	}
	return ""
}

// Shows that an outage of one replica leaves no hole, and that without deduplication each replica is a
// series of its own.
func TestReplicas(t *testing.T) {
	outage := func(i int) bool { return i < 60 || i > 120 }
	pair := together{
		storetest.New(storetest.Data{External: labels.FromStrings("replica", "a"), Series: shifted(shop(), 0, outage)}),
		storetest.New(storetest.Data{External: labels.FromStrings("replica", "b"), Series: shifted(shop(), 4_000, nil)}),
	}
	q := newQuerier(t, pair, Config{})
	exec := func(opts Options) promql.Matrix {
		t.Helper()
		res, err := q.Exec(t.Context(), Request{
			Options: opts, Expr: `count_over_time(temperature{job="api"}[1m])`,
			Start: time.UnixMilli(base + 10*60_000), End: time.UnixMilli(base + 55*60_000), Step: 15 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Close()
		if res.Fetched.Series == 0 || res.Fetched.Samples == 0 || res.Fetched.Bytes == 0 {
			t.Errorf("nothing counted: %+v", res.Fetched)
		}
		return res.Value.(promql.Matrix)
	}
	m := exec(Options{Dedup: true, ReplicaLabels: []string{"replica"}})
	if len(m) != 1 || m[0].Metric.Has("replica") {
		t.Fatalf("got %v", m)
	}
	for _, p := range m[0].Floats {
		// Coming back to the first replica, which is 4 s earlier in the interval, makes one interval of 11 s.
		if p.F < 3 || p.F > 5 {
			t.Errorf("%d samples in the minute before %s", int(p.F), store.FormatTime(p.T))
		}
	}
	if n := len(exec(Options{ReplicaLabels: []string{"replica"}})); n != 2 {
		t.Errorf("without deduplication: %d series", n)
	}
}

// broken is a Store whose series hold given bytes.
type broken struct {
	together
	payload  store.Payload
	warnings []error
	err      error
}

func (b broken) Series(context.Context, *store.SeriesRequest) (store.Cursor, error) {
	if b.err != nil {
		return nil, b.err
	}
	var ss []*store.Series
	if b.payload.Present() {
		ss = []*store.Series{{
			Labels: labels.FromStrings("__name__", "m", "a", "b"),
			Chunks: []store.Chunk{{MinTime: base, MaxTime: base + 60_000, Raw: b.payload}},
		}}
	}
	return store.NewSliceCursor(ss, b.warnings...), nil
}

// Shows that bytes which are no chunk give an error that names the series, in both engines.
func TestMalformedChunk(t *testing.T) {
	for _, engine := range []string{EnginePrometheus, EngineThanos} {
		for _, p := range []store.Payload{
			{Encoding: 1, Data: nil},
			{Encoding: 1, Data: []byte{0, 9, 1, 2, 3}},
			{Encoding: 1, Data: []byte("this is no chunk")},
			{Encoding: 2, Data: []byte("this is no chunk")},
			{Encoding: 2, Data: []byte{0}},
			{Encoding: 3, Data: []byte("this is no chunk")},
			{Encoding: 77, Data: []byte("this is no chunk")},
		} {
			q := newQuerier(t, broken{payload: p}, Config{})
			for _, expr := range []string{"m", "rate(m[1m])"} {
				res, err := q.Exec(t.Context(), Request{Expr: expr, Start: time.UnixMilli(base + 60_000), Engine: engine})
				if err == nil {
					t.Errorf("%s %s %d %q: got %v and no error", engine, expr, p.Encoding, p.Data, res.Value)
					res.Close()
				} else if !strings.Contains(err.Error(), `{__name__="m", a="b"}`) {
					t.Errorf("%s %s %d %q: %v", engine, expr, p.Encoding, p.Data, err)
				}
			}
		}
	}
}

// Shows that warnings of stores arrive and can be told from PromQL's own, and that errors keep their kind.
func TestWarningsAndErrors(t *testing.T) {
	for _, engine := range []string{EnginePrometheus, EngineThanos} {
		gap := &store.Gap{Store: "s1", MinTime: 0, MaxTime: 1, Err: errors.New("down")}
		one := storetest.New(storetest.Data{Series: shop()})
		q := newQuerier(t, warning{one, gap}, Config{})
		res, err := q.Exec(t.Context(), Request{Expr: `rate(temperature[2m])`, Start: time.UnixMilli(base + 600_000), Engine: engine})
		if err != nil {
			t.Fatal(err)
		}
		stores, others := 0, 0
		for _, a := range res.Annotations {
			if IsStoreWarning(a) {
				stores++
				if g := (*store.Gap)(nil); !errors.As(a, &g) {
					t.Errorf("%s: %v", engine, a)
				}
			} else {
				others++
			}
		}
		if stores != 1 || others != 1 {
			t.Errorf("%s: %d of stores, %d of PromQL: %v", engine, stores, others, res.Annotations)
		}
		res.Close()

		q = newQuerier(t, broken{err: store.Errorf(store.KindLimit, "too much")}, Config{})
		if _, err := q.Exec(t.Context(), Request{Expr: `m`, Start: time.UnixMilli(base), Engine: engine}); store.KindOf(err) != store.KindLimit {
			t.Errorf("%s: %v", engine, err)
		}
	}
	q := newQuerier(t, storetest.New(storetest.Data{Series: shop()}), Config{ChunkBytesMax: 1000})
	_, err := q.Exec(t.Context(), Request{Expr: `{__name__=~".+"}`, Start: time.UnixMilli(base + 600_000)})
	if store.KindOf(err) != store.KindLimit {
		t.Errorf("over the budget: %v", err)
	}
	if used := q.chunkBytes.Used(); used != 0 {
		t.Errorf("%d bytes left in the budget", used)
	}
	for _, bad := range []Request{{Expr: "sum("}, {Expr: "up", Engine: "other"}, {Expr: "xrate(up[1m])"}} {
		if _, err := q.Exec(t.Context(), bad); store.KindOf(err) != store.KindBadRequest {
			t.Errorf("%s %s: %v", bad.Expr, bad.Engine, err)
		}
	}
}

type warning struct {
	store.Store
	err error
}

func (w warning) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	c, err := w.Store.Series(ctx, req)
	if err != nil {
		return nil, err
	}
	ss, _, err := store.Drain(c)
	return store.NewSliceCursor(ss, w.err), err
}

// Shows that the extended functions work when they are switched on, that what the Thanos engine lacks is
// evaluated by Prometheus's, and that this can be refused.
func TestEngines(t *testing.T) {
	st := storetest.New(storetest.Data{Series: shop()})
	at := time.UnixMilli(base + 600_000)
	f := func(cfg Config, expr, engine, ok string) {
		t.Helper()
		q := newQuerier(t, st, cfg)
		res, err := q.Exec(t.Context(), Request{Expr: expr, Start: at, Engine: engine})
		if err != nil {
			if ok != "" {
				t.Errorf("%s: %v", expr, err)
			}
			return
		}
		if res.Engine != ok {
			t.Errorf("%s: evaluated by %s, want %s", expr, res.Engine, ok)
		}
		res.Close()
	}
	f(Config{}, "up", "", EngineThanos)
	f(Config{Engine: EnginePrometheus}, "up", "", EnginePrometheus)
	f(Config{EnableXFunctions: true}, "xrate(requests_total[2m])", EngineThanos, EngineThanos)
	f(Config{}, "xrate(requests_total[2m])", EngineThanos, "")
	f(Config{}, `count_values("v", up)`, EngineThanos, EngineThanos)
	f(Config{}, `quantile_over_time(scalar(up), temperature[3m])`, EngineThanos, EnginePrometheus)
	f(Config{DisableFallback: true}, `quantile_over_time(scalar(up), temperature[3m])`, EngineThanos, "")
	f(Config{ActiveQueryPath: t.TempDir()}, `up`, EngineThanos, EngineThanos)
	f(Config{ActiveQueryPath: t.TempDir()}, `up`, EnginePrometheus, EnginePrometheus)
}

// Shows that statistics and analyses are only given where they can be trusted: promql-engine may still be
// counting when a query with a subquery has its answer.
func TestStats(t *testing.T) {
	q := newQuerier(t, storetest.New(storetest.Data{Series: shop()}), Config{})
	f := func(expr, engine, ran string, analysed bool) {
		t.Helper()
		for range 20 { // Under the race detector this is what would find the counting.
			res, err := q.Exec(t.Context(), Request{
				Expr: expr, Start: time.UnixMilli(base + 20*60_000), End: time.UnixMilli(base + 40*60_000), Step: time.Minute,
				Engine: engine, Stats: true, PerStepStats: true, Analyze: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			if res.Engine != ran || res.Stats.Samples.TotalSamples == 0 || (res.Analysis != nil) != analysed || (res.AnalysisErr == nil) != analysed {
				t.Errorf("%s: engine %s, %d samples, analysis %v (%v)", expr, res.Engine, res.Stats.Samples.TotalSamples, res.Analysis, res.AnalysisErr)
			}
			perStep := int64(0)
			for _, n := range res.Stats.Samples.TotalSamplesPerStep {
				perStep += n
			}
			if perStep != res.Stats.Samples.TotalSamples {
				t.Errorf("%s on %s: %d samples, %d in all steps", expr, engine, res.Stats.Samples.TotalSamples, perStep)
			}
			if len(res.Stats.Timers.String()) == 0 {
				t.Errorf("%s on %s: no times", expr, engine)
			}
			res.Close()
		}
	}
	f(`sum(rate(requests_total[2m]))`, EngineThanos, EngineThanos, true)
	f(`sum(rate(requests_total[2m]))`, EnginePrometheus, EnginePrometheus, false)
	f(`max_over_time(rate(requests_total[1m])[10m:30s])`, EngineThanos, EnginePrometheus, false)
}

// Shows that a query ends with its timeout and with its caller, though the Store hangs.
func TestTimeout(t *testing.T) {
	for _, engine := range []string{EnginePrometheus, EngineThanos} {
		q := newQuerier(t, hanging{}, Config{Timeout: 50 * time.Millisecond})
		_, err := q.Exec(t.Context(), Request{Expr: "up", Start: time.UnixMilli(base), Engine: engine})
		if timeout := promql.ErrQueryTimeout(""); !errors.As(err, &timeout) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", engine, err)
		}
		q = newQuerier(t, hanging{}, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		_, err = q.Exec(ctx, Request{Expr: "up", Start: time.UnixMilli(base), Engine: engine})
		if canceled := promql.ErrQueryCanceled(""); !errors.As(err, &canceled) && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", engine, err)
		}
	}
}

type hanging struct{ together }

func (hanging) Series(ctx context.Context, _ *store.SeriesRequest) (store.Cursor, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Shows that a query which finds no free place until its time is up says so, and takes none.
func TestTooManyQueries(t *testing.T) {
	q := newQuerier(t, hanging{}, Config{MaxConcurrent: 1})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := q.Exec(ctx, Request{Expr: "up", Start: time.UnixMilli(base)})
		first <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); ; {
		short, done := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := q.Exec(short, Request{Expr: "1", Start: time.UnixMilli(base)})
		done()
		if err != nil && strings.HasPrefix(err.Error(), "too many queries at once, no more than 1 are evaluated: ") {
			if timeout := promql.ErrQueryTimeout(""); errors.As(err, &timeout) || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v may be taken for a timeout", err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the second query was not refused: %v", err)
		}
	}
	cancel()
	if err := <-first; err == nil {
		t.Error("the first query ended without an error")
	}
	if res, err := q.Exec(t.Context(), Request{Expr: "1", Start: time.UnixMilli(base)}); err != nil {
		t.Errorf("after the first has gone: %v", err)
	} else {
		res.Close()
	}
}
