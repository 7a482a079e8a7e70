package tsdb

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// open makes a TSDB in a folder of the test.
func open(t testing.TB, opts *tsdb.Options) *tsdb.DB {
	t.Helper()
	if opts == nil {
		opts = tsdb.DefaultOptions()
		opts.RetentionDuration = math.MaxInt64 / 2
	}
	db, err := tsdb.Open(t.TempDir(), nil, nil, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	db.DisableCompactions()
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// fill appends all samples in the order of time.
func fill(t testing.TB, db *tsdb.DB, series []storetest.Input) {
	t.Helper()
	type sample struct {
		storetest.Sample
		labels labels.Labels
	}
	var all []sample
	for _, s := range series {
		for _, smp := range s.Samples {
			all = append(all, sample{smp, s.Labels})
		}
	}
	slices.SortStableFunc(all, func(a, b sample) int { return int(a.T - b.T) })
	app := db.Appender(t.Context())
	for _, s := range all {
		var err error
		if s.H != nil || s.FH != nil {
			_, err = app.AppendHistogram(0, s.labels, s.T, s.H, s.FH)
		} else {
			_, err = app.Append(0, s.labels, s.T, s.V)
		}
		if err != nil {
			t.Fatalf("append %s at %d: %v", s.labels, s.T, err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

// flush turns the head into a block.
func flush(t testing.TB, db *tsdb.DB) {
	t.Helper()
	h := db.Head()
	if err := db.CompactHead(tsdb.NewRangeHead(h, h.MinTime(), h.MaxTime())); err != nil {
		t.Fatal(err)
	}
}

// The suite of every Store, with all samples in the head.
func TestStoreOverHead(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		db := open(t, nil)
		fill(t, db, data.Series)
		return New(db, data.External, Config{})
	})
}

// The suite of every Store, with all samples in a block.
func TestStoreOverBlock(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		db := open(t, nil)
		fill(t, db, data.Series)
		flush(t, db)
		if n := len(db.Blocks()); n != 1 {
			t.Fatalf("%d blocks", n)
		}
		return New(db, data.External, Config{})
	})
}

// The suite of every Store, with one half of the samples in a block and the other, out of order, in the
// head, so that series come from both and their chunks overlap.
func TestStoreOverBlockAndOutOfOrderHead(t *testing.T) {
	storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
		opts := tsdb.DefaultOptions()
		opts.RetentionDuration = math.MaxInt64 / 2
		opts.OutOfOrderTimeWindow = 4 * time.Hour.Milliseconds()
		db := open(t, opts)
		var odd, even []storetest.Input
		for _, s := range data.Series {
			o, e := storetest.Input{Labels: s.Labels}, storetest.Input{Labels: s.Labels}
			for i, smp := range s.Samples {
				if i%2 == 1 {
					o.Samples = append(o.Samples, smp)
				} else {
					e.Samples = append(e.Samples, smp)
				}
			}
			odd, even = append(odd, o), append(even, e)
		}
		fill(t, db, odd)
		flush(t, db)
		fill(t, db, even)
		return New(db, data.External, Config{})
	})
}

// What a Store says of itself follows its TSDB: nothing, then the oldest sample, also an out-of-order one.
func TestDescribe(t *testing.T) {
	opts := tsdb.DefaultOptions()
	opts.OutOfOrderTimeWindow = time.Hour.Milliseconds()
	db := open(t, opts)
	ext := labels.FromStrings("replica", "a")
	st := New(db, ext, Config{Name: "mine"})
	at := func(ms int64) []storetest.Input {
		return []storetest.Input{{Labels: labels.FromStrings("__name__", "up"), Samples: []storetest.Sample{{T: ms}}}}
	}
	if d := st.Describe(); d.MinTime != math.MaxInt64 || d.MaxTime != math.MaxInt64 || d.Name != "mine" || !d.Local {
		t.Errorf("empty: %+v", d)
	}
	for _, ms := range []int64{storetest.Base, storetest.Base - 1000} {
		fill(t, db, at(ms))
		d := st.Describe()
		if d.MinTime != ms || len(d.LabelSets) != 1 || !labels.Equal(d.LabelSets[0], ext) || len(d.TSDBs) != 1 || d.TSDBs[0].MinTime != ms {
			t.Errorf("with a sample at %d: %+v", ms, d)
		}
	}
	if d := New(db, labels.EmptyLabels(), Config{}).Describe(); len(d.LabelSets) != 0 || len(d.TSDBs) != 0 || d.Name != "tsdb" {
		t.Errorf("without external labels: %+v", d)
	}
}

