package query_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	"github.com/koios-metrics/koios/pkg/store/remote"
	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/proto/storepb"
)

// point is one sample of a recording; H is nil for floats.
type point struct {
	t int64
	v float64
	h *histogram.Histogram
}

// recording is what one replica has of one series.
type recording []point

// world is what all replicas have of a few series: recordings[series][replica].
type world struct {
	series     []labels.Labels
	recordings [][]recording
	mint, maxt int64
}

const worldStart = int64(1_700_000_000_000)

// newWorld makes recordings of two or three replicas: every one with its own phase, jitter and outages, of counters
// that restart, gauges and native histograms. In every other world scrapes come late or not at all, and the interval
// changes.
func newWorld(rnd *rand.Rand) *world {
	w := &world{mint: worldStart, maxt: worldStart + 3*3600_000}
	replicas := 2 + rnd.IntN(2)
	interval := []int64{5_000, 15_000, 30_000, 60_000, 300_000}[rnd.IntN(5)]
	wild := rnd.IntN(2) == 0
	for i, kind := range []string{"counter", "gauge", "histogram"} {
		w.series = append(w.series, labels.FromStrings("__name__", kind, "instance", strconv.Itoa(i)))
		restart := w.mint + rnd.Int64N(w.maxt-w.mint)
		var rs []recording
		for range replicas {
			phase, jitter := rnd.Int64N(interval), rnd.Int64N(interval/20+1)
			var rec recording
			down := int64(0)
			for t, step := w.mint+phase, interval; t < w.maxt; t += step {
				late := rnd.Int64N(jitter + 1)
				if wild {
					switch rnd.IntN(40) {
					case 0:
						step = interval * []int64{1, 1, 2, 3}[rnd.IntN(4)]
					case 1, 2:
						late = rnd.Int64N(step / 2)
					case 3, 4:
						continue
					}
				}
				if rnd.IntN(100) == 0 {
					down = t + step*(1+rnd.Int64N(20))
				}
				if t < down {
					continue
				}
				p := point{t: t + late}
				n := (p.t - w.mint) / 1000
				if p.t >= restart {
					n = (p.t - restart) / 1000
				}
				switch kind {
				case "counter":
					p.v = float64(n) * 3
				case "gauge":
					p.v = math.Sin(float64(p.t)/600_000) * 100
				default:
					p.h = &histogram.Histogram{Schema: 1, Count: uint64(2 * n), Sum: float64(n), PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{n, 0}}
				}
				rec = append(rec, p)
			}
			rs = append(rs, rec)
		}
		w.recordings = append(w.recordings, rs)
	}
	return w
}

// cut makes chunks of a recording, of up to longest samples each; now and then one begins again with the last
// samples of the one before, as blocks that overlap do.
func cut(t testing.TB, rec recording, longest int, overlaps bool, rnd *rand.Rand) (out []store.Chunk) {
	t.Helper()
	for i := 0; i < len(rec); {
		n := min(1+rnd.IntN(longest), len(rec)-i)
		from := i
		if overlaps && rnd.IntN(4) == 0 {
			from = max(0, i-rnd.IntN(30))
		}
		out = append(out, encode(t, rec[from:i+n])...)
		i += n
	}
	return store.SortChunks(out)
}

// encode makes chunks of samples: one, unless a histogram starts another.
func encode(t testing.TB, ps []point) (out []store.Chunk) {
	t.Helper()
	for len(ps) > 0 {
		var c chunkenc.Chunk = chunkenc.NewXORChunk()
		if ps[0].h != nil {
			c = chunkenc.NewHistogramChunk()
		}
		app, err := c.Appender()
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; n < len(ps); n++ {
			if ps[n].h == nil {
				app.Append(ps[n].t, ps[n].v)
				continue
			}
			other, recoded, a, err := app.AppendHistogram(nil, ps[n].t, ps[n].h, false)
			if err != nil {
				t.Fatal(err)
			}
			if other != nil && !recoded {
				break
			}
			if other != nil {
				c = other
			}
			app = a
		}
		out = append(out, store.Chunk{MinTime: ps[0].t, MaxTime: ps[n-1].t, Raw: store.Payload{Encoding: c.Encoding(), Data: c.Bytes()}})
		ps = ps[n:]
	}
	return out
}

// held is a Store of one replica's chunks, which hands out those that a request's range touches.
type held struct {
	store.Store
	external labels.Labels
	series   []*store.Series
	tells    bool
}

func (h *held) Describe() store.Description {
	return store.Description{Name: h.external.String(), LabelSets: []labels.Labels{h.external}, MinTime: math.MinInt64, MaxTime: math.MaxInt64, Replicas: h.tells}
}

