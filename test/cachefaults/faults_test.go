package cachefaults

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	thanosobjstore "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/pkg/objstore/caching"
	"github.com/koios-metrics/koios/pkg/objstore/faulty"
	"github.com/koios-metrics/koios/pkg/objstore/resilient"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/bucket"
	"github.com/koios-metrics/koios/test/bulk"
	"github.com/koios-metrics/koios/test/fleet"
)

func TestMain(m *testing.M) { os.Exit(fleet.Main(m)) }

const (
	from     = int64(1_700_006_400_000)
	interval = int64(15_000)
	samples  = 480 // two hours
	blocks   = 3
	series   = 400
	askers   = 2
	// With a cache that fails, one request in a hundred takes no longer than this many times the longest without any.
	ratioMax = 1.2
)

func setting(t *testing.T, name string, fallback int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return fallback
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Shows that a cache which is killed, stopped, started again, filled with rubbish, and all of it by turns while requests
// are under way, changes no answer. `make campaign-cache` asks more, and holds that it makes no request slower than no
// cache would, by a fifth at most.
func TestCacheFaults(t *testing.T) {
	requests, strict := setting(t, "KOIOS_CACHE_REQUESTS", 16), os.Getenv("KOIOS_CACHE_STRICT") != ""
	// How long a request to the bucket takes before its answer begins.
	latency := time.Duration(setting(t, "KOIOS_CACHE_BUCKET_MS", 5)) * time.Millisecond
	dir := t.TempDir()
	for b := range blocks {
		s := bulk.Spec{
			From: from + int64(b)*samples*interval, Interval: interval, Samples: samples, Series: bulk.Counters("requests_total", series),
			External: map[string]string{"replica": "a"}, Seed: uint64(b),
		}
		if _, err := bulk.Write(t.Context(), dir, s); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{"memcached", "redis"} {
		t.Run(kind, func(t *testing.T) {
			srv := fleet.StartCacheServer(t, kind)
			r := &run{
				t: t, srv: srv, rnd: rand.New(rand.NewPCG(1, uint64(len(kind)))),
				without: openStore(t, dir, latency, "", ""),
				with:    openStore(t, dir, latency, kind, srv.Addr),
				truth:   map[string]uint64{},
			}
			r.ask("well", 2*requests, nil)
			r.ask("killed", requests, srv.Kill)
			r.ask("started again", requests, srv.Restart)
			r.ask("stopped", requests, r.stop)
			r.ask("goes on", requests, r.goOn)
			r.ask("rubbish", requests, r.corrupt)
			r.ask("by turns", 3*requests, nil, r.stop, r.goOn, r.corrupt, srv.Kill, srv.Restart)
			r.report(strict)
			// On a machine that is busy the server may have been too slow to be asked at all.
			for _, name := range []string{"thanos_store_index_cache_hits_total", "koios_cache_dropped_entries_total"} {
				fleet.Eventually(t, name+" counts something", time.Minute, func() error {
					if count(t, r.with.reg, name) > 0 {
						return nil
					}
					r.ask("rubbish again", 4, r.corrupt)
					return errors.New("it does not")
				})
			}
		})
	}
}

// gateway is a store with what it counts.
type gateway struct {
	*bucket.Store
	reg *prometheus.Registry
}

// openStore opens a store over a bucket that takes its time, with caches in a server if one is named.
func openStore(t *testing.T, dir string, latency time.Duration, kind, addr string) *gateway {
	t.Helper()
	fs, err := objstore.NewFilesystem(dir)
	if err != nil {
		t.Fatal(err)
	}
	slow := faulty.New(fs)
	reg := prometheus.NewRegistry()
	bkt := resilient.New(objstore.Instrument(slow, nil), reg)
	t.Cleanup(func() { _ = bkt.Close() })
	cfg := bucket.Config{DataDir: t.TempDir()}
	var reader thanosobjstore.BucketReader = bkt
	if addr != "" {
		b := cache.Backend{Type: cache.Memcached, Memcached: cache.DefaultMemcachedConfig, Redis: cache.DefaultRedisConfig}
		b.Memcached.Addresses, b.Redis.Addr = []string{addr}, addr
		if kind == "redis" {
			b.Type = cache.Redis
		}
		o := cache.Options{Reg: reg, Origin: bkt.Usually, Prefix: "chunks:"}
		chunks, err := cache.New(t.Context(), "caching-bucket", b, o)
		if err != nil {
			t.Fatal(err)
		}
		o.Prefix = "index:"
		if cfg.IndexCache, err = cache.New(t.Context(), "index-cache", b, o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = chunks.Close()
			_ = cfg.IndexCache.Close()
		})
		reader = caching.New(bkt, chunks, caching.DefaultConfig, reg)
	}
	st, err := bucket.New(reader, cfg, log.NewNopLogger(), reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	if err := st.InitialSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	slow.Plan(faulty.Always(faulty.Fault{Latency: latency}))
	return &gateway{st, reg}
}

// run asks two stores the same things.
type run struct {
	t             *testing.T
	srv           *fleet.CacheServer
	rnd           *rand.Rand
	without, with *gateway

	mu     sync.Mutex
	truth  map[string]uint64
	phases []*phase
}

// phase is what was measured while one thing was wrong.
type phase struct {
	name          string
	without, with []time.Duration
}

func (r *run) stop() { r.srv.Signal(syscall.SIGSTOP) }

func (r *run) goOn() { r.srv.Signal(syscall.SIGCONT) }

// corrupt flips a byte of some entries, cuts others, and exchanges the rest among each other.
func (r *run) corrupt() {
	all, err := r.srv.Entries()
	if err != nil {
		r.t.Errorf("read the entries: %v", err)
		return
	}
	bad := map[string][]byte{}
	var last []byte
	for k, v := range all {
		if len(v) == 0 {
			continue
		}
		was := slices.Clone(v)
		switch r.rnd.IntN(4) {
		case 0:
			v[r.rnd.IntN(len(v))] ^= 1 << r.rnd.IntN(8)
		case 1:
			v = v[:r.rnd.IntN(len(v))]
		case 2:
			if last != nil {
				v = last
			}
		}
		bad[k], last = v, was
	}
	if err := r.srv.Put(bad); err != nil {
		r.t.Errorf("write rubbish: %v", err)
	}
}

// ask asks so many questions of both stores, in either order, after the first event; the other events happen in turn
// while it goes on.
func (r *run) ask(name string, n int, first func(), events ...func()) {
	r.t.Helper()
	p := &phase{name: name}
	r.phases = append(r.phases, p)
	if first != nil {
		first()
	}
	work := make(chan int)
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			for i := range work {
				req := question(i)
				order := []*gateway{r.without, r.with}
				if i%2 == 0 {
					slices.Reverse(order)
				}
				for _, s := range order {
					began := time.Now()
					sum, err := sumOf(r.t.Context(), s, req)
					took := time.Since(began)
					r.note(p, s == r.with, req, sum, err, took)
				}
			}
		})
	}
	for i := range n {
		if len(events) > 0 && i%(n/len(events)) == 0 && i/(n/len(events)) < len(events) {
			events[i/(n/len(events))]()
		}
		work <- r.rnd.IntN(questions)
	}
	close(work)
	wg.Wait()
}

