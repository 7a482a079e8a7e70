package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/frontend"
)

const (
	// sequencesOfWorld ask about one world: its data is made once. Each has a cache and frontends of its own, and can be
	// run by itself.
	sequencesOfWorld = 50
	questionsMin     = 3
	questionsMax     = 8
)

// progress is what a campaign has done. It is kept in a file between runs.
type progress struct {
	Next    uint64         // the next sequence
	Counts  map[string]int // what was asked and found
	Covered map[string]int // what happened how often
}

func (p *progress) add(o *progress) {
	for k, n := range o.Counts {
		p.Counts[k] += n
	}
	for k, n := range o.Covered {
		p.Covered[k] += n
	}
}

func newProgress() *progress { return &progress{Counts: map[string]int{}, Covered: map[string]int{}} }

func (p *progress) load(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		err = json.Unmarshal(b, p)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (p *progress) save(t *testing.T, file string) {
	t.Helper()
	b, err := json.MarshalIndent(p, "", " ")
	if err == nil {
		err = os.WriteFile(file+".new", b, 0o644)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func number(t *testing.T, name string, fallback uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return fallback
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Shows that whatever was asked before, in whatever order, and whatever happened to stores, data, cache and querier
// between and meanwhile, a frontend answers as the querier does at the aligned range, or both fail alike: sequences of
// range and instant queries and of requests for labels and series, with every parameter, of two tenants, asked of two
// frontends that are configured in many ways and share a cache.
//
// Time is that of a bubble (testing/synctest), so that attempts cost none. KOIOS_FRONTEND_SEQUENCES asks
// more, from FIRST or where KOIOS_FRONTEND_STATE says that the last run ended.
func TestRangesEqualTheQueriers(t *testing.T) {
	all, file := newProgress(), os.Getenv("KOIOS_FRONTEND_STATE")
	all.Next = number(t, "FIRST", 0)
	if file != "" {
		all.load(t, file)
	}
	last := number(t, "FIRST", 0) + number(t, "KOIOS_FRONTEND_SEQUENCES", 300)
	for all.Next < last && !t.Failed() {
		var mu sync.Mutex
		// A round is one world for each processor; what is done is written down after each round.
		t.Run(fmt.Sprintf("from %d", all.Next), func(t *testing.T) {
			for range runtime.GOMAXPROCS(0) {
				from := all.Next
				to := min(last, (from/sequencesOfWorld+1)*sequencesOfWorld)
				if all.Next = to; from == to {
					continue
				}
				t.Run("", func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						done := sequences(t, from, to)
						mu.Lock()
						defer mu.Unlock()
						all.add(done)
					})
				})
			}
		})
		if file != "" && !t.Failed() {
			all.save(t, file)
		}
	}
	t.Logf("%v", all.Counts)
	for _, what := range slices.Sorted(maps.Keys(all.Covered)) {
		t.Logf("%8d times %s", all.Covered[what], what)
	}
	n := all.Counts
	if asked := n["range queries"]; n["answers that are not empty"] < asked/2 || n["entries found"] < asked/8 {
		t.Error("most answers are empty, or the cache was of no use: this test shows nothing")
	}
	if n["sequences"] >= 300 {
		if odd := n["answers that the querier's first one is not the same as"]; odd > n["range queries"]/50 {
			t.Errorf("%d answers are not as the querier's first one, though they are as it answers at times: too many", odd)
		}
		for what := trouble(1); what < troubles; what++ {
			if all.Covered[what.String()] == 0 {
				t.Errorf("never %s", what)
			}
		}
		for what := range moods {
			if all.Covered[what.String()] == 0 {
				t.Errorf("never %s", what)
			}
		}
	}
}

// sequences asks so many sequences about one world.
func sequences(t *testing.T, from, to uint64) *progress {
	number := from / sequencesOfWorld
	w := newWorld(t, number, number%2 == 1)
	p := newProgress()
	for seed := from; seed < to && !t.Failed(); seed++ {
		s := newSequence(t, w, seed, p)
		for range questionsMin + s.IntN(questionsMax-questionsMin) {
			s.happen()
			s.question()
		}
		p.Counts["sequences"]++
		p.Counts["entries found"] += s.cache.found()
		w.set(state{now: begin + length/2})
		time.Sleep(time.Minute) // what the querier has learned of stores is forgotten
	}
	return p
}

// sequence is what is asked one after the other.
type sequence struct {
	asker
	t     *testing.T
	seed  uint64
	cache *moody
	front []*front
	p     *progress
	// What may happen in this sequence at all.
	outages, troubles, moods bool
	history                  []string
}

func newSequence(t *testing.T, w *world, seed uint64, p *progress) *sequence {
	s := &sequence{t: t, seed: seed, p: p, cache: newMoody(seed)}
	s.asker = asker{Rand: rand.New(rand.NewPCG(seed, 5)), w: w, covered: p.Covered}
	if seed/sequencesOfWorld%2 == 1 {
		s.tenants = []string{"api", "db"}
	} else if s.IntN(4) == 0 {
		s.tenants = []string{"one", "other"}
	}
	s.steps = [][2]int64{{30_000, 60_000}, {15_000, 60_000}, {120_000, 300_000}, {7_000, 90_000}, {61_500, 61_500}, {3_600_000, 600_000}}[s.IntN(6)]
	s.odd = s.IntN(6) == 0
	s.newPanels()
	s.outages, s.troubles, s.moods = s.IntN(3) == 0, s.IntN(3) == 0, s.IntN(2) == 0
	if s.often(6, "real cache in memory, small") {
		var err error
		if s.cache.inner, err = cache.NewMemory("test", cache.MemoryConfig{BytesMax: 60_000}, prometheus.NewRegistry()); err != nil {
			t.Fatal(err)
		}
	}
	cfg := s.config()
	s.front = []*front{w.newFront(t, cfg)}
	if s.often(4, "two frontends of different configurations before one cache") {
		cfg = s.config()
	}
	s.front = append(s.front, w.newFront(t, cfg))
	return s
}

// config is any configuration of a frontend.
func (s *sequence) config() frontend.Config {
	cfg := standard(s.cache)
	r, m := &cfg.Range, &cfg.Metadata
	if s.often(5, "without alignment") {
		r.Align = false
	}
	switch s.IntN(6) {
	case 0:
		r.Split = frontend.SplitConfig{Min: 30 * 60_000, Max: 2 * 3600_000, Shards: 1 + s.Int64N(12)}
		s.covered["split into a number of parts"]++
	case 1:
		r.Split.Interval = []int64{30 * 60_000, 5_000_000, 24 * 3600_000, 7_777_777}[s.IntN(4)]
		s.covered["split at other times"]++
	}
	r.Split.Parallel = []int{1, 4, 14}[s.IntN(3)]
	m.Parallel, m.SplitMs = r.Split.Parallel, []int64{3600_000, 1800_000}[s.IntN(2)]
	r.Attempts, cfg.InstantAttempts, m.Attempts = s.IntN(6), s.IntN(6), s.IntN(6)
	r.Compress, m.Compress = s.often(3, "compressed entries"), s.IntN(3) == 0
	r.PartialResponse, m.PartialResponse = !s.often(6, "partial response off by default"), s.IntN(6) != 0
	r.Downsampled = s.often(4, "downsampled beginnings")
	if s.often(4, "shards") {
		cfg.Shards = 2 + s.IntN(3)
	}
	if s.often(12, "no results cache") {
		r.Cache = nil
	}
	if s.often(12, "longest range") {
		r.LengthMax = 2 * 3600_000
	}
	if s.often(3, "headers go on") {
		cfg.ForwardHeaders = []string{viewHeader}
	}
	if s.often(3, "organisations") {
		cfg.OrgHeaders = []string{"X-Org"}
	}
	if s.often(4, "queue") {
		cfg.Queue = frontend.QueueConfig{Concurrent: 1 + s.IntN(3), WaitingMax: 1000}
	}
	cfg.ForceStats = s.often(6, "statistics are always asked for")
	return cfg
}

// happen changes the world.
func (s *sequence) happen() {
	switch s.IntN(8) {
	case 0, 1:
		s.w.now.Add((1 + s.Int64N(6)) * 300_000)
		s.covered["late data has come, and new"]++
	case 2, 3:
		if s.outages {
			s.leaveOrReturn()
		}
	case 5:
		if s.moods {
			m := mood(s.IntN(int(moods)))
			if s.IntN(3) == 0 {
				m = well
			}
			s.cache.is(m)
			s.covered[m.String()]++
		}
	}
}

func (s *sequence) leaveOrReturn() {
	away := there
	if s.IntN(3) == 0 {
		away = gone + absence(s.IntN(2))
	}
	s.w.clusters[s.IntN(len(s.w.clusters))].leave(away)
	s.covered[[...]string{"a store comes back", "a store goes away", "a store breaks off in the middle"}[away]]++
}

// question asks something.
func (s *sequence) question() {
	f := s.front[s.IntN(2)]
	switch n := s.IntN(20); {
	case n < 3:
		s.p.Counts["requests for labels and series"]++
		s.metadata(f)
	case n < 5:
		s.p.Counts["instant queries"]++
		s.compare(f, s.instant())
	case n < 6:
		s.p.Counts["other requests"]++
		s.compare(f, s.passed())
	case n < 7:
		s.together()
	case n < 8 && s.troubles:
		s.leaves(f)
	default:
		s.p.Counts["range queries"]++
		s.compare(f, s.query())
	}
}

// compare asks the querier and a frontend.
func (s *sequence) compare(f *front, q question) {
	below := q.below(f)
	before := s.w.state()
	want := ask(s.t.Context(), s.t, s.w.querier, below)
	plan := s.trouble(f, q)
	got := ask(s.t.Context(), s.t, f, q.request)
	met := len(plan) - f.down.left()
	f.down.set(nil, nil)
	s.history = append(s.history, fmt.Sprintf("%d: %s %v", got.Code, q.String(), plan[:met]))
	s.note(f, q, want, got)
	if limit := f.cfg.Range.LengthMax; q.plain && q.ranged && limit > 0 && q.end-q.start > limit && q.header.Get("THANOS-TENANT") != "../other" {
		if err := got.decode(); err != nil || got.Code != http.StatusBadRequest || got.Body.ErrorType != "bad_data" {
			s.fail(f, q, "the range is too long, got "+string(got.text))
		}
		return
	}
	if want.same(got) {
		return
	}
	// Trouble may end in an error: after the last attempt, and of what nobody tries again.
	attempts := f.cfg.Range.Attempts
	if !q.ranged {
		attempts = f.cfg.InstantAttempts
	}
	if met > 0 && (!q.plain || met >= attempts) && (got.Code >= 500 || got.Code == 0 && !q.plain) {
		s.p.Counts["errors for the querier's trouble"]++
		return
	}
	s.p.Counts["answers that the querier's first one is not the same as"]++
	if d := got.madeOf(s.possible(before, below, want), f.cfg.Shards > 1); d != "" {
		s.fail(f, q, d)
	}
}

// possible are the querier's answers in all states that the world was in since before, and would be in if all stores were
// there: what was kept while they were is better than what the querier can say now. Some answers are not the same each
// time at the querier itself, so it is asked often if nothing else explains a difference.
func (s *sequence) possible(before state, q request, want *reply) []*reply {
	after := s.w.state()
	others := []*reply{want}
	for _, now := range slices.Compact([]int64{before.now, after.now}) {
		for _, away := range slices.Compact([][4]absence{before.away, after.away, {}}) {
			s.w.set(state{now, away})
			others = append(others, ask(s.t.Context(), s.t, s.w.querier, q))
		}
	}
	s.w.set(after)
	if before == after && !before.missing() {
		for range 8 {
			others = append(others, ask(s.t.Context(), s.t, s.w.querier, q))
		}
	}
	return others
}

// trouble says what happens to the requests of a question.
func (s *sequence) trouble(f *front, q question) (plan []trouble) {
	var events []func()
	if s.troubles && s.IntN(3) == 0 {
		for range 1 + s.IntN(5) {
			what := trouble(s.IntN(int(troubles)))
			if what == half && (!q.ranged || !q.plain) {
				what = cut // nobody can tell half of what is not understood
			}
			plan = append(plan, what)
		}
	}
	if s.outages && s.often(6, "a store goes or comes in the middle of a request") {
		events = append(events, s.leaveOrReturn)
	}
	if s.outages && s.often(6, "data comes in the middle of a request") {
		events = append(events, func() { s.w.now.Add(300_000) })
	}
	f.down.set(plan, events)
	for _, what := range plan {
		s.covered[what.String()]++
	}
	return plan
}

// together asks several questions at once.
func (s *sequence) together() {
	s.covered["several questions at once"]++
	type pair struct {
		f    *front
		q    question
		want *reply
		got  *reply
	}
	var all []*pair
	for range 3 {
		f := s.front[s.IntN(2)]
		q := s.query()
		all = append(all, &pair{f: f, q: q})
	}
	before := s.w.state()
	var wg sync.WaitGroup
	for _, p := range all {
		p.want = ask(s.t.Context(), s.t, s.w.querier, p.q.below(p.f))
		wg.Go(func() { p.got = ask(s.t.Context(), s.t, p.f, p.q.request) })
	}
	wg.Wait()
	for _, p := range all {
		s.p.Counts["range queries"]++
		s.history = append(s.history, fmt.Sprintf("%d: together %s", p.got.Code, p.q.String()))
		s.note(p.f, p.q, p.want, p.got)
		if limit := p.f.cfg.Range.LengthMax; limit > 0 || p.want.same(p.got) {
			continue
		}
		if d := p.got.madeOf(s.possible(before, p.q.below(p.f), p.want), p.f.cfg.Shards > 1); d != "" {
			s.fail(p.f, p.q, d)
		}
	}
}

// leaves asks something whose client goes away.
func (s *sequence) leaves(f *front) {
	s.covered["a client goes away"]++
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Second)
	defer cancel()
	f.down.set([]trouble{none, slow, slow, slow}[s.IntN(2):], nil)
	q := s.query()
	got := ask(ctx, s.t, f, q.request)
	f.down.set(nil, nil)
	s.history = append(s.history, fmt.Sprintf("%d: client leaves: %s", got.Code, q.String()))
}

