package frontend

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/koios-metrics/koios/pkg/frontend"
)

// form asks for a query over a range in ms.
func rangeForm(query string, start, end, step int64) url.Values {
	return url.Values{"query": {query}, "start": {seconds(start)}, "end": {seconds(end)}, "step": {seconds(step)}}
}

// same fails unless the frontend answers as the querier does, with something.
func (w *world) same(t *testing.T, what string, form url.Values) {
	t.Helper()
	want, got := alike(ask(t, t.Context(), w.querier.URL, form, http.Header{})), alike(ask(t, t.Context(), w.frontend.URL, form, http.Header{}))
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: querier against frontend: %s", what, d)
	}
	if len(want.Body.Data.Result) == 0 {
		t.Errorf("%s: the querier has nothing: this shows nothing", what)
	}
}

// Shows that what is asked while stores are away leaves no gap behind (github.com/thanos-io/thanos issues 5075 and 8641:
// holes of days in the frontend's graphs that the querier does not have, until the cache is flushed), also where what is
// between querier and frontend drops the header that forbids keeping.
func TestThreadGapsAreNotKept(t *testing.T) {
	for _, headers := range []string{"kept", "dropped"} {
		w := newWorld(t, 5075)
		w.now.Store(begin + length)
		if headers == "dropped" {
			to, err := url.Parse(w.querier.URL)
			if err != nil {
				t.Fatal(err)
			}
			proxy := httputil.NewSingleHostReverseProxy(to)
			proxy.ModifyResponse = func(r *http.Response) error {
				r.Header.Del("Cache-Control")
				return nil
			}
			between := httptest.NewServer(proxy)
			t.Cleanup(between.Close)
			w.frontend.Close()
			direct := w.querier
			w.querier = between
			w.setFrontend(t, standard(w.cache))
			w.querier = direct
		}
		form := rangeForm(`sum by (cluster) (requests_total)`, begin+600_000, begin+5*3600_000, 60_000)
		for round := range 3 {
			for i, c := range w.clusters {
				c.leave(true)
				form.Set("end", seconds(begin+int64(3+round)*3600_000))
				got := ask(t, t.Context(), w.frontend.URL, form, http.Header{})
				if i%2 == 1 && len(missing(alike(got))) == 0 && round == 0 && i == 1 {
					t.Error("a cluster is away and nobody says so")
				}
				if i%2 == 1 { // both replicas of the cluster have been away
					w.clusters[i-1].leave(false)
					c.leave(false)
				}
			}
			w.same(t, "headers "+headers+", once all are back", form)
		}
	}
}

// Shows that ranges that are split into a number of parts, so that the length of parts depends on that of the range, never
// take each other's answers (github.com/thanos-io/thanos issue 7831: the keys of a range of 8 h at 5 min in 12 parts
// of 40 min were made with 2 h).
func TestThreadDynamicSplit(t *testing.T) {
	w := newWorld(t, 7831)
	w.now.Store(begin + length)
	cfg := standard(w.cache)
	cfg.Split = frontend.SplitConfig{Min: 30 * 60_000, Max: 24 * 3600_000, Shards: 12, Parallel: 4}
	w.setFrontend(t, cfg)
	for _, hours := range []int64{1, 2, 5, 3, 5, 4, 1, 2} {
		for _, from := range []int64{0, 20, 40, 60} {
			start := begin + from*60_000
			w.same(t, fmt.Sprintf("%d h from minute %d", hours, from), rangeForm(`sum by (job) (rate(requests_total[5m]))`, start, min(start+hours*3600_000, begin+length-3600_000), 300_000))
		}
	}
	if w.cache.hits == 0 {
		t.Error("the cache was of no use: this shows nothing")
	}
}

// Shows that a shorter range within one that was asked before is not empty, at two frontends that share nothing and over
// time (github.com/thanos-io/thanos issue 8276: four hours began late, and the first of them alone, all from
// the cache, was empty).
func TestThreadEmptyFromTheCache(t *testing.T) {
	w := newWorld(t, 8276)
	w.now.Store(begin + 3*3600_000)
	second := &moody{entries: map[string][]byte{}, rnd: w.cache.rnd}
	cfg := standard(w.cache)
	cfg.Compress = true
	const query = `sum by (instance) (max_over_time(temperature[5m]))`
	for range 12 {
		w.now.Add(13 * 60_000)
		for i, c := range []*moody{w.cache, second} {
			cfg.Cache = c
			w.setFrontend(t, cfg)
			end := w.now.Load() / 60_000 * 60_000
			w.same(t, fmt.Sprintf("frontend %d: two hours", i), rangeForm(query, end-2*3600_000, end, 60_000))
			w.same(t, fmt.Sprintf("frontend %d: the first of them", i), rangeForm(query, end-2*3600_000, end-3600_000, 60_000))
			w.frontend.Close()
		}
	}
	if w.cache.hits == 0 || second.hits == 0 {
		t.Error("the cache was of no use: this shows nothing")
	}
}