func (h *held) Series(_ context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	rest, ok := store.MatchExternal(h.external, req.Matchers)
	if !ok {
		return store.NewSliceCursor(nil), nil
	}
	var out []*store.Series
	for _, s := range h.series {
		if slices.ContainsFunc(rest, func(m *labels.Matcher) bool { return !m.Matches(s.Labels.Get(m.Name)) }) {
			continue
		}
		c := &store.Series{Labels: s.Labels}
		for _, ch := range s.Chunks {
			if store.Overlaps(ch.MinTime, ch.MaxTime, req.MinTime, req.MaxTime) {
				c.Chunks = append(c.Chunks, ch)
			}
		}
		if len(c.Chunks) > 0 {
			out = append(out, c)
		}
	}
	cur := store.Relabel(store.NewSliceCursor(out), store.RelabelOptions{External: h.external, Drop: req.WithoutReplicaLabels})
	if h.tells {
		return cur, nil
	}
	all, _, err := store.Drain(cur)
	for _, s := range all {
		for i := range s.Chunks {
			s.Chunks[i].Replica = ""
		}
	}
	return store.NewSliceCursor(all), err
}

// shape is a way to hold and to serve a world.
type shape struct {
	longest  int // samples of a chunk
	overlaps bool
	shuffled bool // the stores, and so the replicas
	tiers    bool // three tiers of queriers over gRPC
	mute     bool // the stores do not say which replica a chunk is of
}

// serve makes a querier over the world.
func (w *world) serve(t testing.TB, s shape, rnd *rand.Rand) *query.Querier {
	t.Helper()
	var stores []store.Store
	for r := range w.recordings[0] {
		h := &held{external: labels.FromStrings("cluster", "eu", "replica", string(rune('a'+r))), tells: !s.mute}
		for i, ls := range w.series {
			h.series = append(h.series, &store.Series{Labels: ls, Chunks: cut(t, w.recordings[i][r], s.longest, s.overlaps, rnd)})
		}
		stores = append(stores, h)
	}
	if s.shuffled {
		rnd.Shuffle(len(stores), func(i, j int) { stores[i], stores[j] = stores[j], stores[i] })
	}
	over := func(stores ...store.Store) *fanout.Store {
		if s.tiers {
			for i := range stores {
				stores[i] = served(t, stores[i])
			}
		}
		return fanout.New(func() []store.Store { return stores }, fanout.Config{}, log.NewNopLogger(), prometheus.NewRegistry())
	}
	top := over(stores...)
	if s.tiers {
		top = over(over(append([]store.Store{over(stores[0])}, stores[1:]...)...))
	}
	q, err := query.New(top, query.Config{}, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// served is a Store at the other end of a connection.
func served(t testing.TB, st store.Store) store.Store {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	storepb.RegisterStoreServer(s, server.New(st, server.Config{}, log.NewNopLogger(), prometheus.NewRegistry()))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:///peer", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	peer := remote.New(cc, remote.Config{Name: st.Describe().Name})
	if err := peer.SetInfo(server.InfoOf("query", st.Describe())); err != nil {
		t.Fatal(err)
	}
	return peer
}

var deduplicated = query.Options{Dedup: true, ReplicaLabels: []string{"replica"}}

// samples reads the samples of all series from mint to maxt, as a selector within a function would.
func samples(t testing.TB, q *query.Querier, function string, mint, maxt int64) (out []string) {
	t.Helper()
	qr, err := q.Queryable(deduplicated).Querier(mint, maxt)
	if err != nil {
		t.Fatal(err)
	}
	defer qr.Close()
	set := qr.Select(t.Context(), true, &storage.SelectHints{Start: mint, End: maxt, Func: function}, labels.MustNewMatcher(labels.MatchRegexp, "__name__", "counter|gauge|histogram"))
	for set.Next() {
		s := set.At()
		it := s.Iterator(nil)
		for k := it.Next(); k != chunkenc.ValNone; k = it.Next() {
			at := it.AtT()
			if at < mint || at > maxt {
				continue
			}
			if k == chunkenc.ValFloat {
				_, v := it.At()
				out = append(out, fmt.Sprintf("%s %d %x", s.Labels(), at, math.Float64bits(v)))
			} else {
				_, h := it.AtFloatHistogram(nil)
				out = append(out, fmt.Sprintf("%s %d %s", s.Labels(), at, h))
			}
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
	}
	if set.Err() != nil || len(set.Warnings()) > 0 {
		t.Fatal(set.Err(), set.Warnings())
	}
	return out
}

// difference says where two lists first differ; empty if they do not.
func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		g, w := "(end)", "(end)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			return fmt.Sprintf("at %d of %d and %d: got %s, want %s", i, len(got), len(want), g, w)
		}
	}
	return ""
}

