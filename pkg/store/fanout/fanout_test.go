package fanout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// over makes a Store over fixed ones.
func over(cfg Config, stores ...store.Store) *Store {
	return New(func() []store.Store { return stores }, cfg, log.NewNopLogger(), nil)
}

// halves splits data among two Stores: every third series is in both.
func halves(data storetest.Data) (a, b storetest.Data) {
	a.External, b.External = data.External, data.External
	for i, s := range data.Series {
		if i%3 != 1 {
			a.Series = append(a.Series, s)
		}
		if i%3 != 2 {
			b.Series = append(b.Series, s)
		}
	}
	return a, b
}

// A fan-out over two overlapping halves of the data is a Store like one over all of it, with and without
// a timeout, and so is a fan-out over fan-outs.
func TestConformance(t *testing.T) {
	t.Run("halves", func(t *testing.T) {
		storetest.Run(t, func(_ testing.TB, data storetest.Data) store.Store {
			a, b := halves(data)
			return over(Config{}, storetest.New(a), storetest.New(b))
		})
	})
	t.Run("stacked", func(t *testing.T) {
		storetest.Run(t, func(_ testing.TB, data storetest.Data) store.Store {
			a, b := halves(data)
			return over(Config{ResponseTimeout: time.Minute},
				over(Config{}, storetest.New(a)), over(Config{ResponseTimeout: time.Minute}, storetest.New(b), storetest.New(a)))
		})
	})
}

// fake is a Store of some label sets that answers with its name as the value of the label "from", and
// fails as told.
type fake struct {
	desc store.Description

	openErr  error // of Series and the label calls
	hangs    bool  // …instead: until the context ends
	panics   bool
	readErr  error // after two series
	stalls   bool  // …instead: until the context ends
	warning  error // at the end
	empty    bool
	gives    string // the value of "from", if it is not the name
	failures int    // if above zero, openErr is over after so many
	delay    time.Duration
	requests []store.SeriesRequest
}

func named(name string, sets ...labels.Labels) *fake {
	return &fake{desc: store.Description{Name: name, MinTime: 0, MaxTime: 1000, LabelSets: sets}}
}

func (f *fake) from() string {
	if f.gives != "" {
		return f.gives
	}
	return f.desc.Name
}

func (f *fake) Describe() store.Description { return f.desc }

