package crash

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	thanos "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/query/difference"
	"github.com/koios-metrics/koios/pkg/store/bucket"
)

// questions are asked of the bucket through the store gateway's Store.
var questions = []string{
	`requests_total`, `temperature{cluster="eu"}`, `rate(requests_total[15m])`, `increase(requests_total{cluster="us"}[3h])`,
	`sum by (cluster) (rate(requests_total[1h]))`, `max_over_time(temperature[2h])`, `min_over_time(temperature[2h])`,
	`avg_over_time(temperature[6h])`, `sum_over_time(temperature[2h])`, `count_over_time(requests_total[2h])`,
	`count({__name__=~".+"})`, `temperature - on (cluster) temperature offset 6h`,
}

// answer is what a question got, or the error.
type answer struct {
	question string
	value    promql.Matrix
	warnings int
	err      error
}

// answers asks all questions of a bucket, at three resolutions.
func answers(t *testing.T, bkt thanos.Bucket, resolutions ...int64) (as []answer) {
	t.Helper()
	reg := prometheus.NewRegistry()
	st, err := bucket.New(bkt, bucket.Config{DataDir: t.TempDir(), IndexCacheBytesMax: 1 << 20}, log.NewNopLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := st.InitialSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	q, err := query.New(st, query.Config{}, log.NewNopLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, res := range resolutions {
		for _, expr := range questions {
			as = append(as, ask(t, q, expr, res))
		}
	}
	return as
}

func ask(t *testing.T, q *query.Querier, expr string, res int64) answer {
	t.Helper()
	a := answer{question: fmt.Sprintf("%s at resolution %d", expr, res)}
	r, err := q.Exec(t.Context(), query.Request{
		Options: query.Options{MaxResolution: res}, Expr: expr,
		Start: time.UnixMilli(0), End: time.UnixMilli(dataHours * hour), Step: max(17*time.Minute, time.Duration(res)*time.Millisecond), Lookback: max(5*time.Minute, 2*time.Duration(res)*time.Millisecond),
	})
	if err != nil {
		a.err = err
		return a
	}
	defer r.Close()
	a.warnings = len(r.Annotations)
	m, ok := r.Value.(promql.Matrix)
	if !ok {
		t.Fatalf("%s is a %T", a.question, r.Value)
	}
	for _, s := range m { // what the engine lends is given back
		a.value = append(a.value, promql.Series{Metric: s.Metric.Copy(), Floats: append([]promql.FPoint(nil), s.Floats...)})
	}
	return a
}

// compare reports where answers differ. None may be empty.
func compare(t *testing.T, want, got []answer) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d answers, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		switch {
		case w.err != nil || g.err != nil:
			t.Errorf("%s: %v, before: %v", w.question, g.err, w.err)
		case len(w.value) == 0 || len(w.value) != len(g.value) || w.warnings != g.warnings:
			t.Errorf("%s: %d series and %d warnings, before: %d and %d", w.question, len(g.value), g.warnings, len(w.value), w.warnings)
		default:
			for n := range w.value {
				if d := difference.Series(&g.value[n], &w.value[n]); d != "" {
					t.Errorf("%s: %s", w.question, d)
				}
			}
		}
	}
}

// resolutions are all there are.
var resolutions = []int64{block.ResolutionRaw, block.Resolution5m, block.Resolution1h}
