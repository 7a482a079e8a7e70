package frontend

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/koios-metrics/koios/pkg/frontend"
	"github.com/koios-metrics/koios/test/fleet"
)

func TestMain(m *testing.M) { os.Exit(fleet.Main(m)) }

// askersOfProcess is how many clients ask a frontend's process at a time.
const askersOfProcess = 3

// Shows that no client of a frontend's process sees an error or a wrong answer when the memcached or Redis behind it is
// killed, started again, stopped, full, too small for an entry, or filled with rubbish and with entries of other
// versions, by turns while requests are under way; that what is rubbish is counted; and that a querier in trouble makes
// a clear error at worst, and leaves nothing wrong behind. `make campaign-frontend-cache` asks more.
func TestProcessWithRealCaches(t *testing.T) {
	requests := int(number(t, "KOIOS_FRONTEND_REQUESTS", 12))
	for kind, config := range map[string]struct {
		flags []string
		split string
		yaml  string
	}{
		// It has little room and forgets. What it takes is at most a megabyte, and the client thinks of more.
		"memcached": {[]string{"-m", "16"}, "24h", "type: MEMCACHED\nconfig:\n  addresses: [%s]\n  timeout: 200ms\n  max_item_size: 16MiB\n"},
		// It is full soon, and refuses then.
		"redis": {[]string{"--maxmemory", "3mb", "--maxmemory-policy", "noeviction"}, "1h", "type: REDIS\nconfig:\n  addr: %s\n  read_timeout: 200ms\n"},
	} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t, 77, true)
			w.now.Store(begin + length)
			below := &troubled{handler: w.querier}
			querier := httptest.NewServer(below)
			t.Cleanup(querier.Close)
			p := &process{t: t, w: w, below: below, cache: fleet.StartCacheServer(t, kind, config.flags...), addr: fleet.FreeAddr(t)}
			yaml := fmt.Sprintf(config.yaml, p.cache.Addr)
			p.Process = fleet.Start(t, "query-frontend", fleet.KoiosProgram(t), "query-frontend", "--http-address="+p.addr,
				"--query-frontend.downstream-url="+querier.URL, "--query-range.response-cache-config="+yaml, "--labels.response-cache-config="+yaml,
				"--query-range.split-interval="+config.split, "--labels.split-interval=1h", "--query-frontend.forward-header="+viewHeader, "--query-frontend.org-id-header=X-Org",
			)
			p.WaitReady(t, "http://"+p.addr+"/-/ready")
			p.ask("well", 2*requests, nil)
			p.ask("killed", requests, p.cache.Kill)
			p.ask("started again", requests, p.cache.Restart)
			p.ask("stopped", requests, p.stop)
			p.ask("goes on", requests, p.goOn)
			p.ask("rubbish", requests, p.corrupt)
			p.ask("by turns", 3*requests, nil, p.stop, p.goOn, p.corrupt, p.cache.Kill, p.cache.Restart)
			below.often.Store(3)
			p.ask("the querier has trouble", requests, nil)
			p.ask("all has trouble", 2*requests, nil, p.stop, p.goOn, p.cache.Kill, p.cache.Restart)
			below.often.Store(0)
			p.ask("well again", 2*requests, nil)
			p.counts(kind)
		})
	}
}

// process is a frontend's process between clients and a querier in this one.
type process struct {
	*fleet.Process
	t     *testing.T
	w     *world
	below *troubled
	cache *fleet.CacheServer
	addr  string
	round uint64
}

func (p *process) stop() { p.cache.Signal(syscall.SIGSTOP) }
func (p *process) goOn() { p.cache.Signal(syscall.SIGCONT) }

// corrupt garbles the entries of the cache, each in another way.
func (p *process) corrupt() {
	entries, err := p.cache.Entries()
	if err != nil {
		p.t.Errorf("read the entries: %v", err)
		return
	}
	rnd := rand.New(rand.NewPCG(p.round, 3))
	bad := map[string][]byte{}
	var last []byte
	for key, v := range entries {
		if len(v) < 13 {
			continue
		}
		was := slices.Clone(v)
		switch rnd.IntN(6) {
		case 0:
			v[rnd.IntN(len(v))] ^= 1 << rnd.IntN(8)
		case 1:
			v = v[:rnd.IntN(len(v))]
		case 2:
			if last != nil {
				v = last
			}
		case 3:
			v[3]++ // the version of what is around the value
		case 4:
			v = sealed(key, append([]byte{v[12] + 1}, v[13:]...)) // the version of the value
		case 5:
			v = sealed(key, v[12:12+rnd.IntN(len(v)-12)])
		}
		bad[key], last = v, was
	}
	if err := p.cache.Put(bad); err != nil && !strings.Contains(err.Error(), "OOM") {
		p.t.Errorf("write rubbish: %v", err)
	}
}

// sealed is a value as a server keeps it, with a right checksum.
func sealed(key string, value []byte) []byte {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(key)
	_, _ = d.Write([]byte{0})
	_, _ = d.Write(value)
	return append(binary.BigEndian.AppendUint64([]byte("koi\x01"), d.Sum64()), value...)
}

