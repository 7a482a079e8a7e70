package prom

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

func writeSampled(w http.ResponseWriter, external labels.Labels, res *prompb.QueryResult) {
	for _, ts := range res.Timeseries {
		b := labels.NewBuilder(labels.EmptyLabels())
		external.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
		for _, l := range ts.Labels { // stored ones win
			b.Set(l.Name, l.Value)
		}
		ts.Labels = prompb.FromLabels(b.Labels(), nil)
	}
	msg, _ := (&prompb.ReadResponse{Results: []*prompb.QueryResult{res}}).Marshal()
	w.Header().Set("Content-Type", "application/x-protobuf")
	w.Header().Set("Content-Encoding", "snappy")
	_, _ = w.Write(snappy.Encode(nil, msg))
}

// The suite of every Store, over streams as Prometheus sends them.
func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		return newFakeProm(t, data).store(t, Config{})
	})
}

// The suite of every Store, with one chunk a frame, so that all longer series come in several.
func TestStoreWithSmallFrames(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		p := newFakeProm(t, data)
		p.frameBytes = 1
		return p.store(t, Config{})
	})
}

// The suite of every Store, over sampled answers as old servers send them.
func TestStoreOverSampledAnswers(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		p := newFakeProm(t, data)
		p.sampled = true
		return p.store(t, Config{})
	})
}

// The suite of every Store, when Prometheus does not tell its label names, so that nothing is proven about
// clashing labels, and is older than 2.24, so that label calls go through series.
func TestStoreWithoutLabelNames(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		p := newFakeProm(t, data)
		return p.store(t, Config{Version: func() string { return "2.23.0" }})
	})
	p := newFakeProm(t, storetest.Common())
	p.noLabels = true
	cur, err := p.store(t, Config{}).Series(t.Context(), everything())
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := store.Drain(cur)
	if err != nil || len(all) != len(storetest.Common().Series) {
		t.Errorf("%d series, %v", len(all), err)
	}
}

func everything() *store.SeriesRequest {
	return &store.SeriesRequest{MinTime: math.MinInt64, MaxTime: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, "__name__", "")}}
}

func drain(st store.Store, req *store.SeriesRequest) ([]*store.Series, store.Warnings, error) {
	cur, err := st.Series(context.Background(), req)
	if err != nil {
		return nil, nil, err
	}
	return store.Drain(cur)
}

// When the label names say that nothing clashes, and a stored label turns up that is named like an external
// one after all, the answer is right, or there is an error that says to ask again: never a wrong order.
func TestSurprisingLabels(t *testing.T) {
	in := func(ls ...string) storetest.Input {
		return storetest.Input{Labels: labels.FromStrings(ls...), Samples: storetest.Floats(2, 0)}
	}
	ext := labels.FromStrings("r", "x")
	for name, c := range map[string]struct {
		series []storetest.Input
		ok     bool
	}{
		"another value":                 {[]storetest.Input{in("__name__", "m", "r", "1"), in("__name__", "m", "r", "2", "z", "1"), in("__name__", "n")}, true},
		"the same value":                {[]storetest.Input{in("__name__", "m", "r", "x"), in("__name__", "m", "r", "x", "z", "1"), in("__name__", "n")}, true},
		"the same value, out of order":  {[]storetest.Input{in("__name__", "m", "a", "1"), in("__name__", "m", "r", "x"), in("__name__", "n")}, true},
		"another value behind the rest": {[]storetest.Input{in("__name__", "m", "a", "1"), in("__name__", "m", "b", "1"), in("__name__", "m", "r", "2")}, true},
		"too late":                      {[]storetest.Input{in("__name__", "m", "r", "x", "z", "1"), in("__name__", "m", "s", "1")}, false},
	} {
		data := storetest.Data{External: ext, Series: c.series}
		p := newFakeProm(t, data)
		p.hideLabels = true
		all, _, err := drain(p.store(t, Config{}), everything())
		for i := 1; i < len(all); i++ {
			if labels.Compare(all[i-1].Labels, all[i].Labels) > 0 {
				t.Errorf("%s: %s comes after %s", name, all[i].Labels, all[i-1].Labels)
			}
		}
		if c.ok && (err != nil || len(all) != len(c.series)) || !c.ok && (err == nil || !strings.Contains(err.Error(), "ask again")) {
			t.Errorf("%s: %d series, error %v", name, len(all), err)
		}
	}
}

