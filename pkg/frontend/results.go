package frontend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/koios-metrics/koios/pkg/cache"
)

// results keeps the answers of range queries, in extents by query, step and everything else that an answer depends on.
//
// Kept is only what is whole and settled: no answer that misses data, and nothing newer than the freshness. What can't
// be read back is dropped and asked for again.
type results struct {
	cache     cache.Cache
	freshness time.Duration
	interval  func(length int64) int64 // of the parts that queries are split into, in ms
	ttl       time.Duration
	compress  bool
	parallel  int
	now       func() time.Time
	next      rangeHandler
	logger    log.Logger
	metrics   *metrics
}

func (r *results) do(ctx context.Context, q *rangeQuery) (*rangeAnswer, error) {
	settled, ok := r.settled(q)
	if !ok {
		r.metrics.uncacheable.Inc()
		return r.next.do(ctx, q)
	}
	// A range that is not aligned ends with its last step. (What says @ end() is not for keeping.)
	q = q.during(q.start, q.start+(q.end-q.start)/q.step*q.step)
	id := r.identity(q)
	key := id.key(q.step)
	var old []extent
	if b, ok := cache.FetchOne(ctx, r.cache, key); ok {
		old = r.read(b, q.step)
	}
	use, gaps := cover(old, q.start, q.end, q.step)
	if len(use) == 0 {
		// Nobody has asked for this at this step, so it may have been at another.
		use, gaps = r.thin(ctx, q, id, gaps)
	}
	r.count(q, gaps)
	parts := make([]*rangeAnswer, 0, len(use)+len(gaps))
	for _, e := range use {
		parts = append(parts, &rangeAnswer{Answer: e.answer})
	}
	if len(gaps) == 0 {
		return joined(parts), nil
	}
	asked := make([]*rangeQuery, len(gaps))
	for i, g := range gaps {
		asked[i] = q.during(g.start, g.end)
	}
	answers, err := each(ctx, r.parallel, asked, r.next)
	if err != nil {
		return nil, err
	}
	var fresh []extent
	for i, a := range answers {
		parts = append(parts, a)
		// What comes after what is settled is answered and not kept.
		end := min(gaps[i].end, q.start+floor(settled-q.start, q.step))
		if a.noStore || end < gaps[i].start {
			continue
		}
		kept := *a.Answer
		kept.Stats, kept.Analysis = nil, nil
		e := extent{gaps[i].start, end, &kept}
		if end < gaps[i].end {
			if e.annotated() {
				continue // who knows which steps it is about
			}
			e.answer = kept.Between(e.start, e.end)
		}
		fresh = append(fresh, e)
	}
	if len(fresh) > 0 {
		r.store(key, addExtents(old, fresh, q.step))
	}
	return joined(parts), nil
}

// settled returns the time in ms up to which answers of a query don't change any more; false where the query's
// answers are not for keeping.
func (r *results) settled(q *rangeQuery) (int64, bool) {
	if q.noCache || q.form.Get("stats") != "" || q.form.Get("analyze") == "true" || !splittable(q.expr) {
		return 0, false
	}
	limit := r.now().Add(-r.freshness).UnixMilli()
	ahead, ok := readsAhead(q.expr, limit)
	if !ok || q.start > limit-ahead {
		return 0, false
	}
	return limit - ahead, true
}

// readsAhead returns how many ms later than its step an expression looks at most; false if it looks at a fixed
// time after limit.
func readsAhead(expr parser.Expr, limit int64) (ahead int64, ok bool) {
	ok = true
	at := func(offset time.Duration, t *int64, special parser.ItemType) {
		later := max(0, -offset.Milliseconds())
		ahead += later
		if t != nil && *t+later > limit || special != 0 {
			ok = false
		}
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			at(n.OriginalOffset, n.Timestamp, n.StartOrEnd)
			// A smoothed selector reads on until the next sample.
			ok = ok && n.OriginalOffsetExpr == nil && !n.Smoothed
		case *parser.SubqueryExpr:
			at(n.OriginalOffset, n.Timestamp, n.StartOrEnd)
			ok = ok && n.OriginalOffsetExpr == nil && n.StepExpr == nil && n.RangeExpr == nil
		case *parser.MatrixSelector:
			ok = ok && n.RangeExpr == nil
		}
		return nil
	})
	return ahead, ok
}

