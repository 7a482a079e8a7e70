package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
)

// Open makes the Store under test over data. What it needs to be cleaned up goes through t.Cleanup.
type Open func(t testing.TB, data Data) store.Store

// Options says in what a Store may differ from the reference, each for a reason that the caller states
// beside it.
type Options struct {
	// NoHistograms leaves native histograms out of the data.
	NoHistograms bool
}

// Run asks the Store that open makes everything that store.Store promises.
func Run(t *testing.T, open Open) { RunWith(t, open, Options{}) }

// RunWith is Run with differences.
func RunWith(t *testing.T, open Open, opt Options) {
	common := Common()
	if opt.NoHistograms {
		common.Series = slices.DeleteFunc(common.Series, func(i Input) bool { return i.Samples[0].H != nil || i.Samples[0].FH != nil })
	}
	t.Run("matchers", func(t *testing.T) { matchers(t, open(t, common), New(common)) })
	t.Run("time ranges", func(t *testing.T) { times(t, open(t, common), New(common)) })
	t.Run("chunks", func(t *testing.T) { chunks(t, open(t, common)) })
	t.Run("labels only", func(t *testing.T) { labelsOnly(t, open(t, common), New(common)) })
	t.Run("limits and shards", func(t *testing.T) { limitsAndShards(t, open(t, common), New(common)) })
	t.Run("label calls", func(t *testing.T) { labelCalls(t, open(t, common), New(common)) })
	t.Run("cursor", func(t *testing.T) { cursor(t, open(t, common)) })
	t.Run("request", func(t *testing.T) { unchanged(t, open(t, common)) })
	t.Run("replicas", func(t *testing.T) { replicas(t, open(t, common)) })
	t.Run("in parallel", func(t *testing.T) { parallel(t, open(t, common), New(common)) })
	for name, data := range Orders() {
		t.Run("order/"+name, func(t *testing.T) { order(t, open(t, data), New(data)) })
	}
}

func m(typ labels.MatchType, name, value string) *labels.Matcher {
	return labels.MustNewMatcher(typ, name, value)
}

func request(ms ...*labels.Matcher) *store.SeriesRequest {
	return &store.SeriesRequest{MinTime: Base, MaxTime: Base + time.Hour.Milliseconds() - 1, Matchers: ms}
}

func everything() *store.SeriesRequest { return request(m(labels.MatchRegexp, "__name__", ".+")) }

func matchers(t *testing.T, got, want store.Store) {
	eq, ne, re, nr := labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp
	up, all := m(eq, "__name__", "up"), m(re, "__name__", ".+")
	for _, ms := range [][]*labels.Matcher{
		{up}, {all}, {m(eq, "__name__", "absent")}, {m(ne, "__name__", "up")}, {m(re, "__name__", "up|odd|absent")}, {m(nr, "__name__", "up|odd")},
		{m(re, "__name__", "req.*")}, {m(nr, "__name__", "(req|lat).*")}, {m(re, "__name__", "(?i:UP)")}, {m(re, "__name__", ".*_total")}, {m(re, "__name__", "")},
		{up, m(eq, "job", "node")}, {up, m(ne, "job", "node")}, {up, m(eq, "job", "")}, {up, m(ne, "job", "")}, {up, m(re, "job", ".+")}, {up, m(re, "job", ".*")},
		{up, m(nr, "job", ".+")}, {up, m(nr, "job", ".*")}, {up, m(re, "job", "node|")}, {up, m(nr, "job", "node|")}, {up, m(re, "job", "node|api")}, {up, m(nr, "job", "node")},
		{up, m(eq, "nothing", "")}, {up, m(eq, "nothing", "x")}, {up, m(ne, "nothing", "x")}, {up, m(re, "nothing", "x|")}, {up, m(nr, "nothing", "")},
		{up, m(re, "instance", "h1:.*")}, {up, m(re, "instance", "h[12]:9090"), m(eq, "job", "node")}, {up, m(ne, "instance", "h1:9090"), m(ne, "instance", "h2:9090")},
		{m(eq, "code", "200")}, {m(re, "code", "4..|5..")}, {m(re, "code", "4..|5.."), m(ne, "code", "404")}, {m(eq, "job", ""), all}, {m(ne, "job", "")},
		{m(eq, "name", "größe 🜁")}, {m(re, "name", "gr..e .")}, {m(eq, "with.dots", "x")}, {m(eq, "v", "a\"b\\c\n")}, {m(re, "v", `a\+b\.c`)}, {m(re, "v", "a.b")}, {m(eq, "v", "a+b.c")},
		{up, m(eq, "cluster", "eu")}, {up, m(eq, "cluster", "us")}, {up, m(re, "cluster", "eu|us")}, {up, m(ne, "cluster", "eu")}, {up, m(eq, "cluster", "")}, {up, m(ne, "cluster", "")},
		{up, m(nr, "replica", "a")}, {up, m(eq, "replica", "a"), m(eq, "cluster", "eu"), m(eq, "job", "api")},
	} {
		for _, without := range [][]string{nil, {"replica"}} {
			req := request(ms...)
			req.WithoutReplicaLabels = without
			same(t, fmt.Sprint(ms, " without ", without), got, want, req)
		}
	}
	for _, ms := range [][]*labels.Matcher{nil, {m(eq, "cluster", "eu")}, {m(re, "cluster", ".*"), m(eq, "replica", "a")}} {
		cur, err := got.Series(t.Context(), request(ms...))
		var all []*store.Series
		if err == nil {
			all, _, err = store.Drain(cur)
		}
		if len(all) > 0 || (err != nil && store.KindOf(err) != store.KindBadRequest) {
			t.Errorf("series without matchers on stored labels %v: got %d series and error %v, want none, or an error of a bad request", ms, len(all), err)
		}
	}
}

