package fanout_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	"github.com/koios-metrics/koios/pkg/store/remote"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// names are label names on both sides of the replica labels r and rr, in byte order and out of it.
var names = []string{"__name__", "a", "b", "q", "r", "r!", "ra", "rr", "rrr", "s", "z"}

// readLeaves makes Stores of random label sets from bytes: an external label set and up to a dozen series each.
func readLeaves(in []byte) (leaves []storetest.Data) {
	next := func() int {
		if len(in) == 0 {
			return 0
		}
		b := in[0]
		in = in[1:]
		return int(b)
	}
	set := func() labels.Labels {
		b := labels.NewBuilder(labels.EmptyLabels())
		for bits := next() | next()<<8; bits != 0; bits &= bits - 1 {
			b.Set(names[(next()+bits)%len(names)], fmt.Sprint(next()%3))
		}
		return b.Labels()
	}
	for range 4 {
		ext := labels.NewBuilder(labels.EmptyLabels())
		for k := next(); k > 0; k >>= 3 {
			ext.Set(names[1+k%(len(names)-1)], fmt.Sprint(next()%3))
		}
		d := storetest.Data{External: ext.Labels()}
		seen := map[string]bool{}
		for range 1 + next()%12 {
			ls := set()
			b := labels.NewBuilder(ls)
			b.Set("__name__", "m")
			if ls = b.Labels(); seen[ls.String()] {
				continue
			}
			seen[ls.String()] = true
			d.Series = append(d.Series, storetest.Input{Labels: ls, Samples: storetest.Floats(2, float64(next()%4))})
		}
		slices.SortFunc(d.Series, func(a, b storetest.Input) int { return labels.Compare(a.Labels, b.Labels) })
		leaves = append(leaves, d)
	}
	return leaves
}

// overPeers is a querier over Stores behind gRPC.
func overPeers(t testing.TB, stores ...store.Store) (*fanout.Store, []*remote.Store) {
	var peers []store.Store
	var remotes []*remote.Store
	for _, st := range stores {
		p := connect(t, st)
		remotes = append(remotes, p)
		peers = append(peers, p)
	}
	return fanout.New(func() []store.Store { return peers }, fanout.Config{}, log.NewNopLogger(), prometheus.NewRegistry()), remotes
}

// checkTiers asks the leaves through three tiers of queriers, and by hand.
func checkTiers(t *testing.T, leaves []storetest.Data, without []string, batch int) {
	var stores []store.Store
	want := map[string][]store.Chunk{}
	req := &store.SeriesRequest{
		MinTime: storetest.Base, MaxTime: storetest.Base + 1<<22, WithoutReplicaLabels: without, BatchSize: batch, PartialResponse: store.Abort,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")},
	}
	for _, d := range leaves {
		st := storetest.New(d)
		stores = append(stores, st)
		cur, err := st.Series(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		all, _, err := store.Drain(cur)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			want[s.Labels.String()] = append(want[s.Labels.String()], s.Chunks...)
		}
	}
	one, p1 := overPeers(t, stores[:2]...)
	two, p2 := overPeers(t, one, stores[2])
	three, p3 := overPeers(t, two, stores[3])
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // what hangs is to be told
	defer cancel()
	cur, err := three.Series(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	all, ws, err := store.Drain(cur)
	if err != nil || len(ws) > 0 {
		t.Fatalf("without %v: warnings %v, error %v", without, ws, err)
	}
	for _, p := range slices.Concat(p1, p2, p3) {
		if p.Unordered() {
			t.Errorf("without %v: a peer broke the order", without)
		}
	}
	var last labels.Labels
	got := map[string][]store.Chunk{}
	for i, s := range all {
		if i > 0 && labels.Compare(last, s.Labels) > 0 {
			t.Errorf("without %v: %s comes after %s", without, s.Labels, last)
		}
		last = s.Labels
		got[s.Labels.String()] = append(got[s.Labels.String()], s.Chunks...)
	}
	if len(got) != len(want) {
		t.Errorf("without %v: %d series, want %d", without, len(got), len(want))
	}
	for ls, cs := range want {
		if !slices.EqualFunc(store.SortChunks(got[ls]), store.SortChunks(cs), func(a, b store.Chunk) bool { return store.CompareChunks(&a, &b) == 0 && a.Replica == b.Replica }) {
			t.Errorf("without %v: other chunks of %s, or in other replicas: got %v, want %v", without, ls, got[ls], cs)
		}
	}
}

// Whatever the labels of series, the external ones and those requested away, an answer through three tiers of
// queriers over gRPC has all series and chunks, in order and in the replicas that the leaves name, and no tier
// had to sort what another one sent.
// (Killed: a merge that does not compare labels; a leaf that removes replica labels without sorting.)
func FuzzThreeTiers(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add([]byte("\x00\x05\x07\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"), uint8(3))
	for i := range 24 { // the fuzzing that every test run does
		var seed []byte
		for k := range 60 {
			seed = binary.LittleEndian.AppendUint32(seed, uint32(i+1)*2654435761*uint32(k*k+7*i+1))
		}
		f.Add(seed, uint8(37*i))
	}
	f.Fuzz(func(t *testing.T, in []byte, how uint8) {
		var without []string
		for i, n := range []string{"r", "rr", "a", "z"} {
			if how>>i&1 == 1 {
				without = append(without, n)
			}
		}
		checkTiers(t, readLeaves(in), without, int(how>>4))
	})
}