// identity is everything but the step that an answer depends on, and which part of time it is about.
type identity struct {
	start int64 // of the query, in ms
	text  string
}

func (r *results) identity(q *rangeQuery) identity {
	var b strings.Builder
	interval := r.interval(q.end - q.start)
	part := int64(0)
	if interval > 0 {
		part = floor(q.start, interval)
	}
	fmt.Fprintf(&b, "%q %q %q %q %d %d", q.org, q.tenant, q.path, q.expr.String(), interval, part)
	q.writeKey(&b)
	return identity{q.start, b.String()}
}

// key names the entry of a query at a step in ms, and at the phase in which its steps are.
func (id identity) key(step int64) string {
	return hashedKey("fe:range:", fmt.Sprintf("%d %d %s", step, id.start-floor(id.start, step), id.text))
}

// commonSteps are the steps in ms that dashboards have.
var commonSteps = []int64{1_000, 5_000, 10_000, 15_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000}

// finerSteps are the common steps, longest first, that q.step is a multiple of.
func finerSteps(q *rangeQuery) (steps []int64) {
	for _, s := range slices.Backward(commonSteps) {
		if s < q.step && q.step%s == 0 {
			steps = append(steps, s)
		}
	}
	return steps
}

// thin fills gaps from what is kept at shorter steps, whose answers have all of the query's steps.
func (r *results) thin(ctx context.Context, q *rangeQuery, id identity, gaps []span) (use []extent, left []span) {
	steps := finerSteps(q)
	if len(steps) == 0 || q.form.Get("max_source_resolution") == "auto" { // it depends on the step
		return nil, gaps
	}
	keys := make([]string, len(steps))
	for i, s := range steps {
		keys[i] = id.key(s)
	}
	found := uncounted(r.cache).Fetch(ctx, keys)
	for i, b := range found {
		if len(gaps) == 0 || b == nil {
			continue
		}
		es := r.read(b, steps[i])
		var rest []span
		for _, g := range gaps {
			j := slices.IndexFunc(es, func(e extent) bool {
				return e.start <= g.start && e.end >= g.end && !e.annotated() && (g.start-e.start)%steps[i] == 0
			})
			if j < 0 {
				rest = append(rest, g)
				continue
			}
			use = append(use, extent{g.start, g.end, es[j].answer.Between(g.start, g.end).Every(g.start, q.step)})
		}
		gaps = rest
	}
	return use, gaps
}

// read decodes an entry; one that can't be read is none.
func (r *results) read(b []byte, step int64) []extent {
	if b == nil {
		return nil
	}
	b, err := unpack(b, r.compress)
	var es []extent
	if err == nil {
		es, err = decodeExtents(b, step)
	}
	if err != nil {
		r.metrics.unreadable.Inc()
		level.Warn(r.logger).Log("msg", "entry of the results cache dropped", "err", err)
		return nil
	}
	return es
}

func (r *results) store(key string, es []extent) {
	b := encodeExtents(es)
	if r.compress {
		b = snappy.Encode(nil, b)
	}
	r.cache.Store(cache.Entry{Key: key, Value: b, TTL: r.ttl})
}

// count tells how much of a query was found.
func (r *results) count(q *rangeQuery, gaps []span) {
	steps := func(start, end int64) float64 { return float64((end-start)/q.step + 1) }
	all, missed := steps(q.start, q.end), 0.0
	for _, g := range gaps {
		missed += steps(g.start, g.end)
	}
	r.metrics.cachedSteps.Add(all - missed)
	r.metrics.computedSteps.Add(missed)
}
