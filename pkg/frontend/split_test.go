package frontend

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

func testQuery(t testing.TB, query string, start, end, step int64) *rangeQuery {
	t.Helper()
	expr, err := parser.ParseExpr(query)
	if err != nil {
		t.Fatal(err)
	}
	return &rangeQuery{query: query, expr: expr, start: start, end: end, step: step}
}

// Shows that the parts of a range have each of its steps once and in order, that none but the first begins before a border
// that lies inside, and that a last step alone is not a part. A mutant that starts a part at the border instead of at the
// next step dies here.
func TestPartsHaveEachStepOnce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		step := 1 + rnd.Int64N(50)
		start := rnd.Int64N(2000) - 1000
		q := testQuery(t, "up", start, start+rnd.Int64N(40)*step+rnd.Int64N(step), step)
		interval := 1 + rnd.Int64N(400)
		s := &splitter{cfg: SplitConfig{Interval: interval}, parse: parser.ParseExpr}
		parts := s.parts(q)
		at := q.start
		for i, p := range parts {
			if p.start != at {
				t.Fatalf("%d to %d by %d in parts of %d: part %d begins at %d, want %d", q.start, q.end, step, interval, i, p.start, at)
			}
			last := p.start + (p.end-p.start)/step*step
			if i > 0 && i == len(parts)-1 && last == p.start && p.start != parts[i-1].end+step {
				t.Fatalf("%d to %d by %d in parts of %d: the last part is one step", q.start, q.end, step, interval)
			}
			if border := floor(p.start, interval) + interval; i < len(parts)-2 && last >= border && last > p.start {
				t.Fatalf("%d to %d by %d in parts of %d: part %d goes on to %d, past %d", q.start, q.end, step, interval, i, last, border)
			}
			at = last + step
		}
		if end := parts[len(parts)-1].end; end != q.end || at <= q.end {
			t.Fatalf("%d to %d by %d in parts of %d: the last part ends at %d, and %d is not in it", q.start, q.end, step, interval, end, at)
		}
	}
}

// Shows how ranges are split: at multiples of the interval, a last step joined to the part before, a moment kept
// whole, and what is not known to be made of its parts not split at all.
func TestParts(t *testing.T) {
	f := func(query string, start, end, step int64, cfg SplitConfig, want string) {
		t.Helper()
		var got []string
		for _, p := range (&splitter{cfg: cfg, parse: parser.ParseExpr}).parts(testQuery(t, query, start, end, step)) {
			got = append(got, fmt.Sprintf("%d-%d", p.start, p.end))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s %d to %d by %d: %s, want %s", query, start, end, step, s, want)
		}
	}
	day := SplitConfig{Interval: 100}
	f("up", 0, 299, 10, day, "0-90 100-190 200-299")
	f("up", 5, 299, 10, day, "5-95 105-195 205-299")
	f("up", 50, 100, 10, day, "50-100")
	f("up", 50, 110, 10, day, "50-90 100-110")
	f("up", 50, 50, 10, day, "50-50")
	f("up", 0, 300, 150, day, "0-0 150-300")
	f("up", 0, 300, 10, SplitConfig{}, "0-300")
	f("rate(up[5m])", 0, 150, 10, day, "0-90 100-150")
	f(`rate({job="a"}[5m])`, 0, 150, 10, day, "0-150")
	f("up", 0, 1000, 10, SplitConfig{Min: 100, Max: 400, Shards: 4}, "0-390 400-790 800-1000")
	f("up", 0, 600, 10, SplitConfig{Min: 100, Max: 400, Shards: 4}, "0-140 150-290 300-440 450-600")
	f("up", 0, 90, 10, SplitConfig{Min: 50, Max: 400, Shards: 1}, "0-90")
}

// Shows that @ start() and @ end() become the times of the whole range before it is split.
func TestLiteralTimes(t *testing.T) {
	s := &splitter{cfg: SplitConfig{Interval: 100_000}, parse: parser.ParseExpr}
	for _, p := range s.parts(testQuery(t, "sum(up @ start()) + sum(max_over_time(up[5m:1m] @ end()))", 50_000, 350_000, 10_000)) {
		if want := "sum(up @ 50.000) + sum(max_over_time(up[5m:1m] @ 350.000))"; p.query != want {
			t.Errorf("from %d: %s, want %s", p.start, p.query, want)
		}
	}
}