func (f *fake) call(ctx context.Context) error {
	if f.panics {
		panic("out of luck")
	}
	if f.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.delay > 0 {
		select {
		case <-time.After(f.delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.failures > 0 && len(f.requests) > f.failures {
		return nil
	}
	return f.openErr
}

func (f *fake) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	f.requests = append(f.requests, *req)
	if err := f.call(ctx); err != nil {
		return nil, err
	}
	c := &fakeCursor{f: f, ctx: ctx}
	for i := range 3 {
		c.all = append(c.all, &store.Series{Labels: labels.FromStrings("n", fmt.Sprint(i), "from", f.from())})
	}
	if f.empty {
		c.all = nil
	}
	return c, nil
}

func (f *fake) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	f.requests = append(f.requests, store.SeriesRequest{Matchers: req.Matchers})
	if err := f.call(ctx); err != nil {
		return nil, nil, err
	}
	if f.warning != nil {
		return []string{"from", f.desc.Name}, store.Warnings{f.warning}, nil
	}
	return []string{"from", f.desc.Name}, nil, nil
}

func (f *fake) LabelValues(ctx context.Context, _ *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	return f.LabelNames(ctx, &store.LabelNamesRequest{})
}

type fakeCursor struct {
	f   *fake
	ctx context.Context
	all []*store.Series
	at  *store.Series
	n   int
	err error
}

func (c *fakeCursor) Next() bool {
	switch {
	case c.err != nil:
		return false
	case c.n == 2 && c.f.stalls:
		<-c.ctx.Done()
		c.err = c.ctx.Err()
		return false
	case c.n == 2 && c.f.readErr != nil:
		c.err = c.f.readErr
		return false
	case c.n == len(c.all):
		return false
	}
	c.at = c.all[c.n]
	c.n++
	return true
}

func (c *fakeCursor) At() *store.Series { return c.at }
func (c *fakeCursor) Err() error        { return c.err }
func (c *fakeCursor) Close() error      { return nil }

func (c *fakeCursor) Warnings() store.Warnings {
	if c.f.warning == nil {
		return nil
	}
	return store.Warnings{c.f.warning}
}

func eq(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}

func request(ms ...*labels.Matcher) *store.SeriesRequest {
	return &store.SeriesRequest{MinTime: 10, MaxTime: 2000, Matchers: append(ms, eq("__name__", "up"))}
}

// from drains an answer into how many series came from each Store.
func from(cur store.Cursor) (map[string]int, store.Warnings, error) {
	all, ws, err := store.Drain(cur)
	n := map[string]int{}
	for _, s := range all {
		n[s.Labels.Get("from")]++
	}
	return n, ws, err
}

// A Store that fails at once, hangs, breaks off or stalls costs only what it would still have given; a
// gap names its labels and the part of the request's time that it covers.
func TestFailuresWarn(t *testing.T) {
	boom := errors.New("boom")
	f := func(what string, bad *fake, got int, text string) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			bad.desc.Name, bad.desc.LabelSets = "bad", []labels.Labels{labels.FromStrings("a", "b"), labels.FromStrings("a", "c")}
			bad.desc.MaxTime = 1000
			st := over(Config{ResponseTimeout: 20 * time.Millisecond}, named("one"), bad, named("two"))
			cur, err := st.Series(t.Context(), request(eq("a", "b")))
			if err != nil {
				t.Fatal(err)
			}
			n, ws, err := from(cur)
			want := map[string]int{"one": 3, "two": 3, "bad": got}
			if got == 0 {
				delete(want, "bad")
			}
			if diff := cmp.Diff(want, n); diff != "" || err != nil {
				t.Errorf("error %v, series (-want +got):\n%s", err, diff)
			}
			if len(ws) != 1 {
				t.Fatalf("warnings %v, want one", ws)
			}
			var gap *store.Gap
			if !errors.As(ws[0], &gap) {
				t.Fatalf("%v is no gap", ws[0])
			}
			if gap.Store != "bad" || gap.MinTime != 10 || gap.MaxTime != 1000 || fmt.Sprint(gap.LabelSets) != `[{a="b"}]` || !strings.Contains(gap.Err.Error(), text) {
				t.Errorf("the gap is %+v", gap)
			}
		})
	}
	f("refuses", &fake{openErr: boom}, 0, "open series: boom")
	f("refuses the request", &fake{openErr: store.ErrNoMatchers}, 0, "no matchers")
	f("hangs", &fake{hangs: true}, 0, "open series: nothing received for 20ms")
	f("panics", &fake{panics: true}, 0, "open series: panic: out of luck")
	f("breaks off", &fake{readErr: boom}, 2, "read series: boom")
	f("stalls", &fake{stalls: true}, 2, "read series: nothing received for 20ms")
}

