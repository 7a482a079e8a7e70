package prom

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/go-kit/log/level"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
)

// proofTimeout is how long a read waits for the proof that no labels clash. Sorting in memory is always right,
// and the proof only spares it.
const proofTimeout = 10 * time.Second

// mayClash tells whether a series of the answer could have a stored label that is named like an external or a
// replica label. The names in the indexes of blocks and head are cheap to ask for, and mostly settle it. A name
// that is there may still be none of the series that match; that takes a look at one series at most.
// Without an answer there is no proof.
func (s *Store) mayClash(ctx context.Context, q query) bool {
	if q.external.IsEmpty() && len(q.drop) == 0 {
		return false
	}
	proof, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	clash, err := s.clash(proof, q)
	if err != nil {
		if ctx.Err() == nil {
			level.Debug(s.logger).Log("msg", "series are sorted in memory, as it is not known whether their labels clash", "err", err)
		}
		return true
	}
	return clash
}

func (s *Store) clash(ctx context.Context, q query) (bool, error) {
	names, _, err := s.client.LabelNames(ctx, promapi.Select{Start: q.mint, End: q.maxt})
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if !q.clashes(name) {
			continue
		}
		q := q
		q.matchers = append(slices.Clone(q.matchers), labels.MustNewMatcher(labels.MatchNotEqual, name, ""))
		if found, err := s.exists(ctx, q); found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// clashes tells whether a stored label of this name is overridden or removed.
func (q *query) clashes(name string) bool {
	return q.external.Has(name) || slices.Contains(q.drop, name)
}

// errFound ends a walk at its first series.
var errFound = errors.New("found")

// exists tells whether a series matches.
func (s *Store) exists(ctx context.Context, q query) (bool, error) {
	q.limit = 1
	_, err := s.walk(ctx, q, func(labels.Labels) error { return errFound })
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// walk calls each with the stored labels of all series that match, in no order.
func (s *Store) walk(ctx context.Context, q query, each func(labels.Labels) error) (store.Warnings, error) {
	if selective(q.matchers) {
		ws, err := s.client.Series(ctx, promapi.Select{Start: q.mint, End: q.maxt, Matchers: q.matchers, Limit: q.limit}, each)
		return warnings(ws), err
	}
	// Prometheus refuses to list series by matchers that all accept an absent label, but reads them.
	q.drop = nil
	cur, err := s.readStored(ctx, q)
	if err != nil {
		return nil, err
	}
	defer cur.Close()
	for cur.Next() {
		if err := each(cur.At().Labels); err != nil {
			return nil, err
		}
	}
	return cur.Warnings(), cur.Err()
}

// selective tells whether a matcher refuses the empty string.
func selective(ms []*labels.Matcher) bool {
	return slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") })
}
