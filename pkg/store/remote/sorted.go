package remote

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

// sorted takes replica labels off the series of a cursor and puts them in order, for peers that do not.
// It holds the whole answer, charged to a budget.
type sorted struct {
	in     *cursor
	budget *store.Budget

	filled   bool
	series   []*store.Series
	at       int
	reserved int64
	err      error
}

func (s *sorted) Next() bool {
	if !s.filled {
		s.filled, s.at = true, -1
		s.fill()
	}
	if s.at+1 >= len(s.series) {
		return false
	}
	if s.in.ctx.Err() != nil {
		s.err = s.in.peer.error(s.in.ctx, "sort series from %s", nil)
		return false
	}
	if s.at >= 0 {
		n := s.series[s.at].Size()
		s.series[s.at] = nil
		s.reserved -= n
		s.budget.Release(n)
	}
	s.at++
	return true
}

func (s *sorted) fill() {
	for s.in.Next() {
		// The size of what was lent is that of a copy, so it can be refused before it is made.
		lent := s.in.At()
		s.takeOff(lent)
		n := lent.Size()
		if s.err = s.budget.Reserve(n); s.err != nil {
			s.series = nil
			s.in.Close() // the peer need not go on
			return
		}
		s.reserved += n
		s.series = append(s.series, s.in.Keep())
	}
	s.err = s.in.Err() // handed out after what came before it
	slices.SortStableFunc(s.series, func(a, b *store.Series) int { return labels.Compare(a.Labels, b.Labels) })
}

// takeOff removes the replica labels of a series and names its chunks after them.
func (s *sorted) takeOff(se *store.Series) {
	replica := store.ReplicaOf(se.Labels, s.in.without)
	if replica == "" {
		return
	}
	se.Labels = store.Without(se.Labels, s.in.without)
	for i := range se.Chunks {
		se.Chunks[i].Replica = store.JoinReplicas(se.Chunks[i].Replica, replica)
	}
}

func (s *sorted) At() *store.Series        { return s.series[s.at] }
func (s *sorted) Err() error               { return s.err }
func (s *sorted) Warnings() store.Warnings { return s.in.Warnings() }

// Keep implements store.Keeper.
func (s *sorted) Keep() *store.Series { return s.series[s.at] }

func (s *sorted) Close() error {
	s.budget.Release(s.reserved)
	s.reserved, s.series, s.filled = 0, nil, true
	return s.in.Close()
}
