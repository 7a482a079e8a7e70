package frontend

import (
	"context"
	"maps"
	"math"
)

// resolutions are those that data is kept in beside its own, in ms.
var resolutions = []struct {
	ms   int64
	name string
}{{5 * 60_000, "5m"}, {3_600_000, "1h"}}

// downsampled asks again, at coarser resolutions, for what is missing at the beginning of an answer: finer data may be
// gone while coarser data of the same time is kept. It is for queries that leave the resolution to the querier.
type downsampled struct {
	next    rangeHandler
	metrics *metrics
}

// do implements rangeHandler.
func (d *downsampled) do(ctx context.Context, q *rangeQuery) (*rangeAnswer, error) {
	a, err := d.next.do(ctx, q)
	if err != nil || q.form.Get("max_source_resolution") != "auto" {
		return a, err
	}
	for _, r := range resolutions {
		if r.ms <= q.step/5 { // which the querier may use already
			continue
		}
		end := q.end
		if first, some := firstTime(a); some {
			end = first - q.step
		}
		if end < q.start {
			break
		}
		head := *q.during(q.start, end)
		head.form = maps.Clone(q.form)
		head.form.Set("max_source_resolution", r.name)
		d.metrics.extra.Inc()
		more, err := d.next.do(ctx, &head)
		if err != nil {
			return nil, err
		}
		a = joined([]*rangeAnswer{more, a})
	}
	return a, nil
}

// firstTime is the time of the first point of an answer, in ms; false if it has none.
func firstTime(a *rangeAnswer) (first int64, some bool) {
	first = math.MaxInt64
	for i := range a.Series {
		s := &a.Series[i]
		if len(s.Floats) > 0 {
			first = min(first, s.Floats[0].First())
		}
		if len(s.Histograms) > 0 {
			first = min(first, s.Histograms[0].First())
		}
	}
	return first, first != math.MaxInt64
}
