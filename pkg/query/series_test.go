package query

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

type point struct {
	T int64
	V float64
}

func encodeXOR(ps ...point) store.Payload {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		panic(err)
	}
	for _, p := range ps {
		app.Append(p.T, p.V)
	}
	return store.Payload{Encoding: chunkenc.EncXOR, Data: slices.Clone(c.Bytes())}
}

func raw(ps ...point) store.Chunk {
	return store.Chunk{MinTime: ps[0].T, MaxTime: ps[len(ps)-1].T, Raw: encodeXOR(ps...)}
}

// downsampled makes the aggregate chunk of a batch of raw samples by the documented format: one sample
// per window, and the counter with its first raw sample before and its last raw value behind.
func downsampled(window int64, ps ...point) store.Chunk {
	var count, sum, low, high, counter []point
	total, last := ps[0].V, ps[0].V
	counter = append(counter, ps[0])
	for i := 0; i < len(ps); {
		end := ps[i].T - ps[i].T%window + window - 1
		n, s, lo, hi := 0.0, 0.0, math.Inf(1), math.Inf(-1)
		for ; i < len(ps) && ps[i].T <= end; i++ {
			v := ps[i].V
			n, s, lo, hi = n+1, s+v, min(lo, v), max(hi, v)
			if v < last {
				total += v
			} else {
				total += v - last
			}
			last = v
		}
		at := min(end, ps[len(ps)-1].T)
		count, sum, low, high = append(count, point{at, n}), append(sum, point{at, s}), append(low, point{at, lo}), append(high, point{at, hi})
		counter = append(counter, point{at, total})
	}
	at := count[len(count)-1].T
	counter = append(counter, point{at, last})
	return store.Chunk{MinTime: count[0].T, MaxTime: at, Aggrs: &store.Aggregates{
		Count: encodeXOR(count...), Sum: encodeXOR(sum...), Min: encodeXOR(low...), Max: encodeXOR(high...), Counter: encodeXOR(counter...),
	}}
}

// read walks over a series of the chunks as a select for the PromQL function would.
func read(t *testing.T, function string, opts Options, mint, maxt int64, chunks ...store.Chunk) ([]point, error) {
	t.Helper()
	r := readingOf(&opts, dedup.Stay, &storage.SelectHints{Func: function})
	r.mint, r.maxt = mint, maxt
	s := &series{labels: labels.FromStrings("a", "b"), chunks: store.SortChunks(chunks), reading: &r}
	it := s.Iterator(nil)
	var ps []point
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		at, v := it.At()
		ps = append(ps, point{at, v})
	}
	if it.Next() != chunkenc.ValNone {
		t.Error("a sample after the end")
	}
	// Seek finds what Next found.
	for _, p := range ps {
		if seeker := s.Iterator(it); seeker.Seek(p.T) == chunkenc.ValNone || seeker.AtT() != p.T {
			t.Errorf("%s: seek %d did not find it", function, p.T)
		}
	}
	return ps, s.Iterator(it).Err()
}

const minute = int64(60_000)

// Shows which aggregate each function reads from downsampled chunks, that raw chunks among them stay raw,
// and that samples outside the wanted times are left out.
func TestAggregates(t *testing.T) {
	five := 5 * minute
	batch := downsampled(five, point{minute, 4}, point{2 * minute, 2}, point{6 * minute, 10}, point{7 * minute, 20}, point{8 * minute, 0})
	f := func(function string, mint, maxt int64, want ...point) {
		t.Helper()
		got, err := read(t, function, Options{}, mint, maxt, batch, raw(point{11 * minute, 7}, point{12 * minute, 8}))
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", function, got, err, want)
		}
	}
	const all = math.MaxInt64
	one, two := five-1, 8*minute
	f("", 0, all, point{one, 3}, point{two, 10}, point{11 * minute, 7}, point{12 * minute, 8})
	f("avg_over_time", 0, 11*minute, point{one, 3}, point{two, 10}, point{11 * minute, 7})
	f("sum", one+1, all, point{two, 10}, point{11 * minute, 7}, point{12 * minute, 8})
	f("min_over_time", 0, two, point{one, 2}, point{two, 0})
	f("min", 0, two, point{one, 2}, point{two, 0})
	f("max_over_time", 0, two, point{one, 4}, point{two, 20})
	f("count_over_time", 0, two, point{one, 2}, point{two, 3})
	f("sum_over_time", 0, two, point{one, 6}, point{two, 30})
	// 4, then 2 after a restart; 10, 20, then 0 after another. Then the raw 7 and 8.
	f("rate", 0, all, point{minute, 4}, point{one, 6}, point{two, 24}, point{11 * minute, 31}, point{12 * minute, 32})

	missing := batch
	missing.Aggrs = &store.Aggregates{Min: batch.Aggrs.Min}
	for _, function := range []string{"", "max", "rate", "count"} {
		if _, err := readErr(t, function, missing); err == nil || !strings.Contains(err.Error(), "no valid chunk found") || !strings.Contains(err.Error(), `{a="b"}`) {
			t.Errorf("%q without its aggregate: %v", function, err)
		}
	}
	odd := batch
	odd.Aggrs = &store.Aggregates{Count: encodeXOR(point{1, 1}), Sum: encodeXOR(point{2, 1})}
	if _, err := readErr(t, "", odd); err == nil || !strings.Contains(err.Error(), "different timestamps") {
		t.Errorf("sum and count that do not align: %v", err)
	}
}

