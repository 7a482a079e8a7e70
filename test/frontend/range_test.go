package frontend

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/promql/parser"
)

// queries are asked over changing ranges.
var queries = []string{
	`sum by (job) (rate(requests_total[5m]))`,
	`rate(requests_total[5m])`,
	`requests_total`,
	`{job="api"}`,
	`rate({__name__=~"requests_total|errors_total"}[5m])`,
	`sum(rate(errors_total[5m])) / sum(rate(requests_total[5m]))`,
	`max_over_time(temperature[10m])`,
	`avg_over_time(temperature[5m:1m])`,
	`topk(2, temperature)`,
	`count by (__name__) ({__name__=~".+"})`,
	`temperature > 50`,
	`temperature offset 10m`,
	`temperature offset -10m`,
	`rate(requests_total[5m] offset -5m)`,
	`temperature @ end()`,
	`sum(temperature @ start()) + sum(temperature)`,
	`sum_over_time(temperature[10m] @ 1700010000)`,
	`absent(temperature{instance="host-9"})`,
	`absent(temperature)`,
	`vector(time())`,
	`time()`,
	`requests_total or vector(0)`,
	`label_replace(temperature, "job", "$1", "instance", "(.*)-.*")`,
	`label_replace(sum by (instance) (temperature), "host", "$1", "instance", "(.*)")`,
	`label_replace(temperature, "job", "same", "instance", ".*")`,
	`-{__name__=~"requests_total|errors_total"}`,
	`requests_total / on (instance, job) group_left errors_total`,
	`quantile by (job) (0.9, temperature)`,
	`count_values("value", round(temperature, 50))`,
	`increase(temperature[10m])`,
	`sort_desc(temperature)`,
	`timestamp(temperature)`,
	`histogram_quantile(0.9, temperature)`,
	`sum(`,
	`foo bar`,
	`requests_total[5m]`,
	`label_replace(temperature, "job", "$1", "instance", "(")`,
	`day_of_week()`,
	`scalar(temperature{instance="host-0",job="api"})`,
	`limitk(2, temperature)`,
}

// reply is an answer of either.
type reply struct {
	Code int
	Body answerBody
}

type answerBody struct {
	Status, ErrorType, Error string
	Data                     struct {
		ResultType string
		Result     elements
	}
	Warnings, Infos []string
}

// elements are those of a vector or a matrix; a scalar or a string is one.
type elements []element

// UnmarshalJSON implements json.Unmarshaler.
func (es *elements) UnmarshalJSON(b []byte) error {
	if json.Unmarshal(b, (*[]element)(es)) == nil {
		return nil
	}
	*es = elements{{}}
	return json.Unmarshal(b, &(*es)[0].Value)
}

type element struct {
	Metric map[string]string
	Values [][2]any
	Value  [2]any
}

func ask(t *testing.T, ctx context.Context, base string, form url.Values, header http.Header) (r reply) {
	t.Helper()
	return askPath(t, ctx, base+"/api/v1/query_range", form, header)
}

func askPath(t *testing.T, ctx context.Context, where string, form url.Values, header http.Header) (r reply) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, where, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r.Code = resp.StatusCode
	if err := json.Unmarshal(b, &r.Body); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	slices.Sort(r.Body.Warnings)
	slices.Sort(r.Body.Infos)
	return r
}

// alike makes two failures equal: a part of a range may meet another error first, and says so with its own times.
func alike(r reply) reply {
	if r.Code != http.StatusOK {
		return reply{Code: r.Code, Body: answerBody{Status: r.Body.Status, ErrorType: r.Body.ErrorType}}
	}
	for _, notes := range []*[]string{&r.Body.Warnings, &r.Body.Infos} {
		for i, n := range *notes {
			// A gap is named with the times that were asked for.
			if at := strings.Index(n, " between "); at >= 0 {
				(*notes)[i] = n[:at]
			}
		}
		*notes = slices.Compact(*notes)
	}
	return r
}

