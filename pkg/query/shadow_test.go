package query

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/promql"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// turning is a Store whose series come from one of several, chosen by how often it was asked.
type turning struct {
	store.Store
	mu    sync.Mutex
	asked int
	turn  func(asked int) store.Store
}

func (s *turning) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	s.mu.Lock()
	s.asked++
	st := s.turn(s.asked)
	s.mu.Unlock()
	return st.Series(ctx, req)
}

// Shows what shadow evaluations find: equal answers, different ones, data that changes meanwhile, a Store that
// fails, and no memory; that only answers of the fast engine are looked at; and that all memory comes back.
func TestShadow(t *testing.T) {
	one := storetest.New(storetest.Data{Series: shop()})
	without := func(code string) store.Store {
		return storetest.New(storetest.Data{Series: slices.DeleteFunc(shop(), func(in storetest.Input) bool { return in.Labels.Get("code") == code })})
	}
	less := without("404")
	broken := &turning{Store: one, turn: func(int) store.Store { return failing{Store: one} }}
	at := func(n int, then store.Store) func(int) store.Store {
		return func(asked int) store.Store {
			if asked == n {
				return then
			}
			return one
		}
	}
	f := func(name, result string, cfg Config, engine string, turn func(int) store.Store) {
		t.Helper()
		var out bytes.Buffer
		cfg.Engine = EngineThanos
		if cfg.ShadowSample == 0 {
			cfg.ShadowSample = 1
		}
		q, err := New(&turning{Store: one, turn: turn}, cfg, log.NewLogfmtLogger(log.NewSyncWriter(&out)), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		res, err := q.Exec(t.Context(), Request{Expr: `sum by (code) (rate(requests_total[5m]))`, Start: time.UnixMilli(base + 20*60_000), End: time.UnixMilli(base + 40*60_000), Step: time.Minute, Engine: engine})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if points := res.Value.(promql.Matrix).TotalSamples(); points == 0 {
			t.Errorf("%s: no points", name)
		}
		res.Close()
		q.shadow.running.Wait()
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		for _, r := range []string{shadowEqual, shadowDifferent, shadowFailed, shadowSkipped} {
			want := 0.0
			if r == result {
				want = 1
			}
			if got := testutil.ToFloat64(q.metrics.shadows.WithLabelValues(r)); got != want {
				t.Errorf("%s: %v are %s, want %v", name, got, r, want)
			}
		}
		if logged := strings.Contains(out.String(), "differently") && strings.Contains(out.String(), "requests_total"); logged != (result == shadowDifferent) {
			t.Errorf("%s: logged %q", name, out.String())
		}
		if used := q.chunkBytes.Used() + q.shadow.budget.Used(); used != 0 {
			t.Errorf("%s: %d bytes are still in use", name, used)
		}
	}
	f("equal", shadowEqual, Config{}, "", at(0, nil))
	f("asked for the other", "", Config{}, EnginePrometheus, at(0, nil))
	f("not in the sample", "", Config{ShadowSample: 1e-300}, "", at(0, nil))
	f("different", shadowDifferent, Config{}, "", at(2, less))
	f("new data", shadowEqual, Config{}, "", at(1, less))
	f("changing data", shadowSkipped, Config{}, "", func(asked int) store.Store {
		return []store.Store{nil, one, less, without("500")}[asked]
	})
	f("failing", shadowFailed, Config{}, "", at(2, broken))
	f("no memory", shadowSkipped, Config{ShadowBytesMax: 10}, "", at(0, nil))
}

// Shows that an answer is closed at once however long its shadow takes, that a second one finds no place and is
// skipped, and that closing the querier ends what runs.
func TestShadowNeverDelays(t *testing.T) {
	one := storetest.New(storetest.Data{Series: shop()})
	st := &turning{Store: one, turn: func(asked int) store.Store {
		if asked == 2 {
			return hanging{}
		}
		return one
	}}
	q, err := New(st, Config{Engine: EngineThanos, ShadowSample: 1}, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		res, err := q.Exec(t.Context(), Request{Expr: `sum(up)`, Start: time.UnixMilli(base + 20*60_000)})
		if err != nil {
			t.Fatal(err)
		}
		res.Close()
		for deadline := time.Now().Add(10 * time.Second); i == 0; {
			st.mu.Lock()
			asked := st.asked
			st.mu.Unlock()
			if asked == 2 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the shadow evaluation has not begun")
			}
			time.Sleep(time.Millisecond)
		}
	}
	if got := testutil.ToFloat64(q.metrics.shadows.WithLabelValues(shadowSkipped)); got != 1 {
		t.Errorf("%v skipped, want the second", got)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
	if got := testutil.ToFloat64(q.metrics.shadows.WithLabelValues(shadowSkipped)); got != 2 {
		t.Errorf("%v skipped, want the first too as it was ended", got)
	}
	if used := q.chunkBytes.Used(); used != 0 {
		t.Errorf("%d bytes are still in use", used)
	}
}

// Shows that a part of queries outside 0 to 1 is refused.
func TestShadowSample(t *testing.T) {
	for _, part := range []float64{-0.1, 1.1} {
		if err := (Config{ShadowSample: part}).Validate(); err == nil || !strings.Contains(err.Error(), "from 0 to 1") {
			t.Errorf("%v: got %v", part, err)
		}
	}
}

// Shows that the budget of one query refuses what is too much for it, on both engines and streamed or not, with what
// was wanted and what is allowed; that others go on; and that both budgets get everything back.
func TestQueryBudget(t *testing.T) {
	const most = 100_000
	q := newQuerier(t, storetest.New(storetest.Data{Series: oddities()}), Config{QueryBytesMax: most, ChunkBytesMax: 1 << 30})
	f := func(engine, expr string, ok bool) {
		t.Helper()
		res, err := q.Exec(t.Context(), Request{Expr: expr, Engine: engine, Start: time.UnixMilli(base + 20*60_000), End: time.UnixMilli(base + 50*60_000), Step: 15 * time.Second})
		switch {
		case ok && err != nil:
			t.Errorf("%s: %v", expr, err)
		case ok:
			res.Close()
		case err == nil:
			res.Close()
			t.Errorf("%s on %s is not refused", expr, engine)
		case store.KindOf(err) != store.KindLimit || !strings.Contains(err.Error(), "--query.max-memory-per-query") || !strings.Contains(err.Error(), "of 100000 in use"):
			t.Errorf("%s on %s: %v", expr, engine, err)
		}
		if used := q.chunkBytes.Used(); used != 0 {
			t.Errorf("%s: %d bytes are still in use", expr, used)
		}
	}
	f(EngineThanos, `{__name__=~".+", __name__!="mixed"}`, false)
	f(EnginePrometheus, `{__name__=~".+", __name__!="mixed"}`, false)
	f(EngineThanos, `sum by (instance, job, __name__) (last_over_time({__name__=~".+_total"}[5m]))`, false)
	f(EngineThanos, `sum(rate(c_total[5m]))`, true)
	f(EnginePrometheus, `dup_one`, true)
}
