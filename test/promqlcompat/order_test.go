package promqlcompat

import (
	"context"
	"math/rand"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// shuffles is how often an answer of Prometheus is asked for again with its series in another order.
const shuffles = 8

// undetermined tells whether the answer to a question hangs on the order in which storage hands out series, which
// nobody promises: of equal values topk() takes those that come first, and a sum of floats is rounded in the order
// of its parts. Prometheus's own engine is asked, over its own TSDB.
func (b *bench) undetermined(ctx context.Context, q question, want answer) bool {
	for n := range int64(shuffles) {
		if diff(want, b.want(ctx, shuffled{Queryable: b.plain, seed: n}, q), false) != "" {
			return true
		}
	}
	return false
}

// want asks Prometheus's engine.
func (b *bench) want(ctx context.Context, over storage.Queryable, q question) answer {
	var (
		asked promql.Query
		err   error
	)
	if q.step == 0 {
		asked, err = b.reference.NewInstantQuery(ctx, over, nil, q.expr.String(), q.start)
	} else {
		asked, err = b.reference.NewRangeQuery(ctx, over, nil, q.expr.String(), q.start, q.end, q.step)
	}
	if err != nil {
		return answer{err: err}
	}
	defer asked.Close()
	return answerOf(asked.Exec(ctx))
}

// shuffled hands out the series of each select in an order of its own.
type shuffled struct {
	storage.Queryable
	seed int64
}

// Querier implements storage.Queryable.
func (s shuffled) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Queryable.Querier(mint, maxt)
	return shuffledQuerier{Querier: q, seed: s.seed}, err
}

type shuffledQuerier struct {
	storage.Querier
	seed int64
}

// Select implements storage.Querier.
func (q shuffledQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	set := q.Querier.Select(ctx, true, hints, ms...)
	var all []storage.Series
	for set.Next() {
		all = append(all, set.At())
	}
	if err := set.Err(); err != nil {
		return storage.ErrSeriesSet(err)
	}
	rand.New(rand.NewSource(q.seed)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return &listed{all: all, at: -1}
}

// listed is a series set of a list.
type listed struct {
	all []storage.Series
	at  int
}

// Next implements storage.SeriesSet.
func (l *listed) Next() bool { l.at++; return l.at < len(l.all) }

// At implements storage.SeriesSet.
func (l *listed) At() storage.Series { return l.all[l.at] }

// Err implements storage.SeriesSet.
func (l *listed) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (l *listed) Warnings() annotations.Annotations { return nil }
