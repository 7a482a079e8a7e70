package frontend

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/frontend"
	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/query/api"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

const (
	// The data begins here, in ms, and goes on for so long.
	begin  = int64(1_700_006_400_000)
	length = int64(6 * 3600_000)
	scrape = int64(60_000)
	// No sample arrives later than that.
	lateMax   = int64(9 * 60_000)
	freshness = 10 * time.Minute
)

// world is two clusters with two replicas each, of which a querier sees what has arrived until now.
type world struct {
	now      atomic.Int64 // requests that nobody waits for any more may still look at it
	clusters []*cluster
	querier  http.Handler
}

// cluster is a Store that shows what has arrived, and can be away.
type cluster struct {
	name    string
	full    []storetest.Input
	replica string
	world   *world

	mu    sync.Mutex
	away  absence
	shown map[int64]*snapshot // by the time that it is
}

// absence is how a store is away.
type absence int

const (
	there  absence = iota
	gone           // nobody answers
	broken         // it answers, and breaks off in the middle
)

// snapshot is what has arrived.
type snapshot struct {
	memory *storetest.Memory
	series []*store.Series
}

// newWorld makes a world. With tenants, the querier shows each tenant the series whose job has its name.
func newWorld(t *testing.T, seed uint64, tenants bool) *world {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	w := &world{}
	w.now.Store(begin + length/2)
	var stores []store.Store
	for _, name := range []string{"eu", "us"} {
		for i, replica := range []string{"a", "b"} {
			c := &cluster{name: name, replica: replica, world: w, full: series(rnd, int64(i)*17_000), shown: map[int64]*snapshot{}}
			w.clusters, stores = append(w.clusters, c), append(stores, c)
		}
	}
	fan := fanout.New(func() []store.Store { return stores }, fanout.Config{}, log.NewNopLogger(), prometheus.NewRegistry())
	q, err := query.New(fan, query.Config{}, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	cfg := api.Config{ReplicaLabels: []string{"replica"}, PartialResponse: true, Now: w.time, EnforceTenancy: tenants, TenantLabel: "job"}
	a, err := api.New(q, cfg, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	a.Register(mux, "", func(_ string, h http.Handler) http.Handler { return h })
	// What a header asks for, as proxies before queriers do it.
	w.querier = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get(viewHeader) == "replicas" {
			if err := r.ParseForm(); err == nil {
				r.Form.Set("dedup", "false")
			}
		}
		mux.ServeHTTP(rw, r)
	})
	return w
}

// viewHeader makes queriers show replicas.
const viewHeader = "X-View"

func (w *world) time() time.Time { return time.UnixMilli(w.now.Load()) }

// standard is the configuration of frontends in most tests.
func standard(c cache.Cache) frontend.Config {
	return frontend.Config{
		Range:    frontend.RangeConfig{Align: true, Split: frontend.SplitConfig{Interval: 3600_000, Parallel: 4}, PartialResponse: true, Cache: c, Freshness: freshness},
		Metadata: frontend.MetadataConfig{RangeMs: length, SplitMs: 3600_000, Parallel: 4, PartialResponse: true, Cache: c, Freshness: freshness},
	}
}

// front is a frontend before the querier.
type front struct {
	http.Handler
	cfg      frontend.Config
	down     *direct
	registry *prometheus.Registry
}

// newFront starts a frontend.
func (w *world) newFront(t *testing.T, cfg frontend.Config) *front {
	t.Helper()
	f := &front{down: &direct{handler: w.querier}, registry: prometheus.NewRegistry()}
	cfg.Downstream, cfg.Transport, cfg.Now = &url.URL{Scheme: "http", Host: "querier"}, f.down, w.time
	h, err := frontend.New(cfg, log.NewNopLogger(), f.registry)
	if err != nil {
		t.Fatal(err)
	}
	f.Handler, f.cfg = h, cfg
	return f
}

// series are counters and gauges, some of which come late or go early.
func series(rnd *rand.Rand, phase int64) (all []storetest.Input) {
	for _, metric := range []string{"requests_total", "errors_total", "temperature", "latency"} {
		for i := range 3 {
			if metric == "latency" && i > 0 {
				break
			}
			in := storetest.Input{Labels: labels.FromStrings("__name__", metric, "instance", []string{"host-0", "host-1", "h\u00f6st \"2\" <&>\\"}[i], "job", []string{"api", "db"}[i%2])}
			v := 0.0
			from, to := begin, begin+length
			switch rnd.IntN(4) {
			case 0:
				from += rnd.Int64N(length)
			case 1:
				to -= rnd.Int64N(length)
			}
			hole := begin + rnd.Int64N(length)
			for t := from + phase; t < to; t += scrape {
				if metric == "temperature" {
					v = math.Floor(rnd.Float64()*1000) / 8
				} else if v += float64(rnd.IntN(20)); rnd.IntN(200) == 0 {
					v = 0
				}
				if t >= hole && t <= hole+10*scrape {
					continue
				}
				sample := storetest.Sample{T: t, V: v}
				if metric == "latency" {
					n := uint64(t-begin)/uint64(scrape) + 1
					sample.H = &histogram.Histogram{
						Count: 3 * n, Sum: float64(n), PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{int64(n), int64(n)},
					}
				}
				in.Samples = append(in.Samples, sample)
			}
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b storetest.Input) int { return labels.Compare(a.Labels, b.Labels) })
	return all
}