func times(t *testing.T, got, want store.Store) {
	hour := time.Hour.Milliseconds()
	for _, r := range [][2]int64{
		{Base, Base}, {Base - 1, Base - 1}, {Base - hour, Base - 1}, {Base - hour, Base}, {Base + 600_000, Base + 600_000}, {Base + 599_999, Base + 600_000},
		{Base + 600_001, Base + 700_000}, {Base + 120*Step, Base + 121*Step}, {Base + 119*Step, Base + 120*Step}, {Base + 10*hour, Base + 11*hour},
		{math.MinInt64, math.MaxInt64}, {math.MinInt64, Base}, {Base, math.MaxInt64}, {0, Base + 30*Step}, {Base + 7_000, Base + 7_001},
	} {
		req := everything()
		req.MinTime, req.MaxTime = r[0], r[1]
		same(t, fmt.Sprintf("from %d to %d", r[0], r[1]), got, want, req)
	}
}

// chunks looks at the chunks themselves: in order, decodable, with true times and hashes.
func chunks(t *testing.T, got store.Store) {
	for _, s := range drain(t, got, everything()) {
		if len(s.Chunks) == 0 {
			t.Errorf("%s has no chunks", s.Labels)
		}
		for i := range s.Chunks {
			c := &s.Chunks[i]
			if i > 0 && store.CompareChunks(&s.Chunks[i-1], c) >= 0 {
				t.Errorf("%s: chunk %d [%d, %d] does not come after [%d, %d]", s.Labels, i, c.MinTime, c.MaxTime, s.Chunks[i-1].MinTime, s.Chunks[i-1].MaxTime)
			}
			if c.Aggrs != nil || !c.Raw.Present() {
				t.Errorf("%s: chunk %d is not raw", s.Labels, i)
				continue
			}
			if c.Raw.Hash != 0 && c.Raw.Hash != xxhash.Sum64(c.Raw.Data) {
				t.Errorf("%s: chunk %d has a wrong hash", s.Labels, i)
			}
			smp := decode(t, s.Labels, c)
			if len(smp) == 0 || smp[0].T < c.MinTime || smp[len(smp)-1].T > c.MaxTime {
				t.Errorf("%s: chunk %d says [%d, %d] and holds %d samples outside of it", s.Labels, i, c.MinTime, c.MaxTime, len(smp))
			}
		}
	}
}

func labelsOnly(t *testing.T, got, want store.Store) {
	for _, without := range [][]string{nil, {"replica"}} {
		req := everything()
		req.SkipChunks, req.WithoutReplicaLabels = true, without
		for _, s := range drain(t, got, req) {
			if len(s.Chunks) > 0 {
				t.Errorf("%s came with %d chunks, want none", s.Labels, len(s.Chunks))
			}
		}
		same(t, "labels only", got, want, req)
	}
}

