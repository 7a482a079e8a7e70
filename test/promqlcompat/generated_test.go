package promqlcompat

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/store"
)

// Shows that a fixed slice of generated queries answers as Prometheus does.
func TestGenerated(t *testing.T) {
	b := newBench(t, 1)
	n := int64(2000)
	if slow {
		n = 500
	}
	var ta tally
	for i := range n {
		b.ask(t.Context(), b.gen.question(i), &ta)
	}
	ta.judge(t)
}

// bench holds what answers the questions.
type bench struct {
	gen       *generator
	plain     *teststorage.TestStorage
	reference *promql.Engine
	queriers  []*query.Querier // one for each road
}

func newBench(t testing.TB, seed int64) *bench {
	t.Helper()
	st, sets := generatedOver(t)
	b := &bench{gen: newGenerator(seed, sets), plain: st, reference: newReference(t)}
	for _, d := range destinations(t, st.DB, []store.Store{overTSDB(st.DB), overWire(t, st.DB), overPrometheus(t, st.DB)}) {
		b.queriers = append(b.queriers, newQuerier(t, d))
	}
	return b
}

// newReference makes Prometheus's engine, set up as a querier has it.
func newReference(t testing.TB) *promql.Engine {
	t.Helper()
	e := promql.NewEngine(promql.EngineOpts{
		MaxSamples:               math.MaxInt32,
		Timeout:                  time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
	})
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// got asks Koios.
func (b *bench) got(ctx context.Context, q question, engine string) answer {
	a := asked{querier: b.queriers[q.road], req: query.Request{Options: options, Engine: engine, Expr: q.expr.String(), Start: q.start, End: q.end, Step: q.step}}
	defer a.Close()
	return answerOf(a.Exec(ctx))
}

// ask puts a question to Prometheus's engine over the TSDB, and to both of ours by a road.
func (b *bench) ask(ctx context.Context, q question, t *tally) {
	want := b.want(ctx, b.plain, q)
	t.Asked++
	if want.err != nil {
		t.Refused++
	} else if !want.empty() {
		t.Answered++
	}
	for _, engine := range []string{query.EnginePrometheus, query.EngineThanos} {
		c := comparison{of: engine, expr: q.expr, want: want, got: b.got(ctx, q, engine)}
		d := diff(c.want, c.got, sorts(q.expr))
		if d == "" {
			continue
		}
		if b.undetermined(ctx, q, want) {
			t.exclude(engine, unordered.String())
			continue
		}
		if e := explanation(&c); e != nil {
			t.exclude(engine, e.String())
			continue
		}
		t.Different = append(t.Different, fmt.Sprintf("query %d, engine %s, road %s, from %s to %s step %s:\n\t%s\n\t%s", q.index, engine, roads[q.road],
			q.start.UTC().Format(time.RFC3339Nano), q.end.UTC().Format(time.RFC3339Nano), q.step, q.expr, d))
	}
}
