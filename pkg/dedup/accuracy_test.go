package dedup

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// increase is PromQL's function over the samples in (from, to]: what the counter has grown between the first
// and the last, falls taken for restarts, and as much as that says about the rest of the range.
func increase(ps []point, from, to int64) (float64, bool) {
	ps = between(ps, from+1, to)
	if len(ps) < 2 {
		return 0, false
	}
	first, last := ps[0], ps[len(ps)-1]
	grown := last.v - first.v
	for i := 1; i < len(ps); i++ {
		if ps[i].v < ps[i-1].v {
			grown += ps[i-1].v
		}
	}
	covered := float64(last.t - first.t)
	average := covered / float64(len(ps)-1)
	before, after := float64(first.t-from), float64(to-last.t)
	// Further than 1.1 average distances from the end of the range the series is taken to begin or end.
	if before >= average*1.1 {
		before = average / 2
	}
	if grown > 0 && first.v >= 0 {
		before = min(before, covered*first.v/grown) // where it was zero
	}
	if after >= average*1.1 {
		after = average / 2
	}
	return grown * (covered + before + after) / covered, true
}

// penalty models the deduplication that Thanos calls so, with its adjustment of counters, as its
// behaviour is known from outside: after a sample of one side the other is sought past twice the last distance.
// What is added at a switch stays, and is counted as growth where a replica restarts: so its worst errors are
// those of ranges with a restart, after some switches.
func penalty(a, b []point) (out []point) {
	const none = math.MinInt64
	sides := [2]struct {
		ps      []point
		penalty int64
		lift    float64
	}{{ps: a}, {ps: b}}
	last, on := int64(none), 0
	lastV := math.Inf(-1)
	if len(a) > 0 {
		lastV = a[0].v
	}
	for {
		for i := range sides {
			s := &sides[i]
			for last != none && len(s.ps) > 0 && s.ps[0].t < last+1+s.penalty {
				s.ps = s.ps[1:]
			}
		}
		var x int
		ended := false
		switch {
		case len(sides[0].ps) == 0 && len(sides[1].ps) == 0:
			return out
		case len(sides[1].ps) == 0:
			x, ended = 0, true
		case len(sides[0].ps) == 0:
			x, ended = 1, true
		case sides[1].ps[0].t < sides[0].ps[0].t:
			x = 1
		}
		if x != on {
			for i := range sides {
				if s := &sides[i]; len(s.ps) > 0 {
					s.lift += max(0, lastV-(s.ps[0].v+s.lift))
				}
			}
		}
		on = x
		p := sides[x].ps[0]
		p.v += sides[x].lift
		sides[x].penalty = 0
		if !ended {
			sides[1-x].penalty = 5000
			if last != none {
				sides[1-x].penalty = 2 * (p.t - last)
			}
		}
		last, lastV = p.t, p.v
		out = append(out, p)
	}
}

// errorsOf collects, for each way to read pairs, how far increase is from the truth, as part of the truth.
type errorsOf map[string][]float64

func (e errorsOf) quantile(way string, q float64) float64 {
	all := e[way]
	return all[min(len(all)-1, int(q*float64(len(all))))]
}

var quantiles = []struct {
	name string
	q    float64
}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1}}

// ways are what is compared: each replica alone, one that missed nothing, Thanos's penalty, and ours.
var ways = []string{"replica a", "replica b", "never missing", "thanos penalty", "koios"}

func measure(n int) errorsOf {
	const scrapes = 600
	e := errorsOf{}
	for seed := range uint64(n) {
		p := newPair(1_000_000+seed, scrapes)
		a, b := p.replicas[0], p.replicas[1]
		read := [][]point{a, b, p.never, penalty(a, b), merged(Options{}, a, b)}
		// increase[5m], or over five scrapes where that is longer.
		window := max(300_000, 5*p.interval)
		for range 60 {
			from := 4*p.interval + p.rnd.Int64N(max(1, (scrapes-8)*p.interval-window))
			truth := p.grown(from+window) - p.grown(from)
			for i, ps := range read {
				got, ok := increase(ps, from, from+window)
				if !ok {
					got = 0
				}
				e[ways[i]] = append(e[ways[i]], math.Abs(got-truth)/truth)
			}
		}
	}
	for _, all := range e {
		slices.Sort(all)
	}
	return e
}

func (e errorsOf) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%-16s", "error of increase")
	for _, q := range quantiles {
		fmt.Fprintf(&s, " %9s", q.name)
	}
	for _, way := range ways {
		fmt.Fprintf(&s, "\n%-17s", way)
		for _, q := range quantiles {
			fmt.Fprintf(&s, " %8.3f%%", 100*e.quantile(way, q.q))
		}
	}
	return s.String()
}

// worse names the quantiles at which one way is worse than a replica that missed nothing by more than 5 %.
func (e errorsOf) worse(way string) (names []string) {
	for _, q := range quantiles {
		if e.quantile(way, q.q) > 1.05*e.quantile("never missing", q.q) {
			names = append(names, q.name)
		}
	}
	return names
}

// Shows that increase over the merged stream is as near to the truth as over a replica that never missed a
// scrape: no quantile of its error is more than 5 % larger. (It kills the mutant that always takes the first
// replica, which is asserted.) `make dedup-accuracy` prints the table.
func TestAccuracy(t *testing.T) {
	n := pairs(10_000)
	e := measure(n)
	t.Logf("%d pairs, %d ranges each\n%s", n, len(e["koios"])/max(1, n), e)
	if names := e.worse("koios"); len(names) > 0 {
		t.Errorf("worse than a replica that never missed a scrape at %v\n%s", names, e)
	}
	if names := e.worse("replica a"); len(names) == 0 {
		t.Error("the mutant that always takes the first replica is not told apart")
	}
}