func limitsAndShards(t *testing.T, got, want store.Store) {
	all := len(drain(t, want, everything()))
	for _, n := range []int{1, 3, all, all + 5} {
		req := everything()
		req.Limit = n
		if have := len(drain(t, got, req)); have != min(n, all) {
			t.Errorf("limit %d: got %d series, want %d", n, have, min(n, all))
		}
	}
	for _, sh := range []store.Shard{{Total: 3, By: true, Labels: []string{"__name__", "code"}}, {Total: 3, Labels: []string{"__name__", "replica"}}, {Total: 1, By: true}} {
		found := 0
		for i := range sh.Total {
			sh.Index = i
			req := everything()
			req.Shard, req.WithoutReplicaLabels = &sh, []string{"replica"}
			same(t, fmt.Sprintf("shard %+v", sh), got, want, req)
			found += len(drain(t, got, req))
		}
		if found != all {
			t.Errorf("shards %+v hold %d series together, want %d", sh, found, all)
		}
	}
}

func labelCalls(t *testing.T, got, want store.Store) {
	ctx := t.Context()
	all := everything()
	eq, re := labels.MatchEqual, labels.MatchRegexp
	for _, ms := range [][]*labels.Matcher{nil, {m(eq, "__name__", "up")}, {m(eq, "__name__", "absent")}, {m(re, "job", "n.*")}, {m(eq, "cluster", "us")}, {m(eq, "cluster", "eu"), m(eq, "__name__", "requests_total")}, {m(eq, "cluster", "eu")}, {m(eq, "code", "")}} {
		for _, without := range [][]string{nil, {"replica"}} {
			for _, limit := range []int{0, 2} {
				nr := &store.LabelNamesRequest{MinTime: all.MinTime, MaxTime: all.MaxTime, Matchers: ms, WithoutReplicaLabels: without, Limit: limit}
				compareLists(t, fmt.Sprintf("label names of %v without %v, limit %d", ms, without, limit))(got.LabelNames(ctx, nr))(want.LabelNames(ctx, nr))
				for _, name := range []string{"__name__", "job", "code", "cluster", "replica", "nothing", "with.dots", "instance"} {
					vr := &store.LabelValuesRequest{Label: name, MinTime: all.MinTime, MaxTime: all.MaxTime, Matchers: ms, WithoutReplicaLabels: without, Limit: limit}
					compareLists(t, fmt.Sprintf("values of %q of %v without %v, limit %d", name, ms, without, limit))(got.LabelValues(ctx, vr))(want.LabelValues(ctx, vr))
				}
			}
		}
	}
	if _, _, err := got.LabelValues(ctx, &store.LabelValuesRequest{MinTime: all.MinTime, MaxTime: all.MaxTime}); store.KindOf(err) != store.KindBadRequest || err == nil {
		t.Errorf("values of a label without a name: got error %v, want one of a bad request", err)
	}
}

type list func([]string, store.Warnings, error)

func compareLists(t *testing.T, what string) func([]string, store.Warnings, error) list {
	return func(got []string, ws store.Warnings, err error) list {
		if err != nil || len(ws) > 0 {
			t.Errorf("%s: warnings %v, error %v", what, ws, err)
		}
		return func(want []string, _ store.Warnings, _ error) {
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
		}
	}
}

