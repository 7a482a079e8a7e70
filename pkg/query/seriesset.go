package query

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/koios-metrics/koios/pkg/store"
)

// seriesSet is the answer of one select. It is filled in the background; its reader waits for the whole.
// (Engines list all series before they look at the first sample, so nothing is lost by that.)
type seriesSet struct {
	ctx  context.Context
	done chan struct{} // closed when the fields below are final

	series   []*series
	warnings annotations.Annotations
	err      error

	at int
}

// fetch fills the set.
func (s *seriesSet) fetch(ctx context.Context, q *querier, req *store.SeriesRequest, r reading) {
	defer func() {
		if p := recover(); p != nil {
			// One request must not take the process with it.
			s.err = fmt.Errorf("BUG: select of %v: %v\n%s", req.Matchers, p, debug.Stack())
		}
	}()
	if s.err = q.selects.Start(ctx); s.err != nil {
		return
	}
	defer q.selects.Done()
	r.bound(req)
	r.reserve = q.reserve

	cur, err := q.q.store.Series(ctx, req)
	if err != nil {
		s.err = err
		return
	}
	defer func() { s.err = errors.Join(s.err, cur.Close()) }()
	for cur.Next() {
		if q.floatsOnly && hasHistograms(cur.At()) {
			q.q.histograms.add(req.Matchers)
			s.err = errHistograms
			return
		}
		if s.err = q.reserve(cur.At().Size()); s.err != nil {
			s.err = fmt.Errorf("keep the series of %v: %w", req.Matchers, s.err)
			return
		}
		s.add(store.Keep(cur), &r)
	}
	s.series = slices.DeleteFunc(s.series, func(se *series) bool { return !r.holds(se.chunks) })
	s.err = cur.Err()
	s.warnings = annotate(cur.Warnings())
	for _, se := range s.series {
		q.fetched.add(se)
	}
}

// add appends a series, or joins it to the one before when their labels are equal.
func (s *seriesSet) add(in *store.Series, r *reading) {
	if n := len(s.series); n > 0 && labels.Equal(s.series[n-1].labels, in.Labels) {
		last := s.series[n-1]
		last.chunks = store.SortChunks(append(last.chunks, in.Chunks...))
		return
	}
	s.series = append(s.series, &series{labels: in.Labels, chunks: in.Chunks, reading: r})
}

// Next implements storage.SeriesSet.
func (s *seriesSet) Next() bool {
	<-s.done
	if s.err != nil || s.at+1 >= len(s.series) {
		return false
	}
	s.at++
	return true
}

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series { return s.series[s.at] }

// Err implements storage.SeriesSet.
func (s *seriesSet) Err() error {
	<-s.done
	return s.err
}

// Warnings implements storage.SeriesSet.
func (s *seriesSet) Warnings() annotations.Annotations {
	<-s.done
	return s.warnings
}

// annotate turns the warnings of a Store into annotations.
func annotate(ws store.Warnings) annotations.Annotations {
	var as annotations.Annotations
	for _, w := range ws {
		var info *store.Info
		if errors.As(w, &info) {
			w = storeInfo{info}
		}
		as.Add(w)
	}
	return as
}

// storeInfo is an info of a Store, which annotations list among their infos.
type storeInfo struct{ *store.Info }

func (i storeInfo) Error() string        { return i.Text }
func (i storeInfo) Is(target error) bool { return target == annotations.PromQLInfo }
func (i storeInfo) Unwrap() error        { return i.Info }

// IsStoreWarning tells whether an annotation of a result came from a Store, so that data may be missing or come
// from fewer replicas than usual, and not from PromQL itself.
func IsStoreWarning(annotation error) bool {
	return store.IsInfo(annotation) || !errors.Is(annotation, annotations.PromQLInfo) && !errors.Is(annotation, annotations.PromQLWarning)
}
