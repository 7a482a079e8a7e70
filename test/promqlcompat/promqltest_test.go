package promqlcompat

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/testutil"

	"github.com/koios-metrics/koios/pkg/query"
)

// Shows that Prometheus's own tests of PromQL pass by every road, with Prometheus's engine as its tests set it up, so
// that nothing but our way to the samples is judged; and with both engines as package query sets them up. Each query of
// the files is answered by Prometheus itself, which the files judge, and ours must give that answer: values, order,
// errors and annotations.
func TestPrometheusFiles(t *testing.T) {
	tests := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	j := &judge{tests: tests, plain: newReference(t), used: map[string]int{}}
	for i, r := range roads {
		j.ways = append(j.ways, way{as: "road " + r, road: i, engine: tests})
	}
	j.ways = append(j.ways, way{as: query.EnginePrometheus, engine: koios(query.EnginePrometheus), ours: true}, way{as: query.EngineThanos, engine: koios(query.EngineThanos), ours: true})
	promqltest.RunBuiltinTestsWithStorage(t, j, func(ft testutil.T) storage.Storage { return newStored(ft.(*testing.T)) })

	t.Logf("%d queries", j.asked)
	for _, name := range slices.Sorted(maps.Keys(j.used)) {
		t.Logf("excluded %d answers of %s", j.used[name], name)
	}
	for i := range exclusions {
		if e := &exclusions[i]; e.files && !e.sometimes && j.used[e.String()] == 0 {
			t.Errorf("no query of the files needs this exclusion any more: %s", e)
		}
	}
}

// judge is an engine that answers as Prometheus's tests do, and holds the answers of ours to that.
type judge struct {
	tests, plain *promql.Engine // as Prometheus's tests have it, and set up as ours
	ways         []way
	asked        int
	used         map[string]int // exclusions
}

// way is an engine over the samples that a road brings.
type way struct {
	as     string // whose exclusions hold
	road   int
	engine promql.QueryEngine
	ours   bool // set up by package query
}

// delayedNames is why most answers of ours differ.
const delayedNames = ", delayed name removal: Prometheus's tests turn on a feature that is off by default and that Thanos does not have; the answers are those of Prometheus without it"

// NewInstantQuery implements promql.QueryEngine; the Queryable is a *stored.
func (j *judge) NewInstantQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, at time.Time) (promql.Query, error) {
	return j.judge(ctx, q.(*stored), expr, func(e promql.QueryEngine, q storage.Queryable) (promql.Query, error) {
		return e.NewInstantQuery(ctx, q, opts, expr, at)
	})
}

// NewRangeQuery implements promql.QueryEngine; the Queryable is a *stored.
func (j *judge) NewRangeQuery(ctx context.Context, q storage.Queryable, opts promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	return j.judge(ctx, q.(*stored), expr, func(e promql.QueryEngine, q storage.Queryable) (promql.Query, error) {
		return e.NewRangeQuery(ctx, q, opts, expr, start, end, step)
	})
}

type ask func(promql.QueryEngine, storage.Queryable) (promql.Query, error)

func (j *judge) judge(ctx context.Context, s *stored, expr string, ask ask) (promql.Query, error) {
	j.asked++
	run := func(e promql.QueryEngine, over storage.Queryable) answer {
		q, err := ask(e, over)
		if err != nil {
			return answer{err: err}
		}
		defer q.Close()
		return answerOf(q.Exec(ctx))
	}
	want, plain := run(j.tests, s.DB), run(j.plain, s.DB)
	for i, w := range j.ways {
		// Of each query promqltest makes several with @ modifiers, which take one road each, in turn.
		if !w.ours && (slow || strings.Contains(expr, " @ ")) && i != j.asked%len(roads) {
			continue
		}
		got := run(w.engine, s.by(w.road))
		d := want.differs(&got, expr)
		if d == "" {
			continue
		}
		if w.ours && plain.differs(&got, expr) == "" {
			j.used[w.as+delayedNames]++
			continue
		}
		parsed, err := parser.ParseExpr(expr)
		if err == nil {
			if e := explanation(&comparison{of: w.as, expr: parsed, want: want, got: got}); e != nil && e.files {
				j.used[e.String()]++
				continue
			}
		}
		s.t.Errorf("%s: %s: %s", w.as, expr, d)
	}
	return ask(j.tests, s.DB)
}

// differs tells where another answer differs in anything that the files may look at.
func (a *answer) differs(got *answer, expr string) string {
	if a.err != nil && got.err != nil && a.err.Error() != got.err.Error() {
		return fmt.Sprintf("error %q, want %q", got.err, a.err)
	}
	if d := diff(*a, *got, false); d != "" {
		return d
	}
	if strings.HasPrefix(expr, "sort") && !slices.Equal(a.names, got.names) {
		return fmt.Sprintf("in the order %v, want %v", got.names, a.names)
	}
	if !slices.Equal(a.annotations, got.annotations) {
		return fmt.Sprintf("annotations %q, want %q", got.annotations, a.annotations)
	}
	return ""
}