func cursor(t *testing.T, st store.Store) {
	cur, err := st.Series(t.Context(), everything())
	if err != nil {
		t.Fatal(err)
	}
	if !cur.Next() {
		t.Fatalf("no series: %v", cur.Err())
	}
	kept := cur.At().Clone()
	first := cur.At().Labels
	for cur.Next() {
	}
	if cur.Next() || cur.Err() != nil {
		t.Errorf("after the end Next gave a series, or error %v", cur.Err())
	}
	if !labels.Equal(first, kept.Labels) || len(decode(t, first, &kept.Chunks[0])) == 0 {
		t.Errorf("the labels or the clone of a series changed when its cursor moved on")
	}
	if err := errors.Join(cur.Close(), cur.Close()); err != nil {
		t.Errorf("closing twice: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	early, err := st.Series(ctx, everything())
	if err != nil {
		t.Fatal(err)
	}
	early.Next()
	if err := early.Close(); err != nil {
		t.Errorf("closing early: %v", err)
	}
	cancel()
	if cur, err = st.Series(ctx, everything()); err == nil {
		for cur.Next() {
		}
		err = cur.Err()
		cur.Close()
	}
	if err == nil {
		t.Errorf("a request whose context had ended was answered")
	}
}

// unchanged shows that a request stays as it is, the order of its lists included: other Stores may be reading it.
func unchanged(t *testing.T, st store.Store) {
	fresh := func() *store.SeriesRequest {
		req := request(m(labels.MatchRegexp, "instance", "h.*"), m(labels.MatchEqual, "job", "node"), m(labels.MatchNotEqual, "zone", "x"), m(labels.MatchEqual, "__name__", "up"))
		req.WithoutReplicaLabels = []string{"replica", "a"}
		req.Shard = &store.Shard{Total: 1, Labels: []string{"z", "a"}}
		return req
	}
	shape := func(r *store.SeriesRequest) string {
		return fmt.Sprint(r.Matchers, r.WithoutReplicaLabels, *r.Shard, r.MinTime, r.MaxTime, r.Aggregates, r.SkipChunks, r.Limit)
	}
	for _, skip := range []bool{false, true} {
		req := fresh()
		req.SkipChunks = skip
		before := shape(req)
		drain(t, st, req)
		if after := shape(req); after != before {
			t.Errorf("a Store changed its request\nfrom %s\nto   %s", before, after)
		}
	}
	ms := fresh().Matchers
	before := fmt.Sprint(ms)
	_, _, nerr := st.LabelNames(t.Context(), &store.LabelNamesRequest{MinTime: Base, MaxTime: Base + 1000, Matchers: ms})
	_, _, verr := st.LabelValues(t.Context(), &store.LabelValuesRequest{Label: "job", MinTime: Base, MaxTime: Base + 1000, Matchers: ms})
	if err := errors.Join(nerr, verr); err != nil || fmt.Sprint(ms) != before {
		t.Errorf("label calls: error %v, matchers %v, want still %s", err, ms, before)
	}
}

// replicas looks at the replicas that chunks name: none where nothing is removed, and otherwise the removed labels
// in one order, whatever the order they are asked for in. The cases of order have replica labels that are stored.
func replicas(t *testing.T, st store.Store) {
	for _, c := range []struct {
		without []string
		want    string
	}{
		{nil, ""},
		{[]string{"nothing"}, ""},
		{[]string{"replica"}, "replica\x00a\x00"},
		{[]string{"replica", "cluster", "nothing"}, "cluster\x00eu\x00replica\x00a\x00"},
		{[]string{"cluster", "replica"}, "cluster\x00eu\x00replica\x00a\x00"},
	} {
		req := everything()
		req.WithoutReplicaLabels = c.without
		for _, s := range drain(t, st, req) {
			for i := range s.Chunks {
				if got := s.Chunks[i].Replica; got != c.want {
					t.Errorf("without %v: a chunk of %s names replica %q, want %q", c.without, s.Labels, got, c.want)
				}
			}
		}
	}
}

func parallel(t *testing.T, got, want store.Store) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { same(t, "in parallel", got, want, everything()) })
	}
	wg.Wait()
}

func order(t *testing.T, got, want store.Store) {
	for _, without := range [][]string{nil, {"replica"}, {"replica", "m"}, {"cluster", "zzz", "r"}} {
		for _, skip := range []bool{false, true} {
			req := everything()
			req.WithoutReplicaLabels, req.SkipChunks = without, skip
			same(t, fmt.Sprintf("without %v, labels only %v", without, skip), got, want, req)
		}
	}
	same(t, "regexp on a label", got, want, request(m(labels.MatchRegexp, "a", "1|2|"), m(labels.MatchRegexp, "__name__", "m|n")))
}