func (r *run) note(p *phase, with bool, req *store.SeriesRequest, sum uint64, err error, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fmt.Sprint(req.Matchers, req.MinTime, req.MaxTime)
	if want, known := r.truth[key]; err != nil || known && want != sum {
		r.t.Errorf("%s, with a cache %v: %s: a wrong answer, or none: %v", p.name, with, key, err)
	}
	r.truth[key] = sum
	if with {
		p.with = append(p.with, took)
	} else {
		p.without = append(p.without, took)
	}
}

const questions = 60

// question makes one of the questions: of few series or many, of a part of the time or all of it.
func question(i int) *store.SeriesRequest {
	rnd := rand.New(rand.NewPCG(uint64(i), 7))
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "requests_total")}
	switch i % 3 {
	case 0:
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, "instance", fmt.Sprintf("host-%06d:9090", rnd.IntN(series))))
	case 1:
		ms = append(ms, labels.MustNewMatcher(labels.MatchRegexp, "path", fmt.Sprintf(".*-%d", rnd.IntN(10))))
	case 2:
		ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, "job", fmt.Sprintf("job-%03d", rnd.IntN(80))), labels.MustNewMatcher(labels.MatchNotEqual, "method", "POST"))
	}
	mint := from + rnd.Int64N(blocks)*samples*interval
	return &store.SeriesRequest{MinTime: mint, MaxTime: mint + 1 + rnd.Int64N(blocks*samples*interval), Matchers: ms, PartialResponse: store.Abort}
}

// sumOf is a checksum over labels, times and bytes of an answer.
func sumOf(ctx context.Context, s store.Store, req *store.SeriesRequest) (uint64, error) {
	cur, err := s.Series(ctx, req)
	if err != nil {
		return 0, err
	}
	defer cur.Close()
	h := fnv.New64a()
	n := 0
	for cur.Next() {
		n++
		at := cur.At()
		_, _ = h.Write([]byte(at.Labels.String()))
		for _, c := range at.Chunks {
			_ = binary.Write(h, binary.LittleEndian, []int64{c.MinTime, c.MaxTime})
			_, _ = h.Write(c.Raw.Data)
		}
	}
	if err := cur.Err(); err != nil {
		return 0, err
	}
	if ws := cur.Warnings(); len(ws) > 0 {
		return 0, fmt.Errorf("warnings: %v", ws)
	}
	if n == 0 {
		return 0, errors.New("no series")
	}
	return h.Sum64(), nil
}

func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	ds = slices.Sorted(slices.Values(ds))
	return ds[min(int(float64(len(ds))*q), len(ds)-1)]
}

// report prints what was measured, and holds the ratio of all phases in which the cache failed.
func (r *run) report(strict bool) {
	var all phase
	line := func(p *phase) float64 {
		ratio := float64(quantile(p.with, 0.99)) / float64(quantile(p.without, 0.99))
		ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
		r.t.Logf("%-14s %4d requests each: half within %6.1f ms without, %6.1f ms with a cache; 99 of 100 within %6.1f and %6.1f ms: %.2f times",
			p.name, len(p.with), ms(quantile(p.without, 0.5)), ms(quantile(p.with, 0.5)), ms(quantile(p.without, 0.99)), ms(quantile(p.with, 0.99)), ratio)
		return ratio
	}
	for i, p := range r.phases {
		line(p)
		if i > 0 {
			all.without, all.with = append(all.without, p.without...), append(all.with, p.with...)
		}
	}
	all.name = "all failing"
	if ratio := line(&all); strict && ratio > ratioMax {
		r.t.Errorf("with a failing cache one request in a hundred takes %.2f times as long as without any: want %.1f at most", ratio, ratioMax)
	}
}

func count(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