// ServeHTTP hands a request to the process: it is an http.Handler of this one.
func (p *process) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI, out.Host = "http", p.addr, "", ""
	resp, err := http.DefaultClient.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	for name, vs := range resp.Header {
		w.Header()[name] = vs
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// ask asks so many questions after the first event; the others happen in turn while it goes on.
func (p *process) ask(name string, n int, first func(), events ...func()) {
	p.t.Helper()
	if first != nil {
		first()
	}
	p.round++
	f := &front{Handler: p, cfg: frontend.Config{ForwardHeaders: []string{viewHeader}}}
	f.cfg.Range.Align, f.cfg.Range.PartialResponse = true, true
	var wg sync.WaitGroup
	var done, failed atomic.Int64
	work := make(chan struct{})
	for i := range askersOfProcess {
		wg.Go(func() {
			a := &asker{Rand: rand.New(rand.NewPCG(uint64(i), 8)), w: p.w, covered: map[string]int{}, tenants: []string{"api", "db"}, steps: [2]int64{30_000, 60_000}}
			a.newPanels() // the same in each round
			large := question{plain: true, ranged: true, start: begin, end: begin + length, step: 7_000, request: request{path: "/api/v1/query_range"}}
			large.form, large.header = rangeForm(`{__name__=~".+"}`, large.start, large.end, large.step), http.Header{"Thanos-Tenant": {"api"}}
			large.form.Set("dedup", "false")
			a.Rand = rand.New(rand.NewPCG(p.round, uint64(i)))
			for range work {
				q := a.query()
				switch a.IntN(16) {
				case 0, 1:
					q = a.instant()
				case 2:
					q = large
				}
				if !p.compare(name, f, q) {
					failed.Add(1)
				}
				done.Add(1)
			}
		})
	}
	for i := range n {
		if len(events) > 0 && i%(n/len(events)) == 0 && i/(n/len(events)) < len(events) {
			events[i/(n/len(events))]()
		}
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	p.t.Logf("%s: %d questions, %d errors for the querier's trouble", name, done.Load(), failed.Load())
	if !p.Running() {
		p.t.Fatalf("%s: the frontend has ended", name)
	}
}

// compare asks the querier and the process, and tells whether these are the same; errors are for the querier's trouble only.
func (p *process) compare(name string, f *front, q question) bool {
	below := q.below(f)
	want, got := ask(p.t.Context(), p.t, p.w.querier, below), ask(p.t.Context(), p.t, f, q.request)
	if want.same(got) {
		return true
	}
	if p.below.often.Load() > 0 && (got.Code >= 500 || got.Code == 0 && !q.plain) {
		if err := got.decode(); got.Code != 0 && (err != nil || got.Body.Status != "error" || got.Body.ErrorType == "") && !strings.Contains(string(got.text), "trouble") {
			p.t.Errorf("%s: %s: no clear error: %d %s", name, &q, got.Code, got.text)
		}
		return false
	}
	others := []*reply{want}
	for range 8 { // some answers are not the same each time
		others = append(others, ask(p.t.Context(), p.t, p.w.querier, below))
	}
	if d := got.madeOf(others, false); d != "" {
		p.t.Errorf("%s: %s\n%s", name, &q, d)
	}
	return true
}

// counts holds what the process tells of itself.
func (p *process) counts(kind string) {
	p.t.Helper()
	// On a machine that is busy the server may have been too slow to be asked at all.
	counted := func(name string, again func(), with ...string) {
		fleet.Eventually(p.t, fmt.Sprintf("%s %v counts something", name, with), 2*time.Minute, func() error {
			if n, ok := fleet.Metric(p.t.Context(), "http://"+p.addr+"/metrics", name, with...); ok && n > 0 {
				p.t.Logf("%s %v: %v", name, with, n)
				return nil
			}
			p.ask("again", 2*askersOfProcess, again)
			return errors.New("it does not")
		})
	}
	counted("cortex_cache_hits_total", nil)
	counted("koios_cache_dropped_entries_total", p.corrupt)
	counted("koios_frontend_unreadable_entries_total", p.corrupt)
	if kind == "memcached" {
		counted("thanos_memcached_operation_failures_total", nil, `reason="server-error"`)
	}
}

// troubled is a querier of which one request in so many goes wrong.
type troubled struct {
	handler http.Handler
	often   atomic.Int64 // 0: none
	n       atomic.Int64
}

func (q *troubled) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	often := q.often.Load()
	if strings.HasSuffix(r.URL.Path, "/-/ready") {
		return
	}
	if often == 0 || q.n.Add(1)%often != 0 {
		q.handler.ServeHTTP(w, r)
		return
	}
	switch q.n.Load() / often % 4 {
	case 0: // nobody answers
		panic(http.ErrAbortHandler)
	case 1:
		body, err := json.Marshal(map[string]string{"status": "error", "errorType": "internal", "error": "trouble"})
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write(body)
	case 2: // half an answer, and the connection ends
		rec := serve(q.handler, r)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(rec.body.Bytes()[:rec.body.Len()/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case 3:
		time.Sleep(300 * time.Millisecond)
		q.handler.ServeHTTP(w, r)
	}
}