// same asks both Stores and compares labels in order, and the samples within the range with the replicas that
// their chunks name.
func same(t testing.TB, what string, got, want store.Store, req *store.SeriesRequest) {
	t.Helper()
	g, w := joined(t, what, drain(t, got, req), req), joined(t, what, drain(t, want, req), req)
	if diff := cmp.Diff(names(w), names(g)); diff != "" {
		t.Errorf("%s: series differ (-want +got):\n%s", what, diff)
		return
	}
	for i := range w {
		if diff := cmp.Diff(w[i].samples, g[i].samples); diff != "" {
			t.Errorf("%s: samples of %s differ (-want +got):\n%s", what, w[i].labels, diff)
		}
	}
}

func drain(t testing.TB, st store.Store, req *store.SeriesRequest) []*store.Series {
	t.Helper()
	cur, err := st.Series(t.Context(), req)
	if err != nil {
		t.Errorf("series of %v: %v", req.Matchers, err)
		return nil
	}
	all, ws, err := store.Drain(cur)
	if err != nil || len(ws) > 0 {
		t.Errorf("series of %v: warnings %v, error %v", req.Matchers, ws, err)
	}
	return all
}

type answer struct {
	labels  labels.Labels
	samples []string
}

// joined puts consecutive series of equal labels together and spells out their samples in the range,
// sorted, equal ones once. A series may come for a chunk that overlaps the range without a sample in it;
// such a series is left out.
func joined(t testing.TB, what string, all []*store.Series, req *store.SeriesRequest) []answer {
	t.Helper()
	var out []answer
	for i, s := range all {
		if i > 0 && labels.Compare(all[i-1].Labels, s.Labels) > 0 {
			t.Errorf("%s: %s comes after %s", what, s.Labels, all[i-1].Labels)
		}
		if i == 0 || !labels.Equal(all[i-1].Labels, s.Labels) {
			out = append(out, answer{labels: s.Labels})
		}
		a := &out[len(out)-1]
		for j := range s.Chunks {
			for _, smp := range decode(t, s.Labels, &s.Chunks[j]) {
				if smp.T >= req.MinTime && smp.T <= req.MaxTime {
					a.samples = append(a.samples, smp.String()+ofReplica(s.Chunks[j].Replica))
				}
			}
		}
	}
	for i := range out {
		slices.Sort(out[i].samples)
		out[i].samples = slices.Compact(out[i].samples)
	}
	if !req.SkipChunks {
		out = slices.DeleteFunc(out, func(a answer) bool { return len(a.samples) == 0 })
	}
	return out
}

// ofReplica spells out the replica that a chunk names.
func ofReplica(replica string) string {
	if replica == "" {
		return ""
	}
	return fmt.Sprintf(" in replica %q", replica)
}

func names(as []answer) []string {
	ss := make([]string, len(as))
	for i := range as {
		ss[i] = as[i].labels.String()
	}
	return ss
}

// String spells a sample out with every bit of its value. Counter reset hints are left out: they
// depend on where a series is cut into chunks.
func (s Sample) String() string {
	switch {
	case s.H != nil:
		return fmt.Sprintf("%d int %s", s.T, s.H)
	case s.FH != nil:
		return fmt.Sprintf("%d float %s", s.T, s.FH)
	}
	return fmt.Sprintf("%d %v %x", s.T, s.V, math.Float64bits(s.V))
}

func decode(t testing.TB, ls labels.Labels, c *store.Chunk) []Sample {
	t.Helper()
	if !c.Raw.Present() {
		t.Errorf("%s: chunk [%d, %d] is not raw", ls, c.MinTime, c.MaxTime)
		return nil
	}
	ch, err := chunkenc.FromData(c.Raw.Encoding, c.Raw.Data)
	if err != nil {
		t.Errorf("%s: %v", ls, err)
		return nil
	}
	var ss []Sample
	it := ch.Iterator(nil)
	for {
		switch it.Next() {
		case chunkenc.ValFloat:
			ts, v := it.At()
			ss = append(ss, Sample{T: ts, V: v})
		case chunkenc.ValHistogram:
			ts, h := it.AtHistogram(nil)
			ss = append(ss, Sample{T: ts, H: h})
		case chunkenc.ValFloatHistogram:
			ts, h := it.AtFloatHistogram(nil)
			ss = append(ss, Sample{T: ts, FH: h})
		default:
			if err := it.Err(); err != nil {
				t.Errorf("%s: chunk [%d, %d]: %v", ls, c.MinTime, c.MaxTime, err)
			}
			return ss
		}
	}
}
