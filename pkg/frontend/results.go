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
	keys := append([]string{r.key(q, q.step)}, r.finer(q)...)
	found := r.cache.Fetch(ctx, keys)
	old := r.read(found[0], q.step)
	use, gaps := cover(old, q.start, q.end, q.step)
	if len(gaps) > 0 {
		use, gaps = r.thin(q, found[1:], use, gaps)
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
		r.store(keys[0], addExtents(old, fresh, q.step))
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

// key names the entry of a query at a step: it holds everything that an answer depends on, and which part of time it is
// about.
func (r *results) key(q *rangeQuery, step int64) string {
	var b strings.Builder
	interval := r.interval(q.end - q.start)
	part := int64(0)
	if interval > 0 {
		part = floor(q.start, interval)
	}
	fmt.Fprintf(&b, "%q %q %q %q %d %d %d %d", q.org, q.tenant, q.path, q.expr.String(), step, q.start-floor(q.start, step), interval, part)
	q.writeKey(&b)
	return hashedKey("fe:range:", b.String())
}

// commonSteps are the steps in ms that dashboards have.
var commonSteps = []int64{1_000, 5_000, 10_000, 15_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000}

// finer lists the keys of the same query at shorter steps whose answers have all of its steps.
func (r *results) finer(q *rangeQuery) (keys []string) {
	if q.form.Get("max_source_resolution") == "auto" { // it depends on the step
		return nil
	}
	for _, s := range finerSteps(q) {
		keys = append(keys, r.key(q, s))
	}
	return keys
}

// finerSteps are the common steps, longest first, that q.step is a multiple of.
func finerSteps(q *rangeQuery) (steps []int64) {
	for _, s := range slices.Backward(commonSteps) {
		if s < q.step && q.step%s == 0 {
			steps = append(steps, s)
		}
	}
	return steps
}

// thin fills gaps from what is kept at shorter steps.
func (r *results) thin(q *rangeQuery, found [][]byte, use []extent, gaps []span) ([]extent, []span) {
	steps := finerSteps(q)
	for i, b := range found {
		if len(gaps) == 0 || b == nil {
			continue
		}
		es := r.read(b, steps[i])
		var left []span
		for _, g := range gaps {
			j := slices.IndexFunc(es, func(e extent) bool {
				return e.start <= g.start && e.end >= g.end && !e.annotated() && (g.start-e.start)%steps[i] == 0
			})
			if j < 0 {
				left = append(left, g)
				continue
			}
			use = append(use, extent{g.start, g.end, es[j].answer.Between(g.start, g.end).Every(g.start, q.step)})
		}
		gaps = left
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
	b, err := encodeExtents(es)
	if err != nil {
		level.Warn(r.logger).Log("msg", "answer not kept", "err", err)
		return
	}
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