// Where all or nothing is asked for, each of these, and even a warning from below, ends the request.
func TestFailuresAbort(t *testing.T) {
	boom := errors.New("boom")
	for text, bad := range map[string]*fake{
		"open series: boom":                  {openErr: boom},
		"open series: nothing received":      {hangs: true},
		"read series: boom":                  {readErr: boom},
		"read series: nothing received":      {stalls: true},
		"careful":                            {warning: errors.New("careful")},
		"no matchers specified (excluding e": {openErr: store.ErrNoMatchers},
	} {
		t.Run(text, func(t *testing.T) {
			bad.desc.MaxTime = 1000
			st := over(Config{ResponseTimeout: 20 * time.Millisecond}, named("one"), bad)
			req := request()
			req.PartialResponse = store.Abort
			cur, err := st.Series(t.Context(), req)
			if err == nil {
				_, _, err = from(cur)
			}
			if err == nil || store.KindOf(err) != store.KindAborted || !strings.Contains(err.Error(), text) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// The label calls fail in the same two ways.
func TestLabelCallFailures(t *testing.T) {
	boom := errors.New("boom")
	for text, bad := range map[string]*fake{
		"boom":               {openErr: boom},
		"nothing received":   {hangs: true},
		"panic: out of luck": {panics: true},
		"careful":            {warning: errors.New("careful")},
	} {
		bad.desc = store.Description{Name: "bad", MaxTime: 1000}
		st := over(Config{ResponseTimeout: 20 * time.Millisecond}, named("one"), bad, named("two"))
		for _, pr := range []store.PartialResponse{store.Warn, store.Abort} {
			got, ws, err := st.LabelNames(t.Context(), &store.LabelNamesRequest{MaxTime: 5, PartialResponse: pr})
			if pr == store.Abort {
				if store.KindOf(err) != store.KindAborted || !strings.Contains(err.Error(), text) {
					t.Errorf("%s: error %v", text, err)
				}
				continue
			}
			want := []string{"from", "one", "two"}
			if text == "careful" {
				want = []string{"bad", "from", "one", "two"}
			}
			if diff := cmp.Diff(want, got); diff != "" || err != nil || len(ws) != 1 || !strings.Contains(ws[0].Error(), text) {
				t.Errorf("%s: warnings %v, error %v (-want +got):\n%s", text, ws, err, diff)
			}
		}
	}
}

// A request that no Store would take is the request's fault under both ways; the end of its context ends
// it with the context's error, whether it is being opened or read.
func TestRequestsFault(t *testing.T) {
	for _, pr := range []store.PartialResponse{store.Warn, store.Abort} {
		req := request()
		req.PartialResponse = pr
		st := over(Config{}, &fake{openErr: store.ErrNoMatchers, desc: named("a").desc}, &fake{openErr: store.ErrNoMatchers, desc: named("b").desc})
		if _, err := st.Series(t.Context(), req); store.KindOf(err) != store.KindBadRequest {
			t.Errorf("series: error %v", err)
		}
		if _, _, err := st.LabelNames(t.Context(), &store.LabelNamesRequest{MaxTime: 5, PartialResponse: pr}); store.KindOf(err) != store.KindBadRequest {
			t.Errorf("label names: error %v", err)
		}
		for _, bad := range []*fake{{hangs: true}, {stalls: true}} {
			bad.desc.MaxTime = 1000
			ctx, cancel := context.WithCancelCause(t.Context())
			gone := errors.New("the client is gone")
			time.AfterFunc(10*time.Millisecond, func() { cancel(gone) })
			cur, err := over(Config{}, named("a"), bad).Series(ctx, req)
			if err == nil {
				_, _, err = from(cur)
			}
			if !errors.Is(err, gone) {
				t.Errorf("error %v, want that of the context", err)
			}
		}
	}
	st := over(Config{SelectorLabels: labels.FromStrings("q", "1")}, named("a"))
	if _, err := st.Series(t.Context(), &store.SeriesRequest{MaxTime: 5, Matchers: []*labels.Matcher{eq("q", "1")}}); store.KindOf(err) != store.KindBadRequest {
		t.Errorf("only selector labels: error %v", err)
	}
}

// Without any Store an answer says that it is empty for want of Stores; all-or-nothing fails, but not for
// the label calls. With Stores of which none has anything, the answer is just empty.
func TestNoStores(t *testing.T) {
	req := request()
	cur, err := over(Config{}).Series(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if _, ws, err := from(cur); err != nil || len(ws) != 1 || ws[0].Error() != "No StoreAPIs available" {
		t.Errorf("warnings %v, error %v", ws, err)
	}
	req.PartialResponse = store.Abort
	if _, err := over(Config{}).Series(t.Context(), req); err == nil || err.Error() != "No StoreAPIs available" {
		t.Errorf("error %v", err)
	}
	if got, ws, err := over(Config{}).LabelNames(t.Context(), &store.LabelNamesRequest{PartialResponse: store.Abort}); len(got) > 0 || len(ws) != 1 || err != nil {
		t.Errorf("label names %v, warnings %v, error %v", got, ws, err)
	}
	req.MinTime = 1001
	cur, err = over(Config{}, named("a")).Series(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if n, ws, err := from(cur); len(n) > 0 || len(ws) > 0 || err != nil {
		t.Errorf("series %v, warnings %v, error %v", n, ws, err)
	}
}

// A limit holds over all Stores together, and streams without a series are counted.
func TestLimitAndEmptyStreams(t *testing.T) {
	empty := named("empty")
	empty.empty = true
	reg := prometheus.NewRegistry()
	st := New(func() []store.Store { return []store.Store{named("a"), empty, named("b")} }, Config{}, log.NewNopLogger(), reg)
	req := request()
	req.Limit = 4
	cur, err := st.Series(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if n, _, err := from(cur); n["a"]+n["b"] != 4 || err != nil {
		t.Errorf("series %v, error %v", n, err)
	}
	want := `
# HELP thanos_proxy_store_empty_stream_responses_total Answers of a single store that held no series.
# TYPE thanos_proxy_store_empty_stream_responses_total counter
thanos_proxy_store_empty_stream_responses_total 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "thanos_proxy_store_empty_stream_responses_total"); err != nil {
		t.Error(err)
	}
}

// The union of what the Stores hold carries the selector labels, leaves out what relabelling drops, and
// does not hide a Store of unknown labels behind those of others.
func TestDescribe(t *testing.T) {
	a := named("a", labels.FromStrings("c", "2"), labels.FromStrings("c", "1"))
	a.desc.TSDBs = []store.TSDB{{Labels: labels.FromStrings("c", "1"), MinTime: 0, MaxTime: 7}, {Labels: labels.FromStrings("c", "2"), MinTime: 7, MaxTime: 1000}}
	b := named("b", labels.FromStrings("c", "1"))
	b.desc.MinTime, b.desc.MaxTime = -5, 500
	nothing := named("nothing")
	nothing.desc.MinTime, nothing.desc.MaxTime = math.MaxInt64, math.MinInt64
	sel := labels.FromStrings("q", "x")
	f := func(what string, cfg Config, stores []store.Store, sets string, mint, maxt int64, tsdbs int) {
		t.Helper()
		d := over(cfg, stores...).Describe()
		if fmt.Sprint(d.LabelSets) != sets || d.MinTime != mint || d.MaxTime != maxt || len(d.TSDBs) != tsdbs {
			t.Errorf("%s: %+v", what, d)
		}
	}
	f("none", Config{}, nil, "[]", math.MinInt64, math.MaxInt64, 0)
	f("none, selector", Config{SelectorLabels: sel}, nil, `[{q="x"}]`, math.MinInt64, math.MaxInt64, 0)
	f("two", Config{}, []store.Store{a, b, nothing}, `[{c="1"} {c="2"}]`, -5, 1000, 2)
	f("two, selector", Config{SelectorLabels: sel}, []store.Store{a, b}, `[{c="1", q="x"} {c="2", q="x"}]`, -5, 1000, 2)
	f("relabelled", Config{Relabel: parse(t, keepC1)}, []store.Store{a, b}, `[{c="1"}]`, -5, 1000, 1)
	f("unknown", Config{}, []store.Store{a, named("?")}, `[]`, 0, 1000, 2)
	f("unknown, selector", Config{SelectorLabels: sel}, []store.Store{a, named("?")}, `[{c="1", q="x"} {c="2", q="x"} {q="x"}]`, 0, 1000, 2)
	f("nothing", Config{}, []store.Store{nothing}, "[]", math.MaxInt64, math.MinInt64, 0)
}
