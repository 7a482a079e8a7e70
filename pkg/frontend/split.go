package frontend

import (
	"context"
	"math"

	"golang.org/x/sync/errgroup"

	"github.com/prometheus/prometheus/promql/parser"
)

// floor rounds a time down to a multiple of unit, also before 1970.
func floor(t, unit int64) int64 {
	r := t % unit
	if r < 0 {
		r += unit
	}
	return t - r
}

// align moves start and end down to multiples of the step.
func align(next rangeHandler) rangeHandler {
	return rangeFunc(func(ctx context.Context, q *rangeQuery) (*rangeAnswer, error) {
		return next.do(ctx, q.during(floor(q.start, q.step), floor(q.end, q.step)))
	})
}

// SplitConfig says into which parts ranges are cut. Times are in ms; Interval 0 leaves the choice to the others, and if
// they are 0 too nothing is split.
type SplitConfig struct {
	Interval int64
	// Min and Max bound the parts, and Shards is how many of them a range between is cut into.
	Min, Max, Shards int64
	// Parallel is how many parts of one query are asked at a time.
	Parallel int
}

// interval is how long the parts of a range are, in ms; 0 is as long as the range.
func (c SplitConfig) interval(length int64) int64 {
	switch {
	case c.Interval > 0:
		return c.Interval
	case c.Min <= 0 || c.Max <= 0 || c.Shards <= 0:
		return 0
	case length/c.Max >= 2:
		return c.Max
	case length > c.Min:
		return max(1, length/c.Shards)
	}
	return c.Min
}

// splitter cuts long ranges into parts that are asked for in parallel.
type splitter struct {
	cfg     SplitConfig
	parse   func(string) (parser.Expr, error)
	next    rangeHandler
	metrics *metrics
}

func (s *splitter) do(ctx context.Context, q *rangeQuery) (*rangeAnswer, error) {
	parts := s.parts(q)
	s.metrics.splits.Add(float64(len(parts)))
	s.metrics.cortexSplits.Add(float64(len(parts)))
	return inParallel(ctx, s.cfg.Parallel, parts, s.next)
}

// parts cuts a query at multiples of the interval: a part ends with the last step before one. A last part of one step
// is joined to the one before.
func (s *splitter) parts(q *rangeQuery) []*rangeQuery {
	interval := s.cfg.interval(q.end - q.start)
	if interval <= 0 || q.end-q.start < q.step || !splittable(q.expr) {
		return []*rangeQuery{q}
	}
	q, ok := s.literal(q)
	if !ok {
		return []*rangeQuery{q}
	}
	var parts []*rangeQuery
	for start := q.start; start <= q.end; {
		end := q.end
		if border := floor(start, interval) + interval; border <= q.end && border > start {
			// The last step before the border, at least the first one.
			end = start + max(0, (border-1-start)/q.step)*q.step
			if q.end-end <= q.step {
				end = q.end
			}
		}
		parts = append(parts, q.during(start, end))
		if end > math.MaxInt64-q.step {
			break
		}
		start = end + q.step
	}
	return parts
}

// inParallel asks for the parts of a query and joins them.
func inParallel(ctx context.Context, parallel int, parts []*rangeQuery, next rangeHandler) (*rangeAnswer, error) {
	if len(parts) == 1 {
		return next.do(ctx, parts[0])
	}
	answers, err := each(ctx, parallel, parts, next)
	if err != nil {
		return nil, err
	}
	return joined(answers), nil
}

// each asks for several queries, so many at a time. The first error ends it all.
func each(ctx context.Context, parallel int, parts []*rangeQuery, next rangeHandler) ([]*rangeAnswer, error) {
	answers := make([]*rangeAnswer, len(parts))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, parallel))
	for i, p := range parts {
		g.Go(func() (err error) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			answers[i], err = next.do(ctx, p)
			return err
		})
	}
	return answers, g.Wait()
}

// literal replaces @ start() and @ end(), which mean the whole range, by its times; false if that can't be done.
func (s *splitter) literal(q *rangeQuery) (*rangeQuery, bool) {
	if !usesRange(q.expr) {
		return q, true
	}
	// What a query says is never changed, so a new one is read from its text.
	expr, err := s.parse(q.query)
	if err != nil {
		return q, false
	}
	set := func(at *parser.ItemType, to **int64) {
		switch *at {
		case parser.START:
			t := q.start
			*at, *to = 0, &t
		case parser.END:
			t := q.end
			*at, *to = 0, &t
		}
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			set(&n.StartOrEnd, &n.Timestamp)
		case *parser.SubqueryExpr:
			set(&n.StartOrEnd, &n.Timestamp)
		}
		return nil
	})
	c := *q
	c.expr, c.query = expr, expr.String()
	if _, err := s.parse(c.query); err != nil {
		return q, false
	}
	return &c, true
}

// usesRange tells whether an expression says @ start() or @ end().
func usesRange(expr parser.Expr) (uses bool) {
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			uses = uses || n.StartOrEnd != 0
		case *parser.SubqueryExpr:
			uses = uses || n.StartOrEnd != 0
		}
		return nil
	})
	return uses
}
