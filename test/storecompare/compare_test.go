//go:build compat

package storecompare

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/koios-metrics/koios/test/fleet"
)

func TestMain(m *testing.M) { os.Exit(fleet.Main(m)) }

const (
	rounds = 5 // of what is asked of fresh processes
	// A warm request is repeated for so long, and so often at least.
	warmTime, warmTimes = 400 * time.Millisecond, 3
	// Clients that ask everything at once, and how often each asks each question.
	clients, turns = 4, 3
)

// caches are the flags for a cache as it is by default, and for one that holds nothing to speak of.
var caches = []struct {
	name  string
	flags []string
}{
	{"caches on", nil},
	{"caches off", []string{"--index-cache.config={type: IN-MEMORY, config: {max_size: 1KB, max_item_size: 1B}}"}},
}

// Prints what the same requests over the same bucket take of this tree's store gateway and of another program, as
// ratios, the other being 1.00: the start with an empty and a warm disk; the first request to a fresh process; the same
// when it is asked again; many clients at once. Checks first that both answer the same series and samples.
func TestStores(t *testing.T) {
	peer := os.Getenv("KOIOS_PEER")
	if peer == "" {
		t.Fatal("name a program in KOIOS_PEER: this test measures beside it")
	}
	ours, theirs := program{"ours", os.Getenv("KOIOS_STORE")}, program{"theirs", peer}
	if ours.path == "" {
		ours.path = fleet.KoiosProgram(t)
	}
	w := newWorld(t)
	t.Logf("%d million samples in %d blocks", w.samples/1_000_000, 4*(w.hours/2))
	disks := t.TempDir()
	data := func(p program, name string) string { return filepath.Join(disks, p.name+"-"+name) }

	only := regexp.MustCompile(os.Getenv("KOIOS_COMPARE_QUESTIONS"))

	var start [2][]pair // empty, warm
	for i := range rounds {
		name := fmt.Sprint("start-", i)
		for j := range start {
			start[j] = append(start[j], byTurns(i, func(p program) cost {
				r := p.begin(t, w, data(p, name))
				defer r.end(t)
				return r.start
			}, ours, theirs))
		}
	}
	report(t, "start, empty disk", start[0])
	report(t, "start, warm disk", start[1])

	w.sameAnswers(t, ours.begin(t, w, data(ours, "start-0")), theirs.begin(t, w, data(theirs, "start-0")))

	for _, c := range caches {
		for _, q := range w.questions() {
			if !only.MatchString(q.name) {
				continue
			}
			var cold, warm []pair
			for i := range rounds {
				both := map[string]*running{}
				for _, p := range []program{ours, theirs} {
					both[p.name] = p.begin(t, w, data(p, "start-0"), c.flags...)
				}
				cold = append(cold, byTurns(i, func(p program) cost { return both[p.name].ask(t, q, 1) }, ours, theirs))
				times := max(warmTimes, int(warmTime/max(cold[i].ours.wall, time.Millisecond)))
				warm = append(warm, byTurns(i, func(p program) cost { return both[p.name].ask(t, q, times) }, ours, theirs))
				for _, r := range both {
					r.end(t)
				}
			}
			report(t, q.name+", "+c.name+", cold", cold)
			report(t, q.name+", "+c.name+", warm", warm)
		}
		var crowd []pair
		for i := range rounds {
			crowd = append(crowd, byTurns(i, func(p program) cost {
				r := p.begin(t, w, data(p, "start-0"), c.flags...)
				defer r.end(t)
				return w.crowd(t, r)
			}, ours, theirs))
		}
		report(t, fmt.Sprintf("%d clients, %s", clients, c.name), crowd)
	}
}

// sameAnswers checks that both say the same.
func (w world) sameAnswers(t *testing.T, ours, theirs *running) {
	t.Helper()
	defer ours.end(t)
	defer theirs.end(t)
	for _, q := range w.questions() {
		a, err := read(t.Context(), ours.cc, q)
		if err != nil {
			t.Fatalf("%s, ours: %v", q.name, err)
		}
		b, err := read(t.Context(), theirs.cc, q)
		if err != nil {
			t.Fatalf("%s, theirs: %v", q.name, err)
		}
		if len(b.series)+len(b.strings) == 0 {
			t.Errorf("%s: no answer", q.name)
		}
		diff := gocmp.Diff(b.strings, a.strings)
		for ls, h := range b.series {
			if a.series[ls] != h {
				diff += fmt.Sprintf("{%s}: %v, want %v\n", ls, a.series[ls], h)
			}
		}
		if len(a.series) != len(b.series) {
			diff += fmt.Sprintf("%d series, want %d\n", len(a.series), len(b.series))
		}
		if diff != "" {
			t.Errorf("%s: answers differ:\n%s", q.name, diff[:min(len(diff), 2000)])
		}
		t.Logf("%-32s the same: %d series, %d samples, %d values", q.name, len(a.series), a.samples(), len(a.strings))
	}
}

// crowd has some clients ask everything at once.
func (w world) crowd(t *testing.T, r *running) cost {
	t.Helper()
	var wg sync.WaitGroup
	cpu, began := r.cpu(t), time.Now()
	for c := range clients {
		wg.Go(func() {
			qs := w.questions()
			for i := range turns * len(qs) {
				if _, err := ask(t.Context(), r.cc, qs[(i+c)%len(qs)]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return cost{time.Since(began), r.cpu(t) - cpu, r.PeakRSS(t)}
}

// pair is what the same thing took of both.
type pair struct{ ours, theirs cost }

// byTurns does something with both, beginning with the one or the other.
func byTurns(i int, do func(program) cost, ours, theirs program) (p pair) {
	if i%2 == 0 {
		p.ours, p.theirs = do(ours), do(theirs)
		return p
	}
	p.theirs, p.ours = do(theirs), do(ours)
	return p
}

// report prints the median ratios.
func report(t *testing.T, what string, pairs []pair) {
	t.Helper()
	median := func(ratio func(pair) float64) float64 {
		all := make([]float64, len(pairs))
		for i, p := range pairs {
			all[i] = ratio(p)
		}
		slices.SortFunc(all, cmp.Compare)
		return all[len(all)/2]
	}
	wall := median(func(p pair) float64 { return p.ours.wall.Seconds() / p.theirs.wall.Seconds() })
	cpu := median(func(p pair) float64 { return p.ours.cpu.Seconds() / p.theirs.cpu.Seconds() })
	rss := median(func(p pair) float64 { return float64(p.ours.rss) / float64(p.theirs.rss) })
	var missed []string
	for _, g := range []struct {
		name       string
		ratio, max float64
	}{{"wall", wall, 0.5}, {"cpu", cpu, 0.5}, {"rss", rss, 1. / 3}} {
		if g.ratio > g.max {
			missed = append(missed, g.name)
		}
	}
	last := pairs[len(pairs)-1]
	t.Logf("%-50s wall %.2f cpu %.2f rss %.2f   (%v %v %d MiB; theirs %v %v %d MiB) %s", what, wall, cpu, rss,
		last.ours.wall.Round(time.Microsecond*100), last.ours.cpu.Round(time.Microsecond*100), last.ours.rss>>20,
		last.theirs.wall.Round(time.Microsecond*100), last.theirs.cpu.Round(time.Microsecond*100), last.theirs.rss>>20, strings.Join(missed, ","))
}
