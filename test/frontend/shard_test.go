package frontend

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/koios-metrics/koios/pkg/frontend"
)

// expressions generates vectors, of which many but not all can be sharded.
type expressions struct{ *rand.Rand }

func (g expressions) one(of ...string) string { return of[g.IntN(len(of))] }

func (g expressions) labels() string {
	all := []string{"job", "instance", "cluster", "replica", "nothing"}
	g.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return strings.Join(all[:g.IntN(4)], ", ")
}

func (g expressions) selector() string {
	return g.one("requests_total", "errors_total", "temperature", `{__name__=~"requests_total|errors_total"}`, `temperature{job="api"}`, `temperature{instance!="host-1"}`)
}

func (g expressions) offset() string {
	return g.one("", "", "", " offset 7m", " offset -3m", " @ end()", " @ 1700010000")
}

func (g expressions) number() string { return g.one("0", "2", "50", "time()", "(1 + pi())", "-3") }

// vector returns a vector of so many levels.
func (g expressions) vector(depth int) string {
	if depth <= 0 {
		if g.IntN(3) == 0 {
			return fmt.Sprintf("%s(%s[%s]%s)", g.one("rate", "increase", "max_over_time", "count_over_time", "last_over_time"), g.selector(), g.one("5m", "11m"), g.offset())
		}
		return g.selector() + g.offset()
	}
	sub := func() string { return g.vector(depth - 1 - g.IntN(2)) }
	switch g.IntN(14) {
	case 0, 1, 2, 3:
		return fmt.Sprintf("%s %s (%s) (%s)", g.one("sum", "min", "max", "count", "avg", "group", "stddev", "stdvar"), g.one("by", "by", "without"), g.labels(), sub())
	case 4:
		return fmt.Sprintf("%s by (%s) (%s, %s)", g.one("topk", "bottomk", "quantile", "limitk"), g.labels(), g.one("1", "0.5", "3", "scalar(sum(temperature))"), g.vector(0))
	case 5:
		return fmt.Sprintf(`count_values by (%s) ("%s", round(%s, 100))`, g.labels(), g.one("value", "job", "cluster"), sub())
	case 6, 7:
		return fmt.Sprintf("(%s) %s %s (%s) (%s)", sub(), g.one("+", "/", "*", "-", ">", "<= bool", "and", "or", "unless"), g.one("on", "on", "ignoring"), g.labels(), sub())
	case 8:
		return fmt.Sprintf("(%s) %s on (%s) group_left (%s) (%s)", sub(), g.one("+", "*", "=="), g.labels(), g.one("", "other"), sub())
	case 9:
		return fmt.Sprintf("(%s) %s %s", sub(), g.one("+", "/", ">", "== bool", "^"), g.number())
	case 10:
		return fmt.Sprintf("%s %s (%s)", g.number(), g.one("-", "*", "<"), sub())
	case 11:
		return fmt.Sprintf("%s or %s", sub(), g.one("vector(0)", "vector(time())", "absent(temperature)", "day_of_week()", `absent(temperature{job="none"})`, "vector(scalar(temperature))"))
	case 12:
		return fmt.Sprintf(`label_replace(%s, "%s", "%s", "%s", "(.*)")`, sub(), g.one("job", "other", "instance", "cluster"), g.one("$1", "same"), g.one("job", "instance", "nothing"))
	}
	return g.one(
		fmt.Sprintf("abs(%s)", sub()), fmt.Sprintf("clamp_max(%s, %s)", sub(), g.number()), fmt.Sprintf("clamp_max(%s, scalar(sum(temperature)))", sub()),
		fmt.Sprintf("-(%s)", sub()), fmt.Sprintf("max_over_time((%s)[10m:2m])", sub()), fmt.Sprintf("sort_desc(%s)", sub()), fmt.Sprintf("absent(%s)", sub()),
		fmt.Sprintf("timestamp(%s)", sub()), fmt.Sprintf("histogram_quantile(0.9, %s)", sub()),
	)
}

// Shows that queries that are cut into shards of their series, parts of their range, or both, have the answers of whole
// ones: generated range and instant queries, sums of nothing and `x or vector(0)` among them, are asked of a querier, and
// of a frontend before it that shards and splits what it holds to be right. A mutant that lets a label that label_replace
// writes tell shards apart dies here.
func TestShardsEqualTheWhole(t *testing.T) {
	asked, seed := int(number(t, "KOIOS_FRONTEND_QUERIES", 600)), number(t, "SEED", 1)
	const perWorld = 200
	sharded, full, failed, unsteady := 0.0, 0, 0, 0
	for done := 0; done < asked; done += perWorld {
		w := newWorld(t, seed+uint64(done), false)
		w.now.Store(begin + length)
		var cfg frontend.Config
		cfg.Range = frontend.RangeConfig{Align: true, Split: frontend.SplitConfig{Parallel: 4}, PartialResponse: true}
		if done/perWorld%3 != 1 {
			cfg.Shards = 3
		}
		if done/perWorld%3 != 2 {
			cfg.Range.Split.Interval = 600_000
		}
		f := w.newFront(t, cfg)
		g := expressions{rand.New(rand.NewPCG(seed+uint64(done), 9))}
		for range min(perWorld, asked-done) {
			query := g.vector(1 + g.IntN(3))
			at := begin + g.Int64N(length)/60_000*60_000
			q := request{path: "/api/v1/query_range", form: url.Values{
				"query": {query}, "start": {seconds(at)}, "end": {seconds(at + g.Int64N(30)*60_000)}, "step": {"60"},
			}}
			if g.IntN(3) == 0 {
				q = request{path: "/api/v1/query", form: url.Values{"query": {query}, "time": {seconds(at)}}}
			}
			q.form.Set("partial_response", "true")
			if g.IntN(4) == 0 {
				q.form.Set("dedup", "false")
			}
			want, got := ask(t.Context(), t, w.querier, q), ask(t.Context(), t, f, q)
			same := want.same(got)
			// Some answers are not the same each time at the querier itself: count_values has no order, so sums of its
			// elements differ in the last bit; an info may come or not.
			for again := 0; again < 20 && !same; again++ {
				if same = ask(t.Context(), t, w.querier, q).same(got) || want.same(ask(t.Context(), t, f, q)); same {
					unsteady++
				}
			}
			if !same {
				t.Fatalf("seed %d: %s %v\nquerier against frontend: %s", seed+uint64(done), q.path, q.form, want.difference(got))
			}
			switch {
			case want.Code != http.StatusOK:
				failed++
			case !want.empty():
				full++
			}
		}
		sharded += counter(t, f.registry, "thanos_frontend_sharding_middleware_queries_total", "shardable", "true")
	}
	t.Logf("%d queries, %d of them with an answer and %d with an error; %.0f cut into shards; %d not the same each time", asked, full, failed, sharded, unsteady)
	if unsteady > asked/100+1 {
		t.Error("too many answers are not the same each time")
	}
	if full < asked/3 || sharded < float64(asked)/8 {
		t.Error("most answers are empty, or next to nothing is sharded: this test shows nothing")
	}
}