// note counts an answer, and holds what is true of each.
func (s *sequence) note(f *front, q question, want, got *reply) {
	if want.Code != http.StatusOK {
		s.p.Counts["errors"]++
	} else if q.ranged && !want.empty() {
		s.p.Counts["answers that are not empty"]++
	}
	if got.Code != 0 && got.Code != http.StatusNotFound && q.path != "/api/v1/format_query" && got.header.Get("Content-Type") != "application/json" && !strings.Contains(string(got.text), "something went wrong") {
		s.fail(f, q, fmt.Sprintf("%d, the type of the answer is %q", got.Code, got.header.Get("Content-Type")))
	}
	if got.Code == http.StatusOK && strings.Contains(string(got.text), `"warnings":[`) {
		if got.decode() == nil && len(got.missing()) > 0 && !strings.Contains(got.missing()[0], "there is no analysis") && !strings.Contains(got.header.Get("Cache-Control"), "no-store") {
			s.fail(f, q, "data is missing, and others may keep the answer")
		}
	}
}

func (s *sequence) fail(f *front, q question, what string) {
	s.t.Helper()
	cfg := f.cfg
	s.t.Fatalf("sequence %d: %s\n%s\nsplit %+v, align %v, partial %v, shards %d, attempts %d, downsampled %v, longest %d, forward %v\nstate %+v, mood %s\nasked before:\n%s",
		s.seed, q.String(), what, cfg.Range.Split, cfg.Range.Align, cfg.Range.PartialResponse, cfg.Shards, cfg.Range.Attempts, cfg.Range.Downsampled,
		cfg.Range.LengthMax, cfg.ForwardHeaders, s.w.state(), s.cache.mood, strings.Join(s.history, "\n"))
}

func (m trouble) String() string {
	return [...]string{"no trouble", "the querier is down", "the querier fails", "an answer is cut off", "half an answer", "a slow answer"}[m]
}

func (m mood) String() string {
	return [...]string{"the cache is well", "the cache forgets", "the cache garbles", "the cache is dead", "the cache takes nothing", "the cache lags behind", "the cache is late", "the cache is sluggish", "the cache is restarted"}[m]
}