func readErr(t *testing.T, function string, c store.Chunk) (int, error) {
	t.Helper()
	r := readingOf(&Options{}, dedup.Stay, &storage.SelectHints{Func: function})
	r.maxt = math.MaxInt64
	it := (&series{labels: labels.FromStrings("a", "b"), chunks: []store.Chunk{c}, reading: &r}).Iterator(nil)
	n := 0
	for it.Next() != chunkenc.ValNone {
		n++
	}
	return n, it.Err()
}

// Shows that a counter read over raw and downsampled chunks in any mixture grows exactly as the counter did:
// random counters with restarts, cut at random.
func TestTotals(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var ps []point
		truth, v := 0.0, 0.0
		for i := range int64(300) {
			if rnd.IntN(20) == 0 {
				v = 0
			}
			v += float64(rnd.IntN(100))
			ps = append(ps, point{i*minute + 1, v})
		}
		for i := 1; i < len(ps); i++ {
			if ps[i].V < ps[i-1].V {
				truth += ps[i].V
			} else {
				truth += ps[i].V - ps[i-1].V
			}
		}
		var chunks []store.Chunk
		for rest := ps; len(rest) > 0; {
			n := min(len(rest), 1+rnd.IntN(80))
			if seed%2 == 0 || rnd.IntN(2) == 0 {
				chunks = append(chunks, downsampled(5*minute, rest[:n]...))
			} else {
				chunks = append(chunks, raw(rest[:n]...))
			}
			rest = rest[n:]
		}
		got, err := read(t, "increase", Options{}, math.MinInt64, math.MaxInt64, chunks...)
		if err != nil {
			t.Fatal(err)
		}
		allRaw := !slices.ContainsFunc(chunks, func(c store.Chunk) bool { return !c.Raw.Present() })
		if grown := got[len(got)-1].V - got[0].V; !allRaw && grown != truth {
			t.Fatalf("seed %d: grew by %g, want %g", seed, grown, truth)
		}
		for i := 1; i < len(got); i++ {
			if !allRaw && (got[i].T <= got[i-1].T || got[i].V < got[i-1].V) {
				t.Fatalf("seed %d: %v after %v", seed, got[i], got[i-1])
			}
		}
	}
}

// Shows that downsampled replicas with holes add up to the growth of the counter, though their totals start
// at different times: no fall and no jump where the replica changes.
func TestTotalsOfReplicas(t *testing.T) {
	var a, b []point
	for i := range int64(600) {
		v := float64(i * 10)
		if i >= 50 {
			v = float64((i - 50) * 10) // a restart that only the first replica saw
		}
		if i < 200 || i >= 400 {
			a = append(a, point{i * minute, v})
		}
		if i >= 120 {
			b = append(b, point{i*minute + 20_000, v})
		}
	}
	var chunks []store.Chunk
	for _, ps := range [][]point{a[:100], a[100:200], a[200:300], a[300:], b[:160], b[160:320], b[320:]} {
		chunks = append(chunks, downsampled(5*minute, ps...))
	}
	got, err := read(t, "increase", Options{Dedup: true, ReplicaLabels: []string{"replica"}}, math.MinInt64, math.MaxInt64, chunks...)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(got); i++ {
		d, dt := got[i].V-got[i-1].V, got[i].T-got[i-1].T
		if d < 0 || d > float64(dt)/float64(minute)*10+100 {
			t.Errorf("from %v to %v", got[i-1], got[i])
		}
		if dt > 11*minute {
			t.Errorf("a hole from %v to %v", got[i-1], got[i])
		}
	}
	if grown := got[len(got)-1].V - got[0].V; math.Abs(grown-5990) > 150 {
		t.Errorf("grew by %g, want about 5990", grown)
	}
}

