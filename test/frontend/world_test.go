package frontend

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
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

// world is two clusters with two replicas each, of which a querier sees what has arrived until now, and a frontend.
type world struct {
	now      atomic.Int64 // requests that nobody waits for any more may still look at it
	clusters []*cluster
	cache    *moody
	querier  *httptest.Server
	frontend *httptest.Server
	// What the next frontend gets beside its configuration, and the metrics of the last.
	shards   int
	metadata frontend.MetadataConfig
	registry *prometheus.Registry
}

// cluster is a Store that shows what has arrived, and can be away.
type cluster struct {
	name    string
	full    []storetest.Input
	replica string
	world   *world

	mu    sync.Mutex
	away  bool
	shown *storetest.Memory
	at    int64
}

func newWorld(t *testing.T, seed uint64) *world {
	rnd := rand.New(rand.NewPCG(seed, 1))
	w := &world{cache: &moody{entries: map[string][]byte{}, rnd: rand.New(rand.NewPCG(seed, 2))}}
	w.now.Store(begin + length/2)
	var stores []store.Store
	for _, name := range []string{"eu", "us"} {
		for i, replica := range []string{"a", "b"} {
			c := &cluster{name: name, replica: replica, world: w, full: series(rnd, int64(i)*17_000)}
			w.clusters, stores = append(w.clusters, c), append(stores, c)
		}
	}
	fan := fanout.New(func() []store.Store { return stores }, fanout.Config{}, log.NewNopLogger(), prometheus.NewRegistry())
	q, err := query.New(fan, query.Config{}, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	a, err := api.New(q, api.Config{ReplicaLabels: []string{"replica"}, PartialResponse: true}, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	a.Register(mux, "", func(_ string, h http.Handler) http.Handler { return h })
	w.querier = httptest.NewServer(mux)
	t.Cleanup(w.querier.Close)
	w.metadata = frontend.MetadataConfig{RangeMs: length, SplitMs: 3600_000, Parallel: 4, PartialResponse: true, Cache: w.cache, Freshness: freshness}
	w.setFrontend(t, standard(w.cache))
	return w
}

// standard is the configuration of range queries in most tests.
func standard(c cache.Cache) frontend.RangeConfig {
	return frontend.RangeConfig{Align: true, Split: frontend.SplitConfig{Interval: 3600_000, Parallel: 4}, PartialResponse: true, Cache: c, Freshness: freshness}
}

// setFrontend starts a frontend before the querier; what was cached stays.
func (w *world) setFrontend(t *testing.T, cfg frontend.RangeConfig) {
	t.Helper()
	u, err := url.Parse(w.querier.URL)
	if err != nil {
		t.Fatal(err)
	}
	w.registry = prometheus.NewRegistry()
	f, err := frontend.New(frontend.Config{
		Downstream: u, Range: cfg, Metadata: w.metadata, Shards: w.shards, Now: func() time.Time { return time.UnixMilli(w.now.Load()) },
	}, log.NewNopLogger(), w.registry)
	if err != nil {
		t.Fatal(err)
	}
	w.frontend = httptest.NewServer(f)
	t.Cleanup(w.frontend.Close)
}

// series are counters and gauges, some of which come late or go early.
func series(rnd *rand.Rand, phase int64) (all []storetest.Input) {
	for _, metric := range []string{"requests_total", "errors_total", "temperature"} {
		for i := range 3 {
			in := storetest.Input{Labels: labels.FromStrings("__name__", metric, "instance", fmt.Sprintf("host-%d", i), "job", []string{"api", "db"}[i%2])}
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
				if t < hole || t > hole+10*scrape {
					in.Samples = append(in.Samples, storetest.Sample{T: t, V: v})
				}
			}
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b storetest.Input) int { return labels.Compare(a.Labels, b.Labels) })
	return all
}

// memory is what has arrived.
func (c *cluster) memory() (*storetest.Memory, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, errors.New("connection refused")
	}
	now := c.world.now.Load()
	if c.shown != nil && c.at == now {
		return c.shown, nil
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
	c.shown, c.at = storetest.New(data), now
	return c.shown, nil
}

func (c *cluster) Describe() store.Description {
	return store.Description{
		LabelSets: []labels.Labels{labels.FromStrings("cluster", c.name, "replica", c.replica)},
		MinTime:   math.MinInt64, MaxTime: math.MaxInt64, Name: c.name + "-" + c.replica, Replicas: true,
	}
}

func (c *cluster) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	m, err := c.memory()
	if err != nil {
		return nil, err
	}
	return m.Series(ctx, req)
}

func (c *cluster) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	m, err := c.memory()
	if err != nil {
		return nil, nil, err
	}
	return m.LabelNames(ctx, req)
}

func (c *cluster) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	m, err := c.memory()
	if err != nil {
		return nil, nil, err
	}
	return m.LabelValues(ctx, req)
}

func (c *cluster) leave(away bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = away
}

// moody is a cache that forgets, and hands out what is garbled, when it is told to.
type moody struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	entries map[string][]byte
	bad     bool
	hits    int
}

func (m *moody) Fetch(_ context.Context, keys []string) [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([][]byte, len(keys))
	for i, k := range keys {
		v, ok := m.entries[k]
		if !ok || m.bad && m.rnd.IntN(2) == 0 {
			continue
		}
		m.hits++
		if out[i] = v; m.bad && m.rnd.IntN(2) == 0 {
			out[i] = slices.Clone(v[:m.rnd.IntN(len(v))]) // cut off
		}
	}
	return out
}

func (m *moody) Store(es ...cache.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range es {
		if !m.bad || m.rnd.IntN(2) == 0 {
			m.entries[e.Key] = e.Value
		}
	}
}

func (m *moody) Close() error { return nil }

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

// missing tells whether a store is away.
func (w *world) missing() bool {
	for _, c := range w.clusters {
		if c.isAway() {
			return true
		}
	}
	return false
}

// whole asks the querier while all stores are there.
func (w *world) whole(t *testing.T, form url.Values, header http.Header) reply {
	t.Helper()
	for _, c := range w.clusters {
		if c.isAway() {
			c.leave(false)
			defer c.leave(true)
		}
	}
	return ask(t, t.Context(), w.querier.URL, form, header)
}

func (c *cluster) isAway() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.away
}
