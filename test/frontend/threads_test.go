package frontend

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"

	"github.com/koios-metrics/koios/pkg/frontend"
)

// rangeForm asks for a query over a range in ms.
func rangeForm(query string, start, end, step int64) url.Values {
	return url.Values{"query": {query}, "start": {seconds(start)}, "end": {seconds(end)}, "step": {seconds(step)}}
}

// sameRange fails unless a frontend answers as the querier does, with something.
func (w *world) sameRange(t *testing.T, f *front, what string, form url.Values) {
	t.Helper()
	q := request{path: "/api/v1/query_range", form: form}
	want, got := ask(t.Context(), t, w.querier, q), ask(t.Context(), t, f, q)
	if !want.same(got) {
		t.Errorf("%s: querier against frontend: %s", what, want.difference(got))
	}
	if want.empty() {
		t.Errorf("%s: the querier has nothing: this shows nothing", what)
	}
}

// Shows that what is asked while stores are away leaves no gap behind (github.com/thanos-io/thanos issues 5075 and 8641:
// holes of days in the frontend's graphs that the querier does not have, until the cache is flushed), also where what is
// between querier and frontend drops the header that forbids keeping.
func TestThreadGapsAreNotKept(t *testing.T) {
	for _, headers := range []string{"kept", "dropped"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 5075, false)
			w.now.Store(begin + length)
			f := w.newFront(t, standard(newMoody(5075)))
			if headers == "dropped" {
				f.down.handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					rec := serve(w.querier, r)
					rec.sent.Del("Cache-Control")
					for name, vs := range rec.sent {
						rw.Header()[name] = vs
					}
					rw.WriteHeader(rec.code)
					_, _ = rw.Write(rec.body.Bytes())
				})
			}
			form := rangeForm(`sum by (cluster) (requests_total)`, begin+600_000, begin+5*3600_000, 60_000)
			for round := range 3 {
				for i, c := range w.clusters {
					c.leave(gone)
					form.Set("end", seconds(begin+int64(3+round)*3600_000))
					got := ask(t.Context(), t, f, request{path: "/api/v1/query_range", form: form})
					if err := got.decode(); err != nil {
						t.Fatal(err)
					}
					if len(got.missing()) == 0 && round == 0 && i == 1 {
						t.Error("a cluster is away and nobody says so")
					}
					if i%2 == 1 { // both replicas of the cluster have been away
						w.clusters[i-1].leave(there)
						c.leave(there)
					}
				}
				w.sameRange(t, f, "headers "+headers+", once all are back", form)
			}
		})
	}
}

// Shows that ranges that are split into a number of parts, so that the length of parts depends on that of the range, never
// take each other's answers (github.com/thanos-io/thanos issue 7831: the keys of a range of 8 h at 5 min in 12 parts
// of 40 min were made with 2 h).
func TestThreadDynamicSplit(t *testing.T) {
	w := newWorld(t, 7831, false)
	w.now.Store(begin + length)
	c := newMoody(7831)
	cfg := standard(c)
	cfg.Range.Split = frontend.SplitConfig{Min: 30 * 60_000, Max: 24 * 3600_000, Shards: 12, Parallel: 4}
	f := w.newFront(t, cfg)
	for _, hours := range []int64{1, 2, 5, 3, 5, 4, 1, 2} {
		for _, from := range []int64{0, 20, 40, 60} {
			start := begin + from*60_000
			w.sameRange(t, f, fmt.Sprintf("%d h from minute %d", hours, from), rangeForm(`sum by (job) (rate(requests_total[5m]))`, start, min(start+hours*3600_000, begin+length-3600_000), 300_000))
		}
	}
	if c.found() == 0 {
		t.Error("the cache was of no use: this shows nothing")
	}
}

// Shows that a shorter range within one that was asked before is not empty, at two frontends that share nothing and over
// time (github.com/thanos-io/thanos issue 8276: four hours began late, and the first of them alone, all from
// the cache, was empty).
func TestThreadEmptyFromTheCache(t *testing.T) {
	w := newWorld(t, 8276, false)
	w.now.Store(begin + 3*3600_000)
	const query = `sum by (instance) (max_over_time(temperature[5m]))`
	caches := []*moody{newMoody(1), newMoody(2)}
	var fronts []*front
	for _, c := range caches {
		cfg := standard(c)
		cfg.Range.Compress = true
		fronts = append(fronts, w.newFront(t, cfg))
	}
	for range 12 {
		w.now.Add(13 * 60_000)
		for i, f := range fronts {
			end := w.now.Load() / 60_000 * 60_000
			w.sameRange(t, f, fmt.Sprintf("frontend %d: two hours", i), rangeForm(query, end-2*3600_000, end, 60_000))
			w.sameRange(t, f, fmt.Sprintf("frontend %d: the first of them", i), rangeForm(query, end-2*3600_000, end-3600_000, 60_000))
		}
	}
	for _, c := range caches {
		if c.found() == 0 {
			t.Error("the cache was of no use: this shows nothing")
		}
	}
}