// snapshot is what has arrived until now.
func (c *cluster) snapshot() (*snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away == gone {
		return nil, errors.New("connection refused")
	}
	now := c.world.now.Load()
	if s := c.shown[now]; s != nil {
		return s, nil
	}
	data := storetest.Data{External: labels.FromStrings("cluster", c.name, "replica", c.replica)}
	for _, in := range c.full {
		out := storetest.Input{Labels: in.Labels}
		for _, s := range in.Samples {
			late := s.T / scrape * 7919 % lateMax
			if s.T+late <= now {
				out.Samples = append(out.Samples, s)
			}
		}
		if len(out.Samples) > 0 {
			data.Series = append(data.Series, out)
		}
	}
	s := &snapshot{memory: storetest.New(data)}
	cur, err := s.memory.Series(context.Background(), &store.SeriesRequest{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+")},
	})
	if err != nil {
		return nil, err
	}
	if s.series, _, err = store.Drain(cur); err != nil {
		return nil, err
	}
	c.shown[now] = s
	return s, nil
}

func (c *cluster) Describe() store.Description {
	return store.Description{
		LabelSets: []labels.Labels{labels.FromStrings("cluster", c.name, "replica", c.replica)},
		MinTime:   math.MinInt64, MaxTime: math.MaxInt64, Name: c.name + "-" + c.replica, Replicas: true,
	}
}

// Series hands out chunks that were made once: the plain Store below makes them for each request.
func (c *cluster) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	s, err := c.snapshot()
	if err != nil {
		return nil, err
	}
	if req.SkipChunks || req.Limit > 0 {
		return s.memory.Series(ctx, req)
	}
	var found []*store.Series
	for _, in := range s.series {
		final := store.Without(in.Labels, req.WithoutReplicaLabels)
		if slices.ContainsFunc(req.Matchers, func(m *labels.Matcher) bool { return !m.Matches(in.Labels.Get(m.Name)) }) || !req.Shard.Selects(final) {
			continue
		}
		out := &store.Series{Labels: final}
		for _, chunk := range in.Chunks {
			if store.Overlaps(chunk.MinTime, chunk.MaxTime, req.MinTime, req.MaxTime) {
				chunk.Replica = store.ReplicaOf(in.Labels, req.WithoutReplicaLabels)
				out.Chunks = append(out.Chunks, chunk)
			}
		}
		if len(out.Chunks) > 0 {
			found = append(found, out)
		}
	}
	slices.SortStableFunc(found, func(a, b *store.Series) int { return labels.Compare(a.Labels, b.Labels) })
	if c.absence() == broken {
		// After the same series whatever the range is: so much of an answer is the same over each part of it.
		found = slices.DeleteFunc(found, func(s *store.Series) bool { return s.Labels.Get("__name__") > "m" })
		return &breaking{store.NewSliceCursor(found)}, nil
	}
	return store.NewSliceCursor(found), nil
}

// breaking is a cursor that ends with an error.
type breaking struct{ *store.SliceCursor }

func (b *breaking) Err() error { return errors.New("connection reset by peer") }

func (c *cluster) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	s, err := c.snapshot()
	if err != nil {
		return nil, nil, err
	}
	return s.memory.LabelNames(ctx, req)
}

func (c *cluster) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	s, err := c.snapshot()
	if err != nil {
		return nil, nil, err
	}
	return s.memory.LabelValues(ctx, req)
}

func (c *cluster) leave(away absence) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

// counter reads a counter with a label.
func counter(t *testing.T, reg *prometheus.Registry, name, label, value string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label && l.GetValue() == value {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

// state is what an answer of the querier depends on beside the question.
type state struct {
	now  int64
	away [4]absence
}

func (w *world) state() (s state) {
	s.now = w.now.Load()
	for i, c := range w.clusters {
		s.away[i] = c.absence()
	}
	return s
}

func (w *world) set(s state) {
	w.now.Store(s.now)
	for i, c := range w.clusters {
		c.leave(s.away[i])
	}
}

// missing tells whether a store is away.
func (s state) missing() bool { return s.away != [4]absence{} }

func (c *cluster) absence() absence {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}
