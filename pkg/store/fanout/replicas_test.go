package fanout

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// mute is a Store that does not say which replica a chunk comes from, as Thanos.
type mute struct {
	store.Store
	labelled bool
	fails    func(*store.SeriesRequest) bool
	asked    atomic.Int64
}

func (m *mute) Describe() store.Description {
	d := m.Store.Describe()
	d.Replicas, d.Labelled, d.Local = false, m.labelled, false
	return d
}

func (m *mute) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	m.asked.Add(1)
	if m.fails != nil && m.fails(req) {
		return nil, store.Errorf(store.KindUnavailable, "down")
	}
	cur, err := m.Store.Series(ctx, req)
	if err != nil {
		return nil, err
	}
	all, ws, err := store.Drain(cur)
	for _, s := range all {
		for i := range s.Chunks {
			s.Chunks[i].Replica = ""
		}
	}
	return store.NewSliceCursor(all, ws...), err
}

func dataOf(external labels.Labels, series ...labels.Labels) storetest.Data {
	d := storetest.Data{External: external}
	slices.SortFunc(series, labels.Compare)
	for i, ls := range series {
		d.Series = append(d.Series, storetest.Input{Labels: ls, Samples: storetest.Floats(2, float64(external.Hash()%(1<<40))+float64(i))})
	}
	return d
}

func withoutReplicas(names ...string) *store.SeriesRequest {
	return &store.SeriesRequest{
		MinTime: storetest.Base, MaxTime: storetest.Base + 1<<22, WithoutReplicaLabels: names,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")},
	}
}

// listed is what a Store answers: labels, the first value, and the replica.
func listed(t *testing.T, st store.Store, req *store.SeriesRequest) (list []string, ws store.Warnings) {
	t.Helper()
	cur, err := st.Series(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	all, ws, err := store.Drain(cur)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		for i := range s.Chunks {
			list = append(list, s.Labels.String()+" of "+strings.ReplaceAll(s.Chunks[i].Replica, "\x00", ","))
		}
	}
	slices.Sort(list)
	return list, ws
}

// A Store that does not name replicas is asked for each that it advertises, and what comes is named; what it holds
// besides comes too, without a name. A component that labels all it has with the one set that it advertises is
// asked once. (Seen to die: no request for the rest; a name of the last of two replica labels alone.)
func TestMuteStores(t *testing.T) {
	m, stored := labels.FromStrings("__name__", "m"), labels.FromStrings("__name__", "m", "r", "9")
	ext := labels.FromStrings
	f := func(what string, labelled bool, asked int64, req *store.SeriesRequest, leaves []storetest.Data, want ...string) {
		t.Helper()
		var under []store.Store
		for _, d := range leaves {
			under = append(under, storetest.New(d))
		}
		st := &mute{Store: over(Config{}, under...), labelled: labelled}
		got, ws := listed(t, over(Config{}, st), req)
		if d := cmp.Diff(want, got); d != "" || len(ws) > 0 {
			t.Errorf("%s: warnings %v (-want +got)\n%s", what, ws, d)
		}
		if st.asked.Load() != asked {
			t.Errorf("%s: asked %d times, want %d", what, st.asked.Load(), asked)
		}
	}
	pair := []storetest.Data{dataOf(ext("c", "eu", "r", "a"), m), dataOf(ext("c", "eu", "r", "b"), m)}
	f("a sidecar", true, 1, withoutReplicas("r"), pair[:1], `{__name__="m", c="eu"} of r,a,`)
	f("a querier over one", false, 2, withoutReplicas("r"), pair[:1], `{__name__="m", c="eu"} of r,a,`)
	f("a pair", true, 3, withoutReplicas("r"), pair, `{__name__="m", c="eu"} of r,a,`, `{__name__="m", c="eu"} of r,b,`)
	f("no replica labels", false, 1, withoutReplicas("other"), pair, `{__name__="m", c="eu", r="a"} of `, `{__name__="m", c="eu", r="b"} of `)
	f("nothing to remove", false, 1, withoutReplicas(), pair, `{__name__="m", c="eu", r="a"} of `, `{__name__="m", c="eu", r="b"} of `)
	one := withoutReplicas("r")
	one.Matchers = append(one.Matchers, labels.MustNewMatcher(labels.MatchEqual, "r", "b"))
	f("one of the pair is asked for", true, 1, one, pair, `{__name__="m", c="eu"} of r,b,`)
	skip := withoutReplicas("r")
	skip.SkipChunks = true
	f("labels only", true, 1, skip, pair)

	f("a replica label that is stored", false, 3, withoutReplicas("r"), append(pair, dataOf(ext("c", "us"), m, stored)),
		`{__name__="m", c="eu"} of r,a,`, `{__name__="m", c="eu"} of r,b,`, `{__name__="m", c="us"} of `, `{__name__="m", c="us"} of `)
	f("two replica labels", false, 7, withoutReplicas("rr", "r", "rr"),
		append(pair, dataOf(ext("c", "eu", "r", "a", "rr", "1"), m), dataOf(ext("rr", "1"), m, stored), dataOf(ext("rr", "2"), m)),
		`{__name__="m", c="eu"} of r,a,`, `{__name__="m", c="eu"} of r,a,rr,1,`, `{__name__="m", c="eu"} of r,b,`,
		`{__name__="m"} of `, `{__name__="m"} of rr,1,`, `{__name__="m"} of rr,2,`)

	var many []storetest.Data
	var want []string
	for i := range replicaRequestsMax {
		many = append(many, dataOf(ext("r", fmt.Sprint(i)), m))
		want = append(want, `{__name__="m"} of `)
	}
	f("too many", false, 1, withoutReplicas("r"), many, want...)
	for i := range want[1:] {
		want[i] = fmt.Sprintf(`{__name__="m"} of r,%d,`, i)
	}
	slices.Sort(want[:len(want)-1])
	f("as many as there may be", false, replicaRequestsMax, withoutReplicas("r"), many[:len(many)-1], want[:len(want)-1]...)
}

