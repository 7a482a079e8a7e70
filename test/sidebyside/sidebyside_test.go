//go:build compat

package sidebyside

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/answer"
	"github.com/koios-metrics/koios/test/bulk"
	"github.com/koios-metrics/koios/test/fleet"
)

func TestMain(m *testing.M) { os.Exit(fleet.Main(m)) }

const (
	from     = int64(1_700_006_400_000)
	interval = int64(15_000)
	rounds   = 3
)

// contender is a way to run a store and a querier.
type contender struct {
	name    string
	program string
	flags   []string // of the querier
}

// cost is what a query took.
type cost struct {
	wall   time.Duration
	cpu    time.Duration // of querier and store together
	peakMB float64       // resident memory of the querier at its highest
}

// Prints what the same queries over the same bucket take, in wall time, CPU time of both processes and peak
// memory of the querier, by Koios and by Thanos with each of its engines and strategies; and checks
// that all answers are equal where deduplication leaves no room.
func TestSideBySide(t *testing.T) {
	thanos := os.Getenv("KOIOS_THANOS")
	if thanos == "" {
		t.Fatal("name a Thanos program in KOIOS_THANOS: this test measures beside it")
	}
	bucket := t.TempDir()
	for i, replica := range []string{"a", "b"} {
		for _, s := range []bulk.Spec{
			{From: from + int64(i)*6_300, Interval: interval, Samples: 24 * 240, Series: bulk.Counters("requests_total", 8_000)},
			{From: from + int64(i)*6_300, Interval: interval, Samples: 120, Series: bulk.Counters("up", 140_000)},
		} {
			s.External, s.Seed = map[string]string{"cluster": "eu", "replica": replica}, uint64(i)
			if _, err := bulk.Write(t.Context(), bucket, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	contenders := []contender{{"koios", fleet.KoiosProgram(t), []string{"--query.promql-engine=thanos"}}, {"koios, prometheus", fleet.KoiosProgram(t), []string{"--query.promql-engine=prometheus"}}}
	for _, engine := range []string{"prometheus", "thanos"} {
		for _, strategy := range []string{"eager", "lazy"} {
			contenders = append(contenders, contender{"thanos, " + engine + ", " + strategy, thanos, []string{"--query.promql-engine=" + engine, "--grpc.proxy-strategy=" + strategy}})
		}
	}
	at := time.UnixMilli(from)
	for _, q := range []answer.Query{
		answer.Over(`sum by (job) (rate(requests_total[5m]))`, at.Add(10*time.Minute), at.Add(24*time.Hour-time.Minute), 4*time.Minute),
		answer.At(`count by (__name__) ({__name__=~".+"})`, at.Add(20*time.Minute)),
	} {
		t.Run(q.Expr, func(t *testing.T) {
			var all []cost
			for _, c := range contenders {
				all = append(all, c.run(t, bucket, q))
			}
			best := all[2]
			for _, c := range all[3:] {
				if c.wall < best.wall {
					best = c
				}
			}
			for i, c := range all {
				t.Logf("%-28s wall %8v cpu %8v peak %6.0f MB   against the fastest Thanos: wall %.2f cpu %.2f peak %.2f", contenders[i].name, c.wall.Round(time.Millisecond), c.cpu.Round(10*time.Millisecond), c.peakMB,
					float64(c.wall)/float64(best.wall), float64(c.cpu)/float64(best.cpu), c.peakMB/best.peakMB)
			}
		})
	}
}

// run asks a fresh store and querier some times and returns the median costs.
func (c contender) run(t *testing.T, bucket string, q answer.Query) cost {
	t.Helper()
	start := func(name string, flags ...string) *fleet.Component {
		o := &fleet.Component{HTTP: fleet.FreeAddr(t), GRPC: fleet.FreeAddr(t)}
		o.URL = "http://" + o.HTTP
		o.Process = fleet.Start(t, c.name+" "+name, c.program, append([]string{name, "--http-address=" + o.HTTP, "--grpc-address=" + o.GRPC, "--log.level=warn"}, flags...)...)
		return o.Ready(t)
	}
	store := start("store", "--data-dir="+t.TempDir(), "--objstore.config-file="+fleet.BucketConfig(t, bucket))
	querier := start("query", append([]string{"--query.replica-label=replica", "--endpoint=" + store.GRPC}, c.flags...)...)
	defer querier.Kill()
	defer store.Kill()
	var costs []cost
	for range rounds + 1 {
		before := cpu(t, store.PID()) + cpu(t, querier.PID())
		began := time.Now()
		a, err := answer.Ask(t.Context(), querier.URL, q)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if len(a.Series) == 0 {
			t.Fatalf("%s: no answer", c.name)
		}
		costs = append(costs, cost{wall: time.Since(began), cpu: cpu(t, store.PID()) + cpu(t, querier.PID()) - before})
	}
	costs = costs[1:] // the first warms caches
	slices.SortFunc(costs, func(a, b cost) int { return cmp.Compare(a.wall, b.wall) })
	median := costs[len(costs)/2]
	median.peakMB = peak(t, querier.PID())
	return median
}

// cpu reads the CPU time that a process has used.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks int64
	for _, s := range f[11:13] { // utime and stime
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// peak reads the highest resident memory of a process in MB.
func peak(t *testing.T, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb / 1024
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