// Shows that each lane holds one replica's chunks, from outage to outage, though both could go on.
func TestLanes(t *testing.T) {
	scrape := func(phase, from, n int64) store.Chunk {
		var ps []point
		for i := range n {
			ps = append(ps, point{phase + (from+i)*15_000, 1})
		}
		return raw(ps...)
	}
	var cs []store.Chunk
	for i := range int64(10) {
		cs = append(cs, scrape(0, i*120, 120), scrape(4_000, i*120, 100), scrape(4_000, i*120+100, 20), scrape(11_000, i*120+7, 120))
	}
	cs = store.SortChunks(cs)
	var all []int32
	for i := range cs {
		all = append(all, int32(i))
	}
	lanes := split(cs, all, nil)
	if len(lanes) != 3 {
		t.Fatalf("%d lanes", len(lanes))
	}
	for _, l := range lanes {
		for _, i := range l.chunks {
			if phase := cs[i].MinTime % 15_000; phase != cs[l.chunks[0]].MinTime%15_000 {
				t.Errorf("phase %d in the lane of %d", phase, cs[l.chunks[0]].MinTime%15_000)
			}
		}
	}
	if !slices.EqualFunc(split(cs, all, split(cs, all[:7], nil)), lanes, func(a, b lane) bool { return slices.Equal(a.chunks, b.chunks) }) {
		t.Error("lanes that were used before give another result")
	}
}

// Shows that chunks of one series which overlap are merged without deduplication too: no sample is lost
// and none is doubled.
func TestOverlapWithoutDedup(t *testing.T) {
	got, err := read(t, "", Options{}, 20, 80, raw(point{10, 1}, point{30, 3}, point{50, 5}), raw(point{20, 2}, point{30, 3}, point{60, 6}, point{90, 9}), raw(point{55, 55}))
	if want := []point{{20, 2}, {30, 3}, {50, 5}, {55, 55}, {60, 6}}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

// Shows how the resolution of data that a query may use raises the lookback, and caps the range functions'.
func TestResolution(t *testing.T) {
	look := func(c Config, resolution, want time.Duration) {
		t.Helper()
		if got := c.Lookback(resolution.Milliseconds()); got != want {
			t.Errorf("lookback of %+v at %s: got %s, want %s", c, resolution, got, want)
		}
	}
	look(Config{DynamicLookback: true}, 0, 0)
	look(Config{DynamicLookback: true}, 5*time.Minute, 5*time.Minute)
	look(Config{DynamicLookback: true}, time.Hour, time.Hour)
	look(Config{DynamicLookback: true, LookbackDelta: 10 * time.Minute}, 5*time.Minute, 10*time.Minute)
	look(Config{DynamicLookback: true, LookbackDelta: 2 * time.Minute}, 5*time.Minute, 5*time.Minute)
	look(Config{DynamicLookback: true, LookbackDelta: 2 * time.Hour}, time.Hour, 2*time.Hour)
	look(Config{LookbackDelta: 2 * time.Minute}, time.Hour, 2*time.Minute)

	resolution := func(function string, rng, asked, want int64) {
		t.Helper()
		if got := maxResolution(asked, &storage.SelectHints{Func: function, Range: rng}); got != want {
			t.Errorf("%s[%d]: got %d, want %d", function, rng, got, want)
		}
	}
	resolution("rate", 10*minute, 60*minute, 5*minute)
	resolution("rate", 10*minute, minute, minute)
	resolution("max_over_time", 10*minute, 60*minute, 60*minute)
	resolution("sum", 0, 60*minute, 60*minute)
}

// Shows what the Store is asked by queries of both engines.
func TestRequest(t *testing.T) {
	st := &recorder{Store: storetest.New(storetest.Data{Series: shop()})}
	q := newQuerier(t, st, Config{})
	opts := Options{Dedup: true, ReplicaLabels: []string{"replica"}, MaxResolution: 60 * minute, PartialResponse: store.Abort, Shard: &store.Shard{Total: 1}}
	for _, engine := range []string{EnginePrometheus, EngineThanos} {
		res, err := q.Exec(t.Context(), Request{Options: opts, Expr: `rate(requests_total{code="200"}[4m] offset 1m)`, Start: time.UnixMilli(base + 20*minute), End: time.UnixMilli(base + 30*minute), Step: time.Minute, Engine: engine})
		if err != nil {
			t.Fatal(err)
		}
		res.Close()
		got := st.last
		// Both engines open the range on the left. Replicas are read beyond it.
		reach := dedup.Reach(2 * minute)
		if from := got.MinTime + reach; from < base+15*minute || from > base+15*minute+1 || got.MaxTime != base+29*minute+reach {
			t.Errorf("%s: from %d to %d", engine, got.MinTime-base, got.MaxTime-base)
		}
		if got.MaxResolution != 2*minute || !slices.Equal(got.Aggregates, []store.Aggr{store.AggrCounter}) || !slices.Equal(got.WithoutReplicaLabels, opts.ReplicaLabels) ||
			got.PartialResponse != store.Abort || got.Shard == nil || got.BatchSize != 64 || len(got.Matchers) != 2 || got.SkipChunks {
			t.Errorf("%s: %+v", engine, got)
		}
	}
}

type recorder struct {
	store.Store
	last *store.SeriesRequest
}

func (r *recorder) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	r.last = req
	return r.Store.Series(ctx, req)
}

