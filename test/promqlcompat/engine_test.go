package promqlcompat

import (
	"context"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/stats"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/store"
)

// options are those of a user who wants the replicas as one.
var options = query.Options{Dedup: true, ReplicaLabels: replicaLabels}

// newQuerier makes a querier over a Store.
func newQuerier(t testing.TB, st store.Store) *query.Querier {
	t.Helper()
	q, err := query.New(st, query.Config{}, log.NewNopLogger(), prometheus.NewRegistry())
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

// stored is a TSDB that can be read by Koios.
type stored struct {
	*teststorage.TestStorage
	t        testing.TB
	live     []store.Store
	queriers []*query.Querier // by road; nil when data came since
}

func newStored(t testing.TB) *stored {
	t.Helper()
	return &stored{TestStorage: teststorage.New(t), t: t}
}

// Appender implements storage.Storage.
func (s *stored) Appender(ctx context.Context) storage.Appender {
	s.queriers = nil
	return s.TestStorage.Appender(ctx)
}

// by returns the data as a road brings it.
func (s *stored) by(road int) *arrived {
	if s.queriers == nil {
		if s.live == nil {
			s.live = []store.Store{overTSDB(s.DB), overWire(s.t, s.DB), overPrometheus(s.t, s.DB)}
		}
		for _, st := range destinations(s.t, s.DB, s.live) {
			s.queriers = append(s.queriers, newQuerier(s.t, st))
		}
	}
	return &arrived{Queryable: s.queriers[road].Queryable(options), querier: s.queriers[road]}
}

// arrived is what a road brought.
type arrived struct {
	storage.Queryable
	querier *query.Querier
}

// koios evaluates as package query does, with the engine of a name.
type koios string

// NewInstantQuery implements promql.QueryEngine; the Queryable is an *arrived.
func (name koios) NewInstantQuery(_ context.Context, q storage.Queryable, _ promql.QueryOpts, expr string, at time.Time) (promql.Query, error) {
	return &asked{querier: q.(*arrived).querier, req: query.Request{Options: options, Engine: string(name), Expr: expr, Start: at, End: at}}, nil
}

// NewRangeQuery implements promql.QueryEngine; the Queryable is an *arrived.
func (name koios) NewRangeQuery(_ context.Context, q storage.Queryable, _ promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, error) {
	return &asked{querier: q.(*arrived).querier, req: query.Request{Options: options, Engine: string(name), Expr: expr, Start: start, End: end, Step: step}}, nil
}

// asked is a query to Koios.
type asked struct {
	querier *query.Querier
	req     query.Request
	result  *query.Result
}

// Exec implements promql.Query.
func (a *asked) Exec(ctx context.Context) *promql.Result {
	r, err := a.querier.Exec(ctx, a.req)
	if err != nil {
		return &promql.Result{Err: err}
	}
	a.result = r
	return &promql.Result{Value: r.Value, Warnings: r.Annotations}
}

// Close implements promql.Query.
func (a *asked) Close() {
	if a.result != nil {
		a.result.Close()
	}
}

func (a *asked) Statement() parser.Statement { return nil }
func (a *asked) Stats() *stats.Statistics    { return nil }
func (a *asked) Cancel()                     {}
func (a *asked) String() string              { return a.req.Expr }