// Whatever labels a mute Store's series have, stored or external, and whatever is removed, each chunk comes once,
// with as much of its replica as is known and nothing untrue. (Seen to die: no request for the rest; no request
// for the sets without a label that others have.)
func TestMuteStoresRandom(t *testing.T) {
	names := []string{"r", "rr", "q"}
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 11))
		set := func(base ...string) labels.Labels {
			b := labels.NewBuilder(labels.FromStrings(base...))
			for _, n := range names {
				if rnd.IntN(3) == 0 {
					b.Set(n, fmt.Sprint(rnd.IntN(3)))
				}
			}
			return b.Labels()
		}
		without := names[:1+rnd.IntN(3)]
		truth := map[string][]string{} // by labels and chunk, the replicas
		key := func(s *store.Series, c *store.Chunk) string { return fmt.Sprintf("%s %x", s.Labels, c.Raw.Data) }
		req := withoutReplicas(without...)
		var leaves []store.Store
		for l := range 1 + rnd.IntN(4) {
			unique := map[string]labels.Labels{}
			for range 1 + rnd.IntN(4) {
				ls := set("__name__", "m")
				unique[ls.String()] = ls
			}
			var series []labels.Labels
			for _, ls := range unique {
				series = append(series, ls)
			}
			st := storetest.New(dataOf(set("leaf", fmt.Sprint(l)), series...))
			leaves = append(leaves, st)
			cur, err := st.Series(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			all, _, err := store.Drain(cur)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range all {
				for i := range s.Chunks {
					truth[key(s, &s.Chunks[i])] = append(truth[key(s, &s.Chunks[i])], s.Chunks[i].Replica)
				}
			}
		}
		st := &mute{Store: over(Config{}, leaves...)}
		cur, err := over(Config{}, st).Series(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		all, ws, err := store.Drain(cur)
		if err != nil || len(ws) > 0 {
			t.Fatalf("seed %d: warnings %v, error %v", seed, ws, err)
		}
		seen := map[string]bool{}
		for _, s := range all {
			for i := range s.Chunks {
				c := &s.Chunks[i]
				k := key(s, c)
				if seen[k] {
					t.Errorf("seed %d: twice: %s", seed, k)
				}
				seen[k] = true
				if !slices.ContainsFunc(truth[k], func(r string) bool { return store.JoinReplicas(c.Replica, r) == r }) {
					t.Errorf("seed %d: %s is named %q, and of %q", seed, k, c.Replica, truth[k])
				}
			}
		}
		if len(seen) != len(truth) {
			t.Errorf("seed %d: %d chunks, want %d", seed, len(seen), len(truth))
		}
	}
}

// What is lost of a Store that is asked for each replica is one gap that names the labels of what was lost; with all
// or nothing it fails the request.
func TestMuteStoreLost(t *testing.T) {
	m := labels.FromStrings("__name__", "m")
	under := over(Config{}, storetest.New(dataOf(labels.FromStrings("r", "a"), m)), storetest.New(dataOf(labels.FromStrings("r", "b"), m)), storetest.New(dataOf(labels.FromStrings("r", "c"), m)))
	isRest := func(req *store.SeriesRequest) bool { return req.Matchers[1].Type != labels.MatchEqual }
	f := func(fails func(*store.SeriesRequest) bool, wantSets string, want ...string) {
		t.Helper()
		st := over(Config{}, &mute{Store: under, fails: fails})
		got, ws := listed(t, st, withoutReplicas("r"))
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
		var gap *store.Gap
		if len(ws) != 1 || !errors.As(ws[0], &gap) || fmt.Sprint(gap.LabelSets) != wantSets {
			t.Errorf("got warnings %v, want one about %s", ws, wantSets)
		}
		req := withoutReplicas("r")
		req.PartialResponse = store.Abort
		cur, err := st.Series(t.Context(), req)
		if err == nil {
			_, _, err = store.Drain(cur)
		}
		if store.KindOf(err) != store.KindAborted {
			t.Errorf("all or nothing: got error %v", err)
		}
	}
	f(func(*store.SeriesRequest) bool { return true }, `[{r="a"} {r="b"} {r="c"}]`)
	f(func(r *store.SeriesRequest) bool { return !isRest(r) && r.Matchers[1].Value != "b" }, `[{r="a"} {r="c"}]`, `{__name__="m"} of r,b,`)
	f(isRest, `[]`, `{__name__="m"} of r,a,`, `{__name__="m"} of r,b,`, `{__name__="m"} of r,c,`)
}