// Shows that no bytes make the decoder panic, run on or allocate without bound, and that histograms it
// accepts can be handed out.
func FuzzDecode(f *testing.F) {
	f.Add(byte(1), encodeXOR(point{1, 2}, point{3, 4}, point{5, 4}, point{8, 4.5}).Data)
	f.Add(byte(1), []byte{0, 9, 1, 2, 3})
	for _, float := range []bool{false, true} {
		h := &histogram.Histogram{
			Schema: 1, ZeroThreshold: 0.001, ZeroCount: 1, Count: 11, Sum: 10,
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 1}}, PositiveBuckets: []int64{2, 1, 0},
			NegativeSpans: []histogram.Span{{Offset: 0, Length: 1}}, NegativeBuckets: []int64{2},
		}
		var c chunkenc.Chunk = chunkenc.NewHistogramChunk()
		if float {
			c = chunkenc.NewFloatHistogramChunk()
		}
		app, err := c.Appender()
		if err != nil {
			f.Fatal(err)
		}
		for i := range int64(5) {
			if float {
				_, _, app, err = app.AppendFloatHistogram(nil, i, h.ToFloat(nil), false)
			} else {
				_, _, app, err = app.AppendHistogram(nil, i, h, false)
			}
			if err != nil {
				f.Fatal(err)
			}
		}
		f.Add(byte(c.Encoding()), slices.Clone(c.Bytes()))
	}
	var d decoder
	f.Fuzz(func(_ *testing.T, encoding byte, data []byte) {
		p := store.Payload{Encoding: chunkenc.Encoding(encoding % 5), Data: data}
		it, err := d.open(&p)
		if err != nil {
			return
		}
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			switch kind {
			case chunkenc.ValFloat:
				it.At()
			case chunkenc.ValHistogram:
				it.AtHistogram(nil)
				it.AtFloatHistogram(nil)
			case chunkenc.ValFloatHistogram:
				it.AtFloatHistogram(nil)
			}
			it.AtT()
		}
	})
}

// ns/sample of the samples handed out, from the Store's series to the decoded sample: 1,000 series of 240
// samples, by one replica and by two.
func BenchmarkSelect(b *testing.B) {
	for _, replicas := range []int{1, 2} {
		var stores together
		for r := range replicas {
			var ins []storetest.Input
			for i := range 1000 {
				in := storetest.Input{Labels: labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%04d", i))}
				for j := range int64(240) {
					in.Samples = append(in.Samples, storetest.Sample{T: base + j*step + int64(r)*4_000, V: float64(j*7 + j%5)})
				}
				ins = append(ins, in)
			}
			stores = append(stores, storetest.New(storetest.Data{External: labels.FromStrings("replica", fmt.Sprint(r)), Series: ins}))
		}
		cur, err := stores.Series(b.Context(), &store.SeriesRequest{
			MaxTime: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}, WithoutReplicaLabels: []string{"replica"},
		})
		if err != nil {
			b.Fatal(err)
		}
		all, _, err := store.Drain(cur)
		if err != nil {
			b.Fatal(err)
		}
		q, err := New(fixed(all), Config{}, log.NewNopLogger(), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("replicas=%d", replicas), func(b *testing.B) {
			samples := 0
			b.ReportAllocs()
			for b.Loop() {
				sq, err := q.Queryable(Options{Dedup: true, ReplicaLabels: []string{"replica"}}).Querier(base, base+240*step)
				if err != nil {
					b.Fatal(err)
				}
				set := sq.Select(b.Context(), true, nil)
				var it chunkenc.Iterator
				for set.Next() {
					for it = set.At().Iterator(it); it.Next() != chunkenc.ValNone; {
						samples++
					}
				}
				if err := set.Err(); err != nil {
					b.Fatal(err)
				}
				if err := sq.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/series")
		})
		if err := q.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// fixed is a Store that always answers with the same series.
type fixed []*store.Series

func (f fixed) Series(context.Context, *store.SeriesRequest) (store.Cursor, error) {
	return store.NewSliceCursor(f), nil
}

func (fixed) LabelNames(context.Context, *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	return nil, nil, nil
}

func (fixed) LabelValues(context.Context, *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	return nil, nil, nil
}
func (fixed) Describe() store.Description { return store.Description{} }