// Shows which expressions are split: those whose errors can't depend on the range.
func TestSplittable(t *testing.T) {
	f := func(query string, want bool) {
		t.Helper()
		expr, err := parser.ParseExpr(query)
		if err != nil {
			t.Fatal(err)
		}
		if got := splittable(expr); got != want {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	f(`up`, true)
	f(`{job="a"}`, true)
	f(`1 + time()`, true)
	f(`rate(up[5m])`, true)
	f(`rate({__name__=~"a|b"}[5m])`, false)
	f(`rate({__name__!="b", job="a"}[5m])`, false)
	f(`last_over_time({job="a"}[5m])`, true)
	f(`sum by (job) ({job="a"})`, true)
	f(`abs(sum by (job) ({job="a"}))`, true)
	f(`abs(sum by (__name__) ({job="a"}))`, false)
	f(`abs(topk(2, {job="a"}))`, false)
	f(`abs(up or down)`, false)
	f(`abs(up and {job="a"})`, false)
	f(`-{job="a"}`, false)
	f(`-up`, true)
	f(`label_replace(up, "a", "$1", "b", "(.*)")`, false)
	f(`label_replace(sum by (b) (up), "a", "$1", "b", "(.*)")`, true)
	f(`label_replace(sum by (a, b) (up), "a", "$1", "b", "(.*)")`, false)
	f(`label_replace(sum without (a) (up), "a", "$1", "b", "(.*)")`, true)
	f(`abs(label_replace(sum by (b) (up), "__name__", "$1", "b", "(.*)"))`, false)
	f(`topk(2, up @ 0)`, true)
	f(`topk((2), up @ 0)`, true)
	f(`topk(scalar(a), up)`, true)
	f(`topk(scalar(a), up @ 0)`, false)
	f(`quantile(scalar(a), rate(up[5m] @ end()))`, false)
	f(`quantile(scalar(a), max_over_time(up[5m:] @ 0))`, false)
	f(`quantile(time() % 2, vector(1))`, false)
	f(`absent({job="a"})`, false)
	f(`absent(up)`, true)
}

// Shows by which labels expressions are sharded; none where the same answer is not proven.
func TestShardLabels(t *testing.T) {
	f := func(query, want string) {
		t.Helper()
		expr, err := parser.ParseExpr(query)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(shardLabels(expr), ","); got != want {
			t.Errorf("%s: by %q, want %q", query, got, want)
		}
	}
	f(`sum by (b, a) (up)`, "a,b")
	f(`sum(up)`, "")
	f(`up`, "")
	f(`sum without (a) (up)`, "")
	f(`sum by (a) (sum by (a, b) (rate(up[5m])))`, "a")
	f(`sum by (a) (sum by (b) (up))`, "")
	f(`sum by (a, b) (sum without (b) (up))`, "a")
	f(`sum by (a) (up) / sum by (a) (down)`, "a")
	f(`sum by (a) (up) / on (b) sum by (b) (down)`, "")
	f(`sum by (a, b) (up) / on (a) group_left sum by (a) (down)`, "a")
	f(`sum by (a, b) (up) / ignoring (b) group_left sum by (a) (down)`, "a")
	f(`up * on (a) group_left sum by (a) (down) / 2`, "a")
	f(`sum by (a) (down) * on (a) group_right up`, "a")
	f(`up * on (a) down`, "") // whether two on one side are an error depends on whether there are any on the other
	f(`up * on (a) group_left down`, "")
	f(`sum by (a, b) (up) * on (a) sum by (a) (down)`, "")
	f(`sum by (a, b) (up) * ignoring (b) sum by (a) (down)`, "")
	f(`up and on (a) down`, "a")
	f(`sum by (a) (up) or vector(0)`, "")
	f(`sum by (a) (up or vector(0))`, "")
	f(`sum by (a) (up) + 1`, "a")
	f(`sum by (a) (up) > time() - 60`, "a")
	f(`sum by (a) (up) + scalar(down)`, "")
	f(`clamp_max(sum by (a) (up), scalar(down))`, "")
	f(`sum by (a) (up) or absent(down)`, "")
	f(`absent(sum by (a) (up))`, "")
	f(`sum by (a) (up) or day_of_week()`, "")
	f(`day_of_week(sum by (a) (up))`, "a")
	f(`histogram_quantile(0.9, sum by (a, le) (up))`, "a")
	f(`histogram_quantile(0.9, sum by (le) (up))`, "")
	f(`histogram_quantile(scalar(x), sum by (a, le) (up))`, "")
	f(`label_replace(sum by (a, b) (up), "b", "$1", "a", "(.*)")`, "a")
	f(`sum by (b) (label_replace(up, "b", "$1", "a", "(.*)"))`, "")
	f(`count_values by (a, b) ("b", up)`, "a")
	f(`topk by (a) (3, up)`, "")
	f(`quantile by (a) (0.5, up)`, "a")
	f(`sort_desc(sum by (a) (up))`, "")
	f(`sum by (a) (max_over_time(up[1h:1m]))`, "a")
	f(`max_over_time(sum by (a) (up)[1h:1m])`, "a")
	f(`sum by (__name__) (up)`, "")
	f(`1 + 1`, "")
	f(`vector(1)`, "")
}