// Series that have to be sorted stay within the budget, and past it there is a refusal that says so.
func TestBudget(t *testing.T) {
	db := open(t, nil)
	fill(t, db, []storetest.Input{
		{Labels: labels.FromStrings("__name__", "up", "replica", "1"), Samples: storetest.Floats(100, 0)},
		{Labels: labels.FromStrings("__name__", "up", "replica", "2"), Samples: storetest.Floats(100, 0)},
		{Labels: labels.FromStrings("__name__", "other"), Samples: storetest.Floats(100, 0)},
	})
	ask := func(name string, b *store.Budget) error {
		cur, err := New(db, labels.EmptyLabels(), Config{Budget: b}).Series(t.Context(), &store.SeriesRequest{
			MinTime: math.MinInt64, MaxTime: math.MaxInt64,
			Matchers:             []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", name)},
			WithoutReplicaLabels: []string{"replica"},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = store.Drain(cur)
		return err
	}
	big := store.NewBudget("memory for sorting", 1<<20)
	if err := ask("up", big); err != nil || big.Used() != 0 {
		t.Errorf("in a budget: %v, %d bytes still reserved", err, big.Used())
	}
	if err := ask("up", store.NewBudget("memory for sorting", 100)); store.KindOf(err) != store.KindLimit {
		t.Errorf("past a budget: %v", err)
	}
	// Of the series that match, none has the label: nothing needs to be held.
	if err := ask("other", store.NewBudget("memory for sorting", 1)); err != nil {
		t.Errorf("clash elsewhere: %v", err)
	}
}

type querier = storage.ChunkQuerier

// broken is a TSDB of which each part fails.
type broken struct {
	querier
	open, names, selecting, closing error
	closed                          int
}

func (b *broken) StartTime() (int64, error) { return 0, errors.New("no start") }
func (b *broken) ChunkQuerier(int64, int64) (storage.ChunkQuerier, error) {
	if b.open != nil {
		return nil, b.open
	}
	return b, nil
}

func (b *broken) LabelNames(_ context.Context, _ *storage.LabelHints, _ ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, b.names
}

func (b *broken) Select(context.Context, bool, *storage.SelectHints, ...*labels.Matcher) storage.ChunkSeriesSet {
	if b.selecting != nil {
		return storage.ErrChunkSeriesSet(b.selecting)
	}
	return storage.EmptyChunkSeriesSet()
}

func (b *broken) Close() error { b.closed++; return b.closing }

// A TSDB that fails anywhere gives its error to the caller, and its querier is closed all the same.
func TestFailures(t *testing.T) {
	boom := errors.New("boom")
	for name, b := range map[string]*broken{"open": {open: boom}, "names": {names: boom}, "select": {selecting: boom}, "close": {closing: boom}} {
		st := New(b, labels.FromStrings("r", "1"), Config{})
		cur, err := st.Series(t.Context(), &store.SeriesRequest{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", "b")}})
		if err == nil {
			for cur.Next() {
				t.Errorf("%s: a series", name)
			}
			err = errors.Join(cur.Err(), cur.Close())
		}
		if !errors.Is(err, boom) || store.KindOf(err) != store.KindInternal {
			t.Errorf("%s: got %v", name, err)
		}
		if b.open == nil && b.closed != 1 {
			t.Errorf("%s: closed %d times", name, b.closed)
		}
	}
	if d := New(&broken{}, labels.EmptyLabels(), Config{}).Describe(); d.MinTime != math.MinInt64 {
		t.Errorf("start unknown: %+v", d)
	}
}

// Labels and lists outlive the block that they came from.
func TestResultsOutliveBlocks(t *testing.T) {
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = math.MaxInt64 / 2
	db := open(t, opts)
	fill(t, db, storetest.Common().Series)
	flush(t, db)
	st := New(db, labels.EmptyLabels(), Config{})
	values, _, err := st.LabelValues(t.Context(), &store.LabelValuesRequest{Label: "__name__", MinTime: math.MinInt64, MaxTime: math.MaxInt64})
	if err != nil || len(values) == 0 {
		t.Fatal(values, err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(values, "up") || !slices.IsSorted(values) { // reading unmapped memory would crash
		t.Errorf("got %q", values)
	}
}

// BenchmarkSeries reads 1,000 series of one chunk each from the head.
func BenchmarkSeries(b *testing.B) {
	db := open(b, nil)
	var in []storetest.Input
	for i := range 1000 {
		in = append(in, storetest.Input{
			Labels:  labels.FromStrings("__name__", "requests_total", "instance", "h"+string(rune('a'+i%26))+":9090", "path", string(rune('a'+i/26))),
			Samples: storetest.Floats(100, float64(i)),
		})
	}
	fill(b, db, in)
	for name, ext := range map[string]labels.Labels{"plain": labels.EmptyLabels(), "external": labels.FromStrings("cluster", "eu", "replica", "a")} {
		b.Run(name, func(b *testing.B) {
			st := New(db, ext, Config{})
			req := &store.SeriesRequest{MinTime: storetest.Base, MaxTime: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "requests_total")}}
			b.ReportAllocs()
			for b.Loop() {
				cur, err := st.Series(b.Context(), req)
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				for cur.Next() {
					n++
				}
				if cur.Err() != nil || n != len(in) {
					b.Fatal(n, cur.Err())
				}
				cur.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(in)), "ns/series")
		})
	}
}

// Shows that a request stays as it is: its matchers are shared by all Stores that are asked at the same time, and the
// TSDB sorts those that it is given (it looks at plain ones before regular expressions).
func TestMatchersStayInOrder(t *testing.T) {
	db := open(t, nil)
	fill(t, db, []storetest.Input{{Labels: labels.FromStrings("__name__", "m", "a", "1"), Samples: []storetest.Sample{{T: 1000, V: 1}}}})
	s := New(db, labels.FromStrings("replica", "0"), Config{})
	ms := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchNotRegexp, "a", "2.*"),
		labels.MustNewMatcher(labels.MatchRegexp, "a", ".*"),
		labels.MustNewMatcher(labels.MatchNotEqual, "b", "1"),
		labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"),
	}
	before := slices.Clone(ms)
	cur, err := s.Series(t.Context(), &store.SeriesRequest{MinTime: 0, MaxTime: 2000, Matchers: ms})
	if err != nil {
		t.Fatal(err)
	}
	if all, _, err := store.Drain(cur); err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if _, _, err := s.LabelNames(t.Context(), &store.LabelNamesRequest{MinTime: 0, MaxTime: 2000, Matchers: ms}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "replica"} {
		if _, _, err := s.LabelValues(t.Context(), &store.LabelValuesRequest{Label: name, MinTime: 0, MaxTime: 2000, Matchers: ms}); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(ms, before) {
		t.Errorf("matchers are %v, were %v", ms, before)
	}
}
