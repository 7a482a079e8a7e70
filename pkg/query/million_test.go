//go:build campaign && linux

package query

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/koios-metrics/koios/pkg/store"
)

// millionBudget is what queries may hold, and what the process may hold in all.
const millionBudget = 512 << 20

// Shows that a million series in two replicas, six hours of them scraped each minute, are aggregated to a few
// groups and to a hundred thousand within 512 MiB of memory, as the kernel counts it, without a limit on the
// Go runtime; and that what does not fit is refused and leaves nothing behind.
func TestMillionSeries(t *testing.T) {
	for _, c := range []struct {
		expr   string
		step   time.Duration
		groups int
	}{
		{`sum by (job) (rate(http_requests_total[5m]))`, time.Minute, 10},
		{`sum by (pod) (rate(http_requests_total[5m]))`, 5 * time.Minute, 100_000},
		{`sum by (pod) (rate(http_requests_total[5m]))`, time.Minute, -1},
		{`avg by (pod) (http_requests_total)`, 10 * time.Minute, 100_000},
	} {
		child := exec.Command(os.Args[0], "-test.run=^TestMillionChild$", "-test.v")
		child.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "GOMEMLIMIT=") || strings.HasPrefix(e, "GOGC=") }),
			"MILLION_EXPR="+c.expr, "MILLION_STEP="+c.step.String())
		out, err := child.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", c.expr, err, out)
		}
		var groups, rss int64
		var wall time.Duration
		var text string
		for line := range strings.Lines(string(out)) {
			if n, _ := fmt.Sscanf(line, "million: groups=%d rss=%d wall=%d", &groups, &rss, &wall); n == 3 {
				_, text, _ = strings.Cut(strings.TrimSpace(line), "error=")
			}
		}
		t.Logf("%s each %s: %d groups, peak of %d MiB, %s %s", c.expr, c.step, groups, rss>>20, wall.Round(time.Millisecond), text)
		if groups != int64(c.groups) {
			t.Errorf("%s: got %d groups, want %d\n%s", c.expr, groups, c.groups, out)
		}
		if rss == 0 || rss > millionBudget {
			t.Errorf("%s: peak of %d bytes", c.expr, rss)
		}
	}
}

// TestMillionChild asks one question in a process of its own, for TestMillionSeries.
func TestMillionChild(t *testing.T) {
	expr := os.Getenv("MILLION_EXPR")
	if expr == "" {
		return
	}
	step, err := time.ParseDuration(os.Getenv("MILLION_STEP"))
	if err != nil {
		t.Fatal(err)
	}
	f := newFleet(1_000_000, 10, time.Minute, 6*time.Hour)
	f.pods = 100_000
	q := newQuerier(t, f, Config{ChunkBytesMax: millionBudget})
	began := time.Now()
	res, err := q.Exec(t.Context(), Request{
		Options: Options{Dedup: true, ReplicaLabels: []string{"replica"}},
		Expr:    expr, Engine: EngineThanos, Start: time.UnixMilli(base), End: time.UnixMilli(base + 6*3600_000), Step: step,
	})
	groups := -1
	if err == nil {
		groups = len(res.Value.(promql.Matrix))
		res.Close()
	} else if store.KindOf(err) != store.KindLimit {
		t.Fatal(err)
	}
	if used := q.chunkBytes.Used(); used != 0 {
		t.Errorf("%d bytes are still in use", used)
	}
	fmt.Printf("\nmillion: groups=%d rss=%d wall=%d error=%v\n", groups, peakRSS(t), time.Since(began), err)
}

// peakRSS is the most memory that the kernel has seen this process hold.
func peakRSS(t *testing.T) (n int64) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if _, err := fmt.Sscanf(s.Text(), "VmHWM: %d kB", &n); err == nil {
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
