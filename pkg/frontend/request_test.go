package frontend

import (
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// Shows that a time in ms that is written as seconds is read as the same ms, around zero and anywhere else. A mutant that
// forgets the sign of times between -1 s and 0 dies here.
func TestTimesGoAndComeBack(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	check := func(ms int64) {
		t.Helper()
		if got, err := parseTime(formatTime(ms)); err != nil || got != ms {
			t.Fatalf("%d ms is written %s and read as %d, %v", ms, formatTime(ms), got, err)
		}
	}
	for ms := int64(-2100); ms < 2100; ms++ {
		check(ms)
	}
	for range 100_000 {
		check(rnd.Int64N(8e12) - 4e12)
	}
}

// Shows what is read as a time and a duration, and what is left to the querier.
func TestParseTimeAndDuration(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1.5": 1500, "-0.001": -1, "1e3": 1_000_000, "2023-11-15T00:00:00Z": 1_700_006_400_000, "2023-11-15T01:00:00.5+01:00": 1_700_006_400_500,
	} {
		if got, err := parseTime(s); err != nil || got != want {
			t.Errorf("time %q: %d, %v, want %d", s, got, err, want)
		}
	}
	for s, want := range map[string]int64{"15": 15_000, "0.5": 500, "1m": 60_000, "1h30m": 5_400_000} {
		if got, err := parseDuration(s); err != nil || got != want {
			t.Errorf("duration %q: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "NaN", "Inf", "1e300", "now", "x"} {
		if ms, err := parseTime(s); err == nil {
			t.Errorf("time %q is read as %d", s, ms)
		}
		if ms, err := parseDuration(s); err == nil {
			t.Errorf("duration %q is read as %d", s, ms)
		}
	}
	if ms, err := parseDuration("0.0005"); err == nil {
		t.Errorf("half a millisecond is read as %d", ms)
	}
}

// Shows which range queries are understood, and that all others go down as they came.
func TestParseRange(t *testing.T) {
	f := func(query string, understood bool) {
		t.Helper()
		form, err := url.ParseQuery("query=up&" + query)
		if err != nil {
			t.Fatal(err)
		}
		q, err := parseRange(call{}, form, parser.ParseExpr)
		if (err == nil) != understood {
			t.Errorf("%s: understood %v: %v", query, err == nil, err)
		}
		if err == nil && (q.start != 60_000 || q.end != 120_000 || q.step != 15_000) {
			t.Errorf("%s: %d to %d by %d", query, q.start, q.end, q.step)
		}
	}
	const times = "start=60&end=120&step=15"
	f(times, true)
	f(times+"&timeout=x", false)
	f(times+"&timeout=-1", false)
	f(times+"&dedup=false&partial_response=1&max_source_resolution=5m&replicaLabels[]=a&replicaLabels[]=b&storeMatch[]=x&lookback_delta=1m&engine=thanos&timeout=30&stats=all&analyze=true", true)
	f(times+"&dedup=", true)
	f("start=60&end=120", false) // the querier chooses the step
	f("start=60&step=15", false)
	f("start=120&end=60&step=15", false)
	f("start=0&end=1000000&step=1", false) // too many steps
	f("start=60&end=120&step=0", false)
	f("start=60&end=120&step=-1", false)
	f(times+"&dedup=maybe", false)
	f(times+"&start=61", false) // twice
	f(times+"&limit=3", false)
	f(times+"&shard_info={}", false)
	f(times+"&query=up", false)
	f(times+"&max_samples_processed_warning_threshold=7", false)
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"1.5", "2023-11-15T00:00:00Z", "-1e9", "1h", strings.Repeat("9", 40)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ms, err := parseTime(s); err == nil && ms%1000 == 0 {
			if again, err := parseTime(formatTime(ms)); err != nil || again != ms {
				t.Errorf("%q is %d ms, which is written %s and read as %d, %v", s, ms, formatTime(ms), again, err)
			}
		}
		_, _ = parseDuration(s)
	})
}