// Without external and replica labels nobody is asked for label names; with them it is one call beside the
// read. Matchers on external labels are decided without any call, and so are ranges that are not served.
func TestCalls(t *testing.T) {
	data := storetest.Common()
	p := newFakeProm(t, data)
	client := p.serve(t)
	from, to := storetest.Base, storetest.Base+1000
	st := New(client, func() labels.Labels { return p.external }, func() (int64, int64) { return from, to }, Config{}, log.NewNopLogger(), nil)
	up, no := labels.MustNewMatcher(labels.MatchEqual, "__name__", "up"), labels.MustNewMatcher(labels.MatchEqual, "cluster", "us")
	ask := func(mint, maxt int64, ms ...*labels.Matcher) int {
		t.Helper()
		all, _, err := drain(st, &store.SeriesRequest{MinTime: mint, MaxTime: maxt, Matchers: ms})
		if err != nil {
			t.Error(err)
		}
		return len(all)
	}
	calls := func(reads, names int64) {
		t.Helper()
		if r, n := p.readCalls.Swap(0), p.labelCalls.Swap(0); r != reads || n != names {
			t.Errorf("%d reads and %d calls for label names, want %d and %d", r, n, reads, names)
		}
	}
	if n := ask(from, to, up); n != 4 {
		t.Errorf("%d series", n)
	}
	calls(1, 1)
	if n := ask(math.MinInt64, math.MaxInt64, up); n != 4 {
		t.Errorf("%d series", n)
	}
	calls(1, 1)
	if n := ask(from, to, up, no) + ask(from-10, from-1, up) + ask(to+1, to+10, up); n != 0 {
		t.Errorf("%d series", n)
	}
	calls(0, 0)
	for _, ms := range [][]*labels.Matcher{nil, {labels.MustNewMatcher(labels.MatchEqual, "cluster", "eu")}} {
		if _, _, err := drain(st, &store.SeriesRequest{MinTime: from, MaxTime: to, Matchers: ms}); !errors.Is(err, store.ErrNoMatchers) {
			t.Errorf("without matchers: %v", err)
		}
	}
	calls(0, 0)
	data.External = labels.EmptyLabels()
	p = newFakeProm(t, data)
	st = p.store(t, Config{})
	if n := ask(from, to, up); n != 4 {
		t.Errorf("%d series", n)
	}
	calls(1, 0)
}

// External labels that have changed in Prometheus and not here yet never lead to a wrong order.
func TestStaleExternalLabels(t *testing.T) {
	p := newFakeProm(t, storetest.Common())
	st := New(p.serve(t), labels.EmptyLabels, func() (int64, int64) { return math.MinInt64, math.MaxInt64 }, Config{}, log.NewNopLogger(), nil)
	if _, _, err := drain(st, everything()); store.KindOf(err) != store.KindUnavailable || !strings.Contains(err.Error(), "ask again") {
		t.Errorf("got %v", err)
	}
}

// What the Store says of itself is what the sidecar knows of the Prometheus.
func TestDescribe(t *testing.T) {
	u, _ := url.Parse("http://user:secret@prometheus:9090")
	ext := labels.FromStrings("replica", "a")
	d := New(promapi.New(u, nil, ""), func() labels.Labels { return ext }, func() (int64, int64) { return 5, math.MaxInt64 }, Config{}, log.NewNopLogger(), nil).Describe()
	if d.MinTime != 5 || d.MaxTime != math.MaxInt64 || len(d.LabelSets) != 1 || len(d.TSDBs) != 1 || d.TSDBs[0].MinTime != 5 || d.Name != "http://prometheus:9090" {
		t.Errorf("%+v", d)
	}
}

// A Prometheus that is down is unavailable, and the error says where and what to check. One that refuses
// is quoted, with the kind of its status.
func TestRefusals(t *testing.T) {
	srv := httptest.NewServer(nil)
	u, _ := url.Parse(srv.URL)
	srv.Close()
	st := New(promapi.New(u, nil, ""), func() labels.Labels { return labels.FromStrings("r", "a") }, func() (int64, int64) { return 0, math.MaxInt64 }, Config{}, log.NewNopLogger(), nil)
	names := func(st store.Store) error {
		_, _, err := st.LabelNames(context.Background(), &store.LabelNamesRequest{MaxTime: 1})
		return err
	}
	values := func(st store.Store) error {
		_, _, err := st.LabelValues(context.Background(), &store.LabelValuesRequest{MaxTime: 1, Label: "a"})
		return err
	}
	series := func(skip bool) func(st store.Store) error {
		return func(st store.Store) error {
			req := everything()
			req.SkipChunks = skip
			_, _, err := drain(st, req)
			return err
		}
	}
	for i, f := range []func(store.Store) error{names, values, series(false), series(true)} {
		err := f(st)
		if store.KindOf(err) != store.KindUnavailable || !strings.Contains(err.Error(), u.Host) || !strings.Contains(err.Error(), "check that it runs") {
			t.Errorf("call %d, down: %v", i, err)
		}
	}
	for status, kind := range map[int]store.Kind{400: store.KindBadRequest, 500: store.KindInternal, 503: store.KindUnavailable} {
		p := newFakeProm(t, storetest.Data{External: labels.FromStrings("r", "a")})
		p.read = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "exceeded sample limit (5)", status) }
		err := series(false)(p.store(t, Config{}))
		if store.KindOf(err) != kind || !strings.Contains(err.Error(), "exceeded sample limit (5)") {
			t.Errorf("status %d: kind %d, %v", status, store.KindOf(err), err)
		}
	}
}

