package query

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/koios-metrics/koios/pkg/gate"
	"github.com/koios-metrics/koios/pkg/store"
)

// Queryable gives PromQL engines access to a Store for one request. It implements storage.Queryable;
// its methods may be called in parallel.
type Queryable struct {
	q       *Querier
	opts    Options
	selects *gate.Gate
	fetched counts

	unstreamed bool // nothing is to be streamed
	floatsOnly bool // native histograms end the query with errHistograms

	// Scans run until close: an engine may return an error of one while it has not yet begun another.
	scans   sync.WaitGroup
	mu      sync.Mutex
	cancels []context.CancelFunc // of the scans
	closed  bool
	held    atomic.Int64 // bytes of the budgets that scans hold

	own    *store.Budget // of this request
	common *store.Budget // of all requests together
}

// Queryable makes the access of one request.
func (q *Querier) Queryable(opts Options) *Queryable { return q.queryable(opts, q.chunkBytes) }

// queryable makes the access of one request that is charged to a budget, and to one of its own.
func (q *Querier) queryable(opts Options, common *store.Budget) *Queryable {
	return &Queryable{q: q, opts: opts, selects: q.selects.Twin(), own: store.NewBudget(ownBudget, q.cfg.QueryBytesMax), common: common}
}

// ownBudget names the budget of one request in refusals.
const ownBudget = "memory for one query (--query.max-memory-per-query)"

// charge takes n bytes of both budgets, or of none.
func (q *Queryable) charge(n int64) error {
	if err := q.own.Reserve(n); err != nil {
		return err
	}
	if err := q.common.Reserve(n); err != nil {
		q.own.Release(n)
		return err
	}
	return nil
}

func (q *Queryable) discharge(n int64) {
	q.own.Release(n)
	q.common.Release(n)
}

// Fetched counts what the request has read from the Store so far.
func (q *Queryable) Fetched() Fetched { return q.fetched.load() }

// reserve charges n bytes to the budgets until they are released, at the latest by close.
func (q *Queryable) reserve(n int64) error {
	if err := q.charge(n); err != nil {
		return err
	}
	q.held.Add(n)
	return nil
}

func (q *Queryable) release(n int64) {
	q.held.Add(-n)
	q.discharge(n)
}

// beginScan gives a scan its context; the scan calls end when it holds no more than what close is to give back. The
// error is that of a query that has ended.
func (q *Queryable) beginScan(ctx context.Context) (_ context.Context, end func(), err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil, nil, context.Canceled
	}
	ctx, cancel := context.WithCancel(ctx)
	q.cancels = append(q.cancels, cancel)
	q.scans.Add(1)
	return ctx, func() { cancel(); q.scans.Done() }, nil
}

// close ends the scans, waits for them and gives back what they hold.
func (q *Queryable) close() {
	q.mu.Lock()
	q.closed = true
	for _, cancel := range q.cancels {
		cancel()
	}
	q.mu.Unlock()
	q.scans.Wait()
	q.release(q.held.Load())
}

// Querier implements storage.Queryable; the times are in ms, both inclusive.
func (q *Queryable) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{Queryable: q, mint: mint, maxt: maxt}, nil
}

// querier owns the series that its selects fetched until it is closed.
type querier struct {
	*Queryable
	mint, maxt int64

	running sync.WaitGroup
	mu      sync.Mutex
	cancels []context.CancelFunc
	held    int64 // bytes reserved in the budget
	closed  bool
}

// Select implements storage.Querier. The series come sorted in any case.
func (q *querier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	ctx, cancel := context.WithCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		cancel()
		return storage.ErrSeriesSet(context.Canceled)
	}
	q.cancels = append(q.cancels, cancel)
	set := &seriesSet{ctx: ctx, done: make(chan struct{}), at: -1}
	q.running.Go(func() {
		defer cancel()
		defer close(set.done)
		set.fetch(ctx, q, q.opts.request(q.mint, q.maxt, hints, ms), readingOf(&q.opts, q.q.cfg.Dedup, hints))
	})
	return set
}

// reserve charges n bytes until Close.
func (q *querier) reserve(n int64) error {
	if err := q.charge(n); err != nil {
		return err
	}
	q.mu.Lock()
	q.held += n
	q.mu.Unlock()
	return nil
}

// LabelNames implements storage.Querier.
func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	if err := q.selects.Start(ctx); err != nil {
		return nil, nil, err
	}
	defer q.selects.Done()
	names, warnings, err := q.q.store.LabelNames(ctx, &store.LabelNamesRequest{
		MinTime:              q.mint,
		MaxTime:              q.maxt,
		Matchers:             ms,
		WithoutReplicaLabels: q.opts.withoutLabels(),
		Limit:                limitOf(hints),
		PartialResponse:      q.opts.PartialResponse,
		StoreMatchers:        q.opts.StoreMatchers,
	})
	return names, annotate(warnings), err
}

// LabelValues implements storage.Querier.
func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	if err := q.selects.Start(ctx); err != nil {
		return nil, nil, err
	}
	defer q.selects.Done()
	values, warnings, err := q.q.store.LabelValues(ctx, &store.LabelValuesRequest{
		Label:                name,
		MinTime:              q.mint,
		MaxTime:              q.maxt,
		Matchers:             ms,
		WithoutReplicaLabels: q.opts.withoutLabels(),
		Limit:                limitOf(hints),
		PartialResponse:      q.opts.PartialResponse,
		StoreMatchers:        q.opts.StoreMatchers,
	})
	return values, annotate(warnings), err
}

func limitOf(hints *storage.LabelHints) int {
	if hints == nil {
		return 0
	}
	return hints.Limit
}

// Close ends what is still being fetched, waits for it and lets go of all series.
func (q *querier) Close() error {
	q.mu.Lock()
	q.closed = true
	for _, cancel := range q.cancels {
		cancel()
	}
	q.mu.Unlock()
	q.running.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.discharge(q.held)
	q.held = 0
	return nil
}
