//go:build compat

package sidebyside

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/test/bulk"
	"github.com/koios-metrics/koios/test/fleet"
)

const (
	frontendSeries = 1_000
	panelRepeats   = 3 // warm and shifted requests of a round
	clients        = 50
)

// frontends are the two programs, ours first.
var frontends = [2]string{"koios", "thanos"}

// frontendCost is what a request took of the process of the frontend.
type frontendCost struct {
	wall, cpu time.Duration // of one request
	peakMB    float64       // resident memory of the process at its highest during them
}

// frontendWorld is a store with a querier, which two kinds of frontends are started before.
type frontendWorld struct {
	querier *fleet.Component
	cache   string // the configuration of the cache
	program [2]string
	client  *http.Client
}

func newFrontendWorld(t *testing.T, specs ...bulk.Spec) *frontendWorld {
	t.Helper()
	thanos := os.Getenv("KOIOS_THANOS")
	if thanos == "" {
		t.Fatal("name a Thanos program in KOIOS_THANOS: this test measures beside it")
	}
	bucket := t.TempDir()
	for _, s := range specs {
		s.External = map[string]string{"cluster": "eu", "replica": "a"}
		writeBulk(t, bucket, s)
	}
	store := fleet.StartStore(t, bucket, "--log.level=warn")
	w := &frontendWorld{
		querier: fleet.StartQuery(t, []*fleet.Component{store}, "--log.level=warn", "--query.max-memory=4GB"),
		cache:   filepath.Join(t.TempDir(), "cache.yml"),
		program: [2]string{fleet.KoiosProgram(t), thanos},
		client:  &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: clients}},
	}
	t.Cleanup(w.client.CloseIdleConnections)
	if err := os.WriteFile(w.cache, []byte("{type: IN-MEMORY, config: {max_size: 2GB}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// start starts one of the two before a URL, with an empty cache.
func (w *frontendWorld) start(t *testing.T, which int, downstream string) *fleet.Component {
	t.Helper()
	c := &fleet.Component{HTTP: fleet.FreeAddr(t)}
	c.URL = "http://" + c.HTTP
	c.Process = fleet.Start(t, frontends[which], w.program[which], "query-frontend", "--http-address="+c.HTTP, "--log.level=warn",
		"--query-frontend.downstream-url="+downstream, "--query-range.response-cache-config-file="+w.cache)
	return c.Ready(t)
}

// panel is a range query; times in seconds.
type panel struct {
	expr             string
	start, end, step int64
}

func (p panel) later(seconds int64) panel {
	p.start, p.end = p.start+seconds, p.end+seconds
	return p
}

// ask asks for a panel as Grafana does, and returns the length of the answer. Into, if not nil, gets the answer.
func (w *frontendWorld) ask(ctx context.Context, base string, p panel, into io.Writer) (int64, error) {
	form := url.Values{"query": {p.expr}, "start": {fmt.Sprint(p.start)}, "end": {fmt.Sprint(p.end)}, "step": {fmt.Sprint(p.step)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/query_range", strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := w.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	if into == nil {
		into = io.Discard
	}
	n, err := io.Copy(into, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", base, resp.Status)
	}
	return n, err
}

// fingerprint is what a panel's answer says, however it is written.
func (w *frontendWorld) fingerprint(t *testing.T, base string, p panel) string {
	t.Helper()
	var text strings.Builder
	if _, err := w.ask(t.Context(), base, p, &text); err != nil {
		t.Fatal(err)
	}
	var a struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text.String()), &a); err != nil {
		t.Fatal(err)
	}
	if len(a.Data.Result) == 0 {
		t.Fatalf("%s: no answer to %v", base, p)
	}
	lines := make([]string, 0, len(a.Data.Result))
	for _, s := range a.Data.Result {
		h := sha256.New()
		for _, v := range s.Values {
			text, _ := v[1].(string)
			f, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintln(h, v[0], f)
		}
		lines = append(lines, fmt.Sprintf("%v %d %x", s.Metric, len(s.Values), h.Sum(nil)))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// same checks that a frontend answers as the querier does.
func (w *frontendWorld) same(t *testing.T, f *fleet.Component, p panel) {
	t.Helper()
	if w.fingerprint(t, w.querier.URL, p) != w.fingerprint(t, f.URL, p) {
		t.Errorf("another answer than the querier's to %v", p)
	}
}

// measureFrontend asks for n panels and returns what one took.
func (w *frontendWorld) measureFrontend(t *testing.T, f *fleet.Component, n int, which func(i int) panel) (c frontendCost) {
	t.Helper()
	resetPeak(t, f.PID())
	before := cpu(t, f.PID())
	walls := make([]time.Duration, 0, n)
	for i := range n {
		begin := time.Now()
		if _, err := w.ask(t.Context(), f.URL, which(i), nil); err != nil {
			t.Fatal(err)
		}
		walls = append(walls, time.Since(begin))
	}
	slices.Sort(walls)
	return frontendCost{wall: walls[n/2], cpu: (cpu(t, f.PID()) - before) / time.Duration(n), peakMB: peak(t, f.PID())}
}

// crowd lets clients ask for a panel each at the same time and returns the whole time.
func (w *frontendWorld) crowd(t *testing.T, f *fleet.Component, p panel) frontendCost {
	t.Helper()
	resetPeak(t, f.PID())
	before, begin := cpu(t, f.PID()), time.Now()
	g, ctx := errgroup.WithContext(t.Context())
	for range clients {
		g.Go(func() error { _, err := w.ask(ctx, f.URL, p, nil); return err })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return frontendCost{wall: time.Since(begin) / clients, cpu: (cpu(t, f.PID()) - before) / clients, peakMB: peak(t, f.PID())}
}

// resetPeak makes the kernel forget the highest resident memory of a process so far.
func resetPeak(t *testing.T, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// Prints what a day of 1,000 series at a step of a minute takes of our frontend's process and of Thanos's before the same
// querier, by turns: asked for the first time, again, and moved on by a minute each time; and how many of 50 clients
// that ask at once are answered in a time. All answers are checked against the querier's.
func TestCompareFrontend(t *testing.T) {
	w := newFrontendWorld(t, bulk.Spec{From: from, Interval: interval, Samples: 38 * 240, Series: bulk.Counters("requests_total", frontendSeries)})
	n, err := strconv.Atoi(os.Getenv("KOIOS_FRONTEND_ROUNDS"))
	if err != nil {
		n = rounds
	}
	// Half a day lies on each side of midnight, as it mostly does.
	day := panel{start: from/1000 + 12*3600, end: from/1000 + 36*3600, step: 60}
	for _, expr := range []string{`requests_total`, `rate(requests_total[5m])`} {
		day.expr = expr
		coarse := day
		coarse.step = 600 // so that fifty answers at a time fit into the memory of a small machine
		t.Run(expr, func(t *testing.T) {
			phases := []string{"cold", "warm", "shifted", fmt.Sprint(clients, " clients")}
			costs := map[string][2][]frontendCost{}
			add := func(phase string, which int, c frontendCost) {
				both := costs[phase]
				both[which] = append(both[which], c)
				costs[phase] = both
				t.Logf("round %d %-10s %-7s wall %8v cpu %8v peak %6.0f MB", len(both[which]), phase, frontends[which], c.wall.Round(time.Millisecond), c.cpu.Round(time.Millisecond), c.peakMB)
			}
			for round := range n {
				for i := range frontends {
					which := (round + i) % 2
					f := w.start(t, which, w.querier.URL)
					add("cold", which, w.measureFrontend(t, f, 1, func(int) panel { return day }))
					add("warm", which, w.measureFrontend(t, f, panelRepeats, func(int) panel { return day }))
					add("shifted", which, w.measureFrontend(t, f, panelRepeats, func(i int) panel { return day.later(int64(i+1) * 60) }))
					if round == 0 {
						w.same(t, f, day)
						w.same(t, f, day.later(120))
					}
					f.Stop(t)
					f = w.start(t, which, w.querier.URL)
					if _, err := w.ask(t.Context(), f.URL, coarse, nil); err != nil {
						t.Fatal(err)
					}
					add(phases[3], which, w.crowd(t, f, coarse))
					f.Stop(t)
				}
			}
			wall := func(c frontendCost) float64 { return float64(c.wall) }
			for i, name := range frontends {
				t.Logf("%-7s asked again takes %.3f of the time of the first", name, medianOf(costs["warm"][i], wall)/medianOf(costs["cold"][i], wall))
			}
			for _, phase := range phases {
				for i, name := range frontends {
					m := medianCost(costs[phase][i])
					t.Logf("%-10s %-7s wall %8v cpu %8v peak %6.0f MB", phase, name, m.wall.Round(time.Millisecond), m.cpu.Round(time.Millisecond), m.peakMB)
				}
				t.Logf("%-10s ratios of medians: wall %s cpu %s peak %s", phase,
					ratios(costs[phase], wall),
					ratios(costs[phase], func(c frontendCost) float64 { return float64(c.cpu) }),
					ratios(costs[phase], func(c frontendCost) float64 { return c.peakMB }))
			}
		})
	}
}

// medianCost is the median of each part by itself.
func medianCost(cs []frontendCost) (m frontendCost) {
	m.wall = time.Duration(medianOf(cs, func(c frontendCost) float64 { return float64(c.wall) }))
	m.cpu = time.Duration(medianOf(cs, func(c frontendCost) float64 { return float64(c.cpu) }))
	m.peakMB = medianOf(cs, func(c frontendCost) float64 { return c.peakMB })
	return m
}

func medianOf(cs []frontendCost, f func(frontendCost) float64) float64 {
	vs := make([]float64, len(cs))
	for i, c := range cs {
		vs[i] = f(c)
	}
	slices.Sort(vs)
	return vs[len(vs)/2]
}

// ratios is ours to theirs: of the medians, and from the least to the most of the rounds.
func ratios(both [2][]frontendCost, f func(frontendCost) float64) string {
	each := make([]float64, len(both[0]))
	for i := range each {
		each[i] = f(both[0][i]) / f(both[1][i])
	}
	slices.Sort(each)
	return fmt.Sprintf("%.2f (%.2f to %.2f)", medianOf(both[0], f)/medianOf(both[1], f), each[0], each[len(each)-1])
}

// The dashboard: panels over a week, refreshed each minute.
const (
	dashboardPanels    = 20
	dashboardRefreshes = 60
	dashboardDays      = 7
	dashboardStep      = 300
)

// counter stands before the querier and counts the steps that it is asked to evaluate.
type counter struct {
	steps atomic.Int64
	url   string
}

func (w *frontendWorld) newCounter(t *testing.T) *counter {
	t.Helper()
	c := &counter{}
	c.url = serveCounting(t, w.querier.URL, func(form url.Values) {
		var v [3]float64
		for i, name := range []string{"start", "end", "step"} {
			f, err := strconv.ParseFloat(form.Get(name), 64)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			v[i] = f
		}
		c.steps.Add(int64((v[1]-v[0])/v[2]) + 1)
	})
	return c
}

// Prints how much of a dashboard of 20 panels over a week, looked at again each minute for an hour, the querier has to
// evaluate again, the share of keys that each program finds in its cache, and how long a panel takes at first and
// again. The last refresh ends now.
func TestCompareDashboard(t *testing.T) {
	now := time.Now().Truncate(time.Minute)
	begin := now.Add(-dashboardDays*24*time.Hour - 3*time.Hour)
	w := newFrontendWorld(t, bulk.Spec{From: begin.UnixMilli(), Interval: 60_000, Samples: int(now.Sub(begin) / time.Minute), Series: bulk.Counters("requests_total", 160)})
	for which, name := range frontends {
		c := w.newCounter(t)
		f := w.start(t, which, c.url)
		var asked, first int64
		var cold, warm []time.Duration
		load := func(end int64) []time.Duration {
			var mu sync.Mutex
			var walls []time.Duration
			g, ctx := errgroup.WithContext(t.Context())
			g.SetLimit(6) // as browsers do
			for i := range dashboardPanels {
				p := panel{start: end - dashboardDays*86_400, end: end, step: dashboardStep}
				p.expr = fmt.Sprintf(`sum by (method) (rate(requests_total{job=~"job-.%d."}[%dm]))`, i%8, 5+5*(i/8))
				g.Go(func() error {
					at := time.Now()
					_, err := w.ask(ctx, f.URL, p, nil)
					mu.Lock()
					defer mu.Unlock()
					walls = append(walls, time.Since(at))
					asked += (p.end/dashboardStep - p.start/dashboardStep) + 1
					return err
				})
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			return walls
		}
		for i := range int64(dashboardRefreshes + 1) {
			end := now.Unix() - (dashboardRefreshes-i)*60
			if walls := load(end); i == 0 {
				cold, first = walls, c.steps.Load()
				asked = 0
			} else {
				warm = append(warm, walls...)
			}
		}
		metric := func(name string) float64 {
			v, ok := f.Metric(t, name, `tripperware="query_range"`)
			if !ok {
				t.Fatalf("no metric %s", name)
			}
			return v
		}
		again := c.steps.Load() - first
		slices.Sort(cold)
		slices.Sort(warm)
		t.Logf("%-7s steps evaluated again %6.3f %% of %d; keys found %.2f %% of %.0f; p50 of a panel again %.3f of the first time", name,
			100*float64(again)/float64(asked), asked, 100*metric("cortex_cache_hits_total")/metric("cortex_cache_fetched_keys_total"),
			metric("cortex_cache_fetched_keys_total"), float64(warm[len(warm)/2])/float64(cold[len(cold)/2]))
		f.Stop(t)
	}
}