// worlds calls f with generated worlds: KOIOS_WORLDS of them from seed KOIOS_FIRST on, or the first few.
func worlds(t *testing.T, f func(t *testing.T, seed uint64, w *world, rnd *rand.Rand)) {
	number := func(name string, otherwise uint64) uint64 {
		s := os.Getenv(name)
		if s == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	first := number("KOIOS_FIRST", 0)
	for seed := first; seed < first+number("KOIOS_WORLDS", 4); seed++ {
		rnd := rand.New(rand.NewPCG(seed, 3))
		f(t, seed, newWorld(rnd), rnd)
		if testing.Verbose() && seed%20 == 19 {
			t.Logf("%d worlds", seed+1)
		}
	}
}

// Deduplicated samples are the same however chunks are cut, in whatever order the replicas come, through three tiers
// of queriers over gRPC, and from stores that do not say which replica a chunk is of. (Killed: a receiver that forgets
// which replica a chunk names.)
func TestSamplesWhateverTheShape(t *testing.T) {
	worlds(t, func(t *testing.T, seed uint64, w *world, rnd *rand.Rand) {
		plain := w.serve(t, shape{longest: 120}, rnd)
		for _, function := range []string{"", "rate"} {
			want := samples(t, plain, function, w.mint, w.maxt)
			for _, s := range []shape{
				{longest: 10}, {longest: 1000}, {longest: 120, overlaps: true}, {longest: 120, shuffled: true}, {longest: 120, mute: true, shuffled: true},
				{longest: 50, tiers: true}, {longest: 300, tiers: true, shuffled: true, overlaps: true}, {longest: 60, tiers: true, mute: true},
			} {
				if d := difference(samples(t, w.serve(t, s, rnd), function, w.mint, w.maxt), want); d != "" {
					t.Errorf("world %d, function %q, %+v: %s", seed, function, s, d)
				}
			}
		}
	})
}

// Deduplicated samples are the same whatever range is asked: one split anywhere gives what the whole gives, and so do
// ranges of any length, the cuts of chunks falling anywhere. (Killed: a reach of one minute; a reader that begins with
// the last chunk before the range, however few samples it has.)
func TestSamplesWhateverTheRange(t *testing.T) {
	worlds(t, func(t *testing.T, seed uint64, w *world, rnd *rand.Rand) {
		for _, s := range []shape{{longest: 120}, {longest: 4}, {longest: 30, overlaps: true}, {longest: 240, tiers: true}} {
			q := w.serve(t, s, rnd)
			for _, function := range []string{"", "rate"} {
				whole := samples(t, q, function, w.mint, w.maxt)
				for range 4 {
					at := w.mint + rnd.Int64N(w.maxt-w.mint)
					left, right := samples(t, q, function, w.mint, at), samples(t, q, function, at+1, w.maxt)
					all := slices.Concat(left, right)
					slices.Sort(all)
					want := slices.Clone(whole)
					slices.Sort(want)
					if d := difference(all, want); d != "" {
						t.Errorf("world %d, %+v, function %q, split at %d: %s", seed, s, function, at, d)
					}
				}
			}
		}
	})
}

// A range query split at any step, as a query frontend does, answers as the whole does, bit by bit, by both engines
// and for the shapes of queries that are evaluated in different ways.
func TestAnswersWhateverTheRange(t *testing.T) {
	const step = 30 * time.Second
	worlds(t, func(t *testing.T, seed uint64, w *world, rnd *rand.Rand) {
		q := w.serve(t, shape{longest: 120}, rnd)
		exec := func(engine, expr string, from, to int) (out []string) {
			t.Helper()
			start := time.UnixMilli(w.mint)
			res, err := q.Exec(t.Context(), query.Request{Options: deduplicated, Expr: expr, Engine: engine, Start: start.Add(time.Duration(from) * step), End: start.Add(time.Duration(to) * step), Step: step})
			if err != nil {
				t.Fatalf("%s: %v", expr, err)
			}
			defer res.Close()
			m, ok := res.Value.(promql.Matrix)
			if !ok {
				t.Fatalf("%s: got %T", expr, res.Value)
			}
			for _, s := range m {
				for _, p := range s.Floats {
					out = append(out, fmt.Sprintf("%s %d %x", s.Metric, p.T, math.Float64bits(p.F)))
				}
				for _, p := range s.Histograms {
					out = append(out, fmt.Sprintf("%s %d %s", s.Metric, p.T, p.H))
				}
			}
			slices.Sort(out)
			return out
		}
		last := int((w.maxt - w.mint) / step.Milliseconds())
		for _, engine := range []string{query.EngineThanos, query.EnginePrometheus} {
			for _, expr := range []string{"counter", "rate(counter[20m])", "sum by (instance) (rate(counter[20m]))", "sum(gauge)", "max_over_time(gauge[10m])", "rate(histogram[20m])", "count(counter)"} {
				whole := exec(engine, expr, 0, last)
				if len(whole) == 0 {
					t.Errorf("world %d: %s has no answer", seed, expr)
				}
				for range 3 {
					at := rnd.IntN(last)
					parts := slices.Concat(exec(engine, expr, 0, at), exec(engine, expr, at+1, last))
					slices.Sort(parts)
					if d := difference(parts, whole); d != "" {
						t.Errorf("world %d, %s, %s split at step %d: %s", seed, engine, expr, at, d)
					}
				}
			}
		}
	})
}