// Shows that whatever was asked before, in whatever order, and whatever happened to stores, data and cache between, the
// frontend answers as the querier does at the aligned range: sequences of range and instant queries and of requests for labels and series, with changing ranges, steps and
// parameters of two tenants, while late samples arrive, stores come and go, and the cache forgets or garbles entries.
func TestRangesEqualTheQueriers(t *testing.T) {
	sequences, first := 12, uint64(0)
	if s := os.Getenv("KOIOS_FRONTEND_SEQUENCES"); s != "" {
		var err error
		if sequences, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("FIRST"); s != "" {
		var err error
		if first, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	questions, metadata, instants, nonEmpty, hits := 0, 0, 0, 0, 0
	for seed := first; seed < first+uint64(sequences); seed++ {
		rnd := rand.New(rand.NewPCG(seed, 5))
		w := newWorld(t, seed)
		favourites := []string{queries[rnd.IntN(len(queries))], queries[rnd.IntN(len(queries))], queries[rnd.IntN(len(queries))]}
		steps := [][2]int64{{30_000, 60_000}, {15_000, 60_000}, {120_000, 300_000}, {7_000, 90_000}}[rnd.IntN(4)]
		for range 70 {
			switch rnd.IntN(8) {
			case 0:
				w.now.Add(rnd.Int64N(30 * 60_000))
			case 1:
				w.clusters[rnd.IntN(len(w.clusters))].leave(rnd.IntN(5) == 0)
			case 2:
				w.cache.mu.Lock()
				w.cache.bad = rnd.IntN(3) == 0
				w.cache.mu.Unlock()
			}
			switch rnd.IntN(8) {
			case 0, 1:
				w.checkMetadata(t, rnd, seed)
				metadata++
				continue
			case 2:
				form, header := question(rnd, w, favourites[rnd.IntN(len(favourites))], steps[0])
				instant := url.Values{"query": form["query"], "time": form["end"]}
				want, got := sorted(alike(askPath(t, t.Context(), w.querier.URL+"/api/v1/query", instant, header))), sorted(alike(askPath(t, t.Context(), w.frontend.URL+"/api/v1/query", instant, header)))
				if d := cmp.Diff(want, got); d != "" {
					t.Fatalf("seed %d: %v\nquerier against frontend: %s", seed, instant, d)
				}
				instants++
				continue
			}
			form, header := question(rnd, w, favourites[rnd.IntN(len(favourites))], steps[rnd.IntN(2)])
			aligned := alignedForm(form)
			want, got := alike(ask(t, t.Context(), w.querier.URL, aligned, header)), alike(ask(t, t.Context(), w.frontend.URL, form, header))
			d := cmp.Diff(want, got)
			if d != "" && w.missing() {
				// What was kept while all stores were there is better than what the querier can say now.
				d = acceptable(want, alike(w.whole(t, aligned, header)), got)
			}
			if d != "" {
				t.Fatalf("seed %d: %v\nquerier against frontend: %s", seed, form, d)
			}
			questions++
			if len(want.Body.Data.Result) > 0 {
				nonEmpty++
			}
		}
		hits += w.cache.hits
		w.frontend.Close()
		w.querier.Close()
	}
	t.Logf("%d range queries in %d sequences, %d with an answer that is not empty, %d entries found in the cache; %d instant queries, %d requests for labels and series", questions, sequences, nonEmpty, hits, instants, metadata)
	if nonEmpty < questions/2 || hits < questions/8 {
		t.Error("most answers are empty, or the cache was of no use: this test shows nothing")
	}
}

// acceptable tells what is wrong with an answer got while stores are away, want being what the querier says and whole what
// it says when they are back: an answer without a warning must be the whole one, and any other must be either at each step.
func acceptable(want, whole, got reply) string {
	if got.Code != http.StatusOK || whole.Code != http.StatusOK || len(missing(got)) == 0 {
		return cmp.Diff(whole, got)
	}
	for _, m := range missing(got) {
		if !slices.Contains(missing(want), m) {
			return "nobody else says " + m
		}
	}
	parts, wholes := want.steps(), whole.steps()
	steps := got.steps()
	for t := range parts {
		if steps[t] == nil {
			steps[t] = map[string]any{}
		}
	}
	for t, step := range steps {
		if !cmp.Equal(step, parts[t]) && !cmp.Equal(step, wholes[t]) && len(step)+len(parts[t])*len(wholes[t]) > 0 {
			return fmt.Sprintf("at %v: got %v, the querier has %v, and %v when all stores are there", t, step, parts[t], wholes[t])
		}
	}
	return ""
}

// missing are the notes that are not about PromQL.
func missing(r reply) (notes []string) {
	for _, n := range slices.Concat(r.Body.Warnings, r.Body.Infos) {
		if !strings.HasPrefix(n, "PromQL ") {
			notes = append(notes, n)
		}
	}
	return notes
}

// steps lists what there is at each time, by series.
func (r *reply) steps() map[any]map[string]any {
	out := map[any]map[string]any{}
	for _, s := range r.Body.Data.Result {
		for _, v := range s.Values {
			if out[v[0]] == nil {
				out[v[0]] = map[string]any{}
			}
			out[v[0]][fmt.Sprint(s.Metric)] = v[1]
		}
	}
	return out
}

func question(rnd *rand.Rand, w *world, query string, step int64) (url.Values, http.Header) {
	end := w.now.Load() + rnd.Int64N(3)*300_000 - rnd.Int64N(3)*rnd.Int64N(length/2)
	start := end - rnd.Int64N(4*3600_000)
	form := url.Values{"query": {query}, "start": {seconds(start)}, "end": {seconds(end)}, "step": {seconds(step)}}
	set := func(name string, values ...string) {
		if rnd.IntN(12) == 0 {
			form.Set(name, values[rnd.IntN(len(values))])
		}
	}
	set("dedup", "false", "true", "0")
	set("partial_response", "false", "true")
	set("max_source_resolution", "auto", "5m", "0s", "3600")
	set("lookback_delta", "2m", "300")
	set("engine", "prometheus", "thanos")
	set("replicaLabels[]", "replica", "cluster")
	set("unheard_of", "1")
	header := http.Header{}
	if rnd.IntN(4) == 0 {
		header.Set("THANOS-TENANT", "other")
	}
	if rnd.IntN(8) == 0 {
		header.Set("Cache-Control", "no-store")
	}
	return form, header
}

func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64) }

// alignedForm is a form as the frontend moves it; one with what it does not know goes down as it is.
func alignedForm(form url.Values) url.Values {
	out := url.Values{}
	for name, vs := range form {
		out[name] = vs
	}
	if form.Has("unheard_of") {
		return out
	}
	if !parses(form.Get("query")) {
		return out
	}
	ms := func(name string) int64 {
		f, err := strconv.ParseFloat(form.Get(name), 64)
		if err != nil {
			panic(fmt.Sprintf("BUG: %s=%s", name, form.Get(name)))
		}
		return int64(f*1000 + 0.5)
	}
	step := ms("step")
	out.Set("start", seconds(ms("start")/step*step))
	out.Set("end", seconds(ms("end")/step*step))
	return out
}

func parses(query string) bool {
	_, err := parser.ParseExpr(query)
	return err == nil
}
