package dedup

import (
	"fmt"
	"strings"
	"testing"
)

// every makes "t:v" samples of a counter that grows by one a second, from, to and each in seconds.
func every(from, to, each float64, skip ...float64) string {
	var s strings.Builder
next:
	for t := from; t <= to; t += each {
		for i := 0; i+1 < len(skip); i += 2 {
			if t >= skip[i] && t <= skip[i+1] {
				continue next
			}
		}
		fmt.Fprintf(&s, "%g:%g ", t, 1000+t)
	}
	return s.String()
}

// holes are the longest distance and the number of falls in a stream.
func holes(ps []point) (longest int64, falls int) {
	for i := 1; i < len(ps); i++ {
		longest = max(longest, ps[i].t-ps[i-1].t)
		if ps[i].v < ps[i-1].v {
			falls++
		}
	}
	return longest, falls
}

// Shows that what users reported of penalty-style deduplication does not happen here. The streams are made
// after the descriptions in the threads named. (It kills the mutant without fill and the one that ranks replicas
// in the order in which they come.)
func TestReportedFailures(t *testing.T) {
	f := func(name string, longest int64, falls int, replicas ...string) []point {
		t.Helper()
		var rs [][]point
		for _, r := range replicas {
			rs = append(rs, parse(r))
		}
		got := merged(Options{}, rs...)
		if l, n := holes(got); l > longest*1000 || n != falls {
			t.Errorf("%s: %d ms without a sample and %d falls, want at most %d s and %d\n%s", name, l, n, longest, falls, format(got))
		}
		return got
	}
	// thanos#981: one of two servers stops scraping a target for a while, the other goes on; the merged graph has
	// the first one's hole. Others add: after an outage of both, each change of the replica leaves a hole, unless
	// the range that is looked at begins after the outage.
	f("981, one stops", 22, 0, every(0, 900, 15, 300, 600), every(7, 900, 15))
	got := f("981, both were down before", 307, 0, every(0, 1800, 15, 300, 585, 900, 960, 1200, 1320), every(7, 1800, 15, 300, 585, 1050, 1110))
	if l, _ := holes(between(got, 592_000, 1_800_000)); l > 22_000 {
		t.Errorf("981: %d ms without a sample after the outage of both", l)
	}
	// thanos#7364: scrapes of one server time out now and then; the other's, which are complete, are not taken.
	f("7364", 45, 0, every(0, 1800, 30, 300, 420, 600, 660, 900, 1020), every(13, 1800, 30))
	// thanos#7656: two servers, each continuous but for short pauses of its own; merged, the pauses are long.
	f("7656", 90, 0, every(0, 3600, 60, 600, 660, 1800, 1860), every(25, 3600, 60, 1200, 1260, 2400, 2460))

	// thanos#1788: a process restarts; the two servers, seven seconds apart, see it at different scrapes, and
	// rate() of the merged counter is far too high. There is one restart: one fall, and the rest grows by 1/s.
	restarted := func(from float64) string {
		var s strings.Builder
		for t := from; t <= 300; t += 15 {
			v := 668153 + t
			if t >= 150 {
				v = t - 149
			}
			fmt.Fprintf(&s, "%g:%g ", t, v)
		}
		return s.String()
	}
	got = f("1788", 15, 1, restarted(0), restarted(7))
	if x, _ := increase(got, 60_000, 240_000); x < 160 || x > 181 {
		t.Errorf("1788: grew by %g in 180 s with a restart", x)
	}

	// thanos#2890: rate() is wrong for the newest minutes only, with servers that scrape each minute and are out of
	// step: the newest sample of one lies before that of the other, and is behind. The end is as good as the rest.
	got = f("2890", 90, 0, every(0, 1200, 60), every(29, 1230, 60))
	if x, _ := increase(got, 930_000, 1_230_000); x < 270 || x > 330 {
		t.Errorf("2890: grew by %g in 300 s", x)
	}

	// thanos#7623: three servers scrape within the same second each; two see a counter of 78988 and one, between
	// them in time, 78989. Merged as three samples, it falls by one, and rate() takes it for a restart.
	f("7623", 20, 0,
		"1786.6:78988 1806.6:78995 1826.6:79001 1846.6:79007 1866.6:79013 1886.6:79019 1906.6:79025 1926.6:79031",
		"1787.488:78988 1807.488:78995 1827.488:79001 1847.488:79007 1867.488:79013 1887.488:79019 1907.488:79025",
		"1787.413:78989 1807.413:78996 1827.413:79002 1847.413:79008 1867.413:79014 1887.413:79020 1907.413:79026")

	// thanos#8061: two servers scrape 54 ms apart, and the later sample of a counter is the lower one, by a hair.
	f("8061", 16, 0,
		"809.833:3829920.063 824.833:3829935.07 839.833:3829950.06 854.833:3829965.08 899.833:3830010.1 914.833:3830025.1",
		"809.887:3829920.042 824.887:3829935.05 839.887:3829950.04 854.887:3829965.06 869.887:3829980.05 884.887:3829995.05 899.887:3830010.06")
}

// Shows that chain is never worse than Thanos's: all samples in order of time, each timestamp once, whatever
// the kinds. (It kills the mutant that gives chain the road of stay.)
func TestChainIsTheUnion(t *testing.T) {
	for seed := range uint64(pairs(100)) {
		p := newPair(seed, 200)
		got := merged(Options{Mode: Chain}, p.replicas...)
		times := map[int64]bool{}
		for _, r := range p.replicas {
			for _, q := range r {
				times[q.t] = true
			}
		}
		if len(got) != len(times) {
			t.Fatalf("seed %d: %d samples, want %d", seed, len(got), len(times))
		}
	}
}