// Requests for labels only, and sampled answers, are held within the budget, which is free again at the end.
func TestBudget(t *testing.T) {
	for name, sampled := range map[string]bool{"labels only": false, "sampled": true} {
		p := newFakeProm(t, storetest.Common())
		p.sampled = sampled
		req := everything()
		req.SkipChunks = !sampled
		for bytes, kind := range map[int64]store.Kind{100: store.KindLimit, 1 << 20: store.KindInternal} {
			b := store.NewBudget("memory for series", bytes)
			all, _, err := drain(p.store(t, Config{Budget: b}), req)
			if (err != nil) != (kind == store.KindLimit) || store.KindOf(err) != kind || (err == nil) != (len(all) > 0) {
				t.Errorf("%s within %d bytes: %d series, %v", name, bytes, len(all), err)
			}
			if b.Used() != 0 {
				t.Errorf("%s within %d bytes: %d bytes still reserved", name, bytes, b.Used())
			}
		}
	}
}

// A label that clashes, but of no series that matches, does not make series be held and sorted: they are handed
// out within a budget of nothing.
func TestClashElsewhere(t *testing.T) {
	p := newFakeProm(t, storetest.Data{External: labels.FromStrings("cluster", "eu"), Series: []storetest.Input{
		{Labels: labels.FromStrings("__name__", "federated", "cluster", "us"), Samples: storetest.Floats(2, 0)},
		{Labels: labels.FromStrings("__name__", "up", "a", "1"), Samples: storetest.Floats(2, 0)},
		{Labels: labels.FromStrings("__name__", "up", "a", "2"), Samples: storetest.Floats(2, 0)},
	}})
	st := p.store(t, Config{Budget: store.NewBudget("memory for series", 1)})
	req := everything()
	if _, _, err := drain(st, req); store.KindOf(err) != store.KindLimit {
		t.Errorf("with the federated series: %v", err)
	}
	req.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")}
	if all, _, err := drain(st, req); len(all) != 2 || err != nil {
		t.Errorf("without it: %d series, %v", len(all), err)
	}
}

// A limit on labels only is passed on, unless a shard is asked for, whose series Prometheus can't tell.
func TestLimitOfLabelsOnly(t *testing.T) {
	p := newFakeProm(t, storetest.Common())
	st := p.store(t, Config{})
	for limit, shard := range map[string]*store.Shard{"3": nil, "": {Total: 2, By: false}} {
		req := everything()
		req.SkipChunks, req.Limit, req.Shard = true, 3, shard
		if all, ws, err := drain(st, req); len(all) != 3 || len(ws) > 0 || err != nil {
			t.Errorf("%d series, warnings %v, error %v", len(all), ws, err)
		}
		if got := p.seriesLimit.Load(); got != limit {
			t.Errorf("limit %q, want %q", got, limit)
		}
	}
}

// Versions before 2.24 do not take matchers on labels; unknown ones count as new.
func TestVersions(t *testing.T) {
	for version, want := range map[string]bool{"": true, "odd": true, "2.23.1": false, "1.8.2": false, "2.24.0": true, "2.3": false, "3.0.0-rc.1": true} {
		st := &Store{cfg: Config{Version: func() string { return version }}}
		if st.labelsMatch() != want {
			t.Errorf("%q: %v", version, !want)
		}
	}
}

// Frames are counted per read.
func TestFramesMetric(t *testing.T) {
	p := newFakeProm(t, storetest.Common())
	reg := prometheus.NewRegistry()
	st := New(p.serve(t), func() labels.Labels { return p.external }, func() (int64, int64) { return math.MinInt64, math.MaxInt64 }, Config{}, log.NewNopLogger(), reg)
	if _, _, err := drain(st, everything()); err != nil {
		t.Fatal(err)
	}
	if n, err := testutil.GatherAndCount(reg, "prometheus_store_received_frames"); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	mfs, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	h := mfs[0].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 1 || h.GetSampleSum() != float64(len(storetest.Common().Series)) {
		t.Errorf("got %v", h)
	}
}
