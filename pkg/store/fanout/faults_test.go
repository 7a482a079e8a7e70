package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	"github.com/koios-metrics/koios/pkg/store/remote"
	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/pkg/store/storetest"
	"github.com/koios-metrics/koios/proto/storepb"
)

// fault is what goes wrong with a Store: it stops to send, or fails, after so many series; -1 is before it
// even begins to answer.
type fault struct {
	stall bool
	after int
}

// node is a Store behind gRPC that breaks as told.
type node struct {
	store.Store
	desc  store.Description
	fault atomic.Pointer[fault]
}

func (n *node) Describe() store.Description { return n.desc }

var errKilled = store.Errorf(store.KindUnavailable, "killed")

func (f *fault) happen(ctx context.Context) error {
	if f.stall {
		<-ctx.Done()
		return ctx.Err()
	}
	return errKilled
}

func (n *node) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	f := n.fault.Load()
	if f != nil && f.after < 0 {
		return nil, f.happen(ctx)
	}
	cur, err := n.Store.Series(ctx, req)
	if err != nil || f == nil {
		return cur, err
	}
	return &breaking{Cursor: cur, ctx: ctx, f: f, left: f.after}, nil
}

func (n *node) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	if f := n.fault.Load(); f != nil {
		return nil, nil, f.happen(ctx)
	}
	return n.Store.LabelValues(ctx, req)
}

type breaking struct {
	store.Cursor
	ctx  context.Context
	f    *fault
	left int
	err  error
}

func (b *breaking) Next() bool {
	if b.left == 0 {
		b.err = b.f.happen(b.ctx)
		return false
	}
	b.left--
	return b.Cursor.Next()
}

func (b *breaking) Err() error {
	if b.err != nil {
		return b.err
	}
	return b.Cursor.Err()
}

// fleet is ten Stores behind gRPC: two pairs of gateways with the same blocks, a pair of replicas, a pair that
// looks like replicas by labels and holds two halves, and two shards with equal labels.
type fleet struct {
	nodes []*node
	peers []store.Store
	query *fanout.Store
	time  time.Duration // that each query may take
}

func blockID(n int) (u ulid.ULID) {
	u[15] = byte(n)
	return u
}

// Two pairs and one of so many series each, and two halves of the same.
const seriesPerStore, wholeSeries = 40, 5 * seriesPerStore

func newFleet(t testing.TB, cfg fanout.Config) *fleet {
	f := &fleet{}
	data := func(what string, part, parts int, external ...string) storetest.Data {
		d := storetest.Data{External: labels.FromStrings(external...)}
		for i := range seriesPerStore {
			if i%parts != part {
				continue
			}
			ls := []string{"__name__", "up", "i", fmt.Sprintf("%03d", i), "of", what}
			if external[1] == "old" { // two replicas, whose series become one
				d.Series = append(d.Series, storetest.Input{Labels: labels.FromStrings(append(ls, "replica", "a")...), Samples: storetest.Floats(130, -1)})
				ls = append(ls, "replica", "b")
			}
			d.Series = append(d.Series, storetest.Input{Labels: labels.FromStrings(ls...), Samples: storetest.Floats(130, float64(i))})
		}
		return d
	}
	add := func(kind string, d storetest.Data, blocks ...int) {
		m := storetest.New(d)
		n := &node{Store: m, desc: m.Describe()}
		n.desc.Name = fmt.Sprintf("%s-%d", kind, len(f.nodes))
		if len(blocks) > 0 {
			set := store.BlockSet{Labels: d.External}
			for _, b := range blocks {
				set.Blocks = append(set.Blocks, store.Block{ID: blockID(b), MinTime: n.desc.MinTime, MaxTime: n.desc.MaxTime})
			}
			n.desc.Blocks, n.desc.OnlyBlocks = []store.BlockSet{set}, true
		}
		f.nodes = append(f.nodes, n)
		f.peers = append(f.peers, connect(t, n))
	}
	for i := range 2 {
		for range 2 {
			add("gateway", data(fmt.Sprint("bucket", i), 0, 1, "cluster", "old"), 10*i+1, 10*i+2)
		}
	}
	for i, kind := range []string{"replica", "half"} {
		for k, r := range []string{"a", "b"} {
			d := data("pair", k*i, 1+i, "cluster", "new-"+kind, "replica", r)
			for j := range d.Series { // replicas scrape at times of their own
				d.Series[j].Samples = slices.Clone(d.Series[j].Samples)
				for k := range d.Series[j].Samples {
					d.Series[j].Samples[k].T += int64(len(r)) * int64(r[0])
				}
			}
			add(kind, d)
			n := f.nodes[len(f.nodes)-1]
			n.desc.MinTime, n.desc.MaxTime = 0, math.MaxInt64
			setInfo(t, f.peers[len(f.peers)-1], n.desc)
		}
	}
	for i := range 2 {
		add("shard", data("hash", i, 2, "cluster", "hashmod"))
	}
	f.query = fanout.New(func() []store.Store { return f.peers }, cfg, log.NewNopLogger(), prometheus.NewRegistry())
	return f
}

func setInfo(t testing.TB, st store.Store, d store.Description) {
	t.Helper()
	if err := st.(*remote.Store).SetInfo(server.InfoOf("store", d)); err != nil {
		t.Fatal(err)
	}
}

// connect serves a Store over gRPC in memory and returns the Store at the other end.
func connect(t testing.TB, st store.Store) *remote.Store {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	storepb.RegisterStoreServer(s, server.New(st, server.Config{}, log.NewNopLogger(), prometheus.NewRegistry()))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:///peer", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	peer := remote.New(cc, remote.Config{Name: st.Describe().Name})
	setInfo(t, peer, st.Describe())
	return peer
}

// ask asks the fleet for everything, the replica label requested away.
func (f *fleet) ask(t testing.TB, pr store.PartialResponse, batch int) ([]*store.Series, store.Warnings, error) {
	ctx, cancel := context.WithTimeout(t.Context(), f.time)
	defer cancel()
	cur, err := f.query.Series(ctx, &store.SeriesRequest{
		MinTime: storetest.Base, MaxTime: storetest.Base + 1<<22, PartialResponse: pr, WithoutReplicaLabels: []string{"replica"}, BatchSize: batch,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")},
	})
	if err != nil {
		return nil, nil, err
	}
	all, ws, err := store.Drain(cur)
	if ctx.Err() != nil {
		t.Error("no answer by the deadline")
	}
	return joined(all), ws, err
}

// joined makes neighbours with equal labels one series.
func joined(in []*store.Series) (out []*store.Series) {
	for _, s := range in {
		if n := len(out); n > 0 && labels.Equal(out[n-1].Labels, s.Labels) {
			out[n-1].Chunks = append(out[n-1].Chunks, s.Chunks...)
			continue
		}
		out = append(out, s)
	}
	for _, s := range out {
		slices.SortFunc(s.Chunks, func(a, b store.Chunk) int { return store.CompareChunks(&a, &b) })
	}
	return out
}

func equalSeries(a, b *store.Series) bool {
	return labels.Equal(a.Labels, b.Labels) && slices.EqualFunc(a.Chunks, b.Chunks, func(x, y store.Chunk) bool { return store.CompareChunks(&x, &y) == 0 })
}

// faults breaks a random Store in a random way for each of n queries, and returns how long those took for
// which a survivor holds the same blocks. Each is asked with partial response and without.
func faults(t *testing.T, seed uint64, n int, queryTime time.Duration) (healthy, survived []time.Duration) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	f := newFleet(t, fanout.Config{})
	f.time = queryTime
	var whole []*store.Series
	ask := func(i int) {
		start := time.Now()
		all, ws, err := f.ask(t, store.PartialResponse(i%2), 1+i%8)
		if err != nil || len(ws) > 0 || len(all) != wholeSeries {
			t.Fatalf("healthy: %d series, warnings %v, error %v", len(all), ws, err)
		}
		whole = all
		healthy = append(healthy, time.Since(start))
	}
	for i := range 30 { // the querier gets to know the fleet
		ask(i)
	}
	for i := range n {
		k := rnd.IntN(len(f.nodes))
		broken := &fault{stall: rnd.IntN(2) == 0, after: rnd.IntN(seriesPerStore+2) - 1}
		name := f.nodes[k].desc.Name
		f.nodes[k].fault.Store(broken)
		for _, pr := range []store.PartialResponse{store.Warn, store.Abort} {
			what := fmt.Sprintf("seed %d, query %d: %s with %+v, partial response %v", seed, i, name, *broken, pr)
			start := time.Now()
			all, ws, err := f.ask(t, pr, 1+rnd.IntN(8))
			took := time.Since(start)
			harmless := broken.after > seriesPerStore/2 // for Stores of a half: after their end
			switch {
			case strings.HasPrefix(name, "gateway"):
				survived = append(survived, took)
				if err != nil || len(ws) > 0 || !slices.EqualFunc(all, whole, equalSeries) {
					t.Errorf("%s: %d series, warnings %v, error %v", what, len(all), ws, err)
				}
			case strings.HasPrefix(name, "replica"):
				if err != nil || len(ws.Doubts()) > 0 || len(ws) != 1 || !strings.Contains(ws[0].Error(), name) {
					t.Errorf("%s: warnings %v, error %v", what, ws, err)
				}
				within(t, what, all, whole)
			case harmless:
				if err != nil || len(ws) > 0 || !slices.EqualFunc(all, whole, equalSeries) {
					t.Errorf("%s, which it can't notice: %d series, warnings %v, error %v", what, len(all), ws, err)
				}
			case pr == store.Abort:
				if store.KindOf(err) != store.KindAborted || !strings.Contains(err.Error(), f.nodes[k].desc.LabelSets[0].String()) {
					t.Errorf("%s: %d series, warnings %v, error %v", what, len(all), ws, err)
				}
			default:
				var gap *store.Gap
				if err != nil || len(ws) != 1 || !errors.As(ws[0], &gap) || gap.Store != name || fmt.Sprint(gap.LabelSets) != fmt.Sprint(f.nodes[k].desc.LabelSets) ||
					gap.MinTime != storetest.Base || gap.MaxTime != min(storetest.Base+1<<22, f.nodes[k].desc.MaxTime) {
					t.Errorf("%s: warnings %v, error %v", what, ws, err)
				}
				if len(all) > wholeSeries {
					t.Errorf("%s: %d series", what, len(all))
				}
			}
		}
		f.nodes[k].fault.Store(nil)
		ask(i)
	}
	return healthy, survived
}

// within checks that an answer has the series of the whole one, and no chunks but of those.
func within(t *testing.T, what string, all, whole []*store.Series) {
	t.Helper()
	if len(all) != len(whole) {
		t.Errorf("%s: %d series, want %d", what, len(all), len(whole))
		return
	}
	for i, s := range all {
		if !labels.Equal(s.Labels, whole[i].Labels) || len(s.Chunks) < len(whole[i].Chunks)/2 {
			t.Errorf("%s: series %s with %d chunks, want %s with %d or half as many", what, s.Labels, len(s.Chunks), whole[i].Labels, len(whole[i].Chunks))
			return
		}
		for j := range s.Chunks {
			if !slices.ContainsFunc(whole[i].Chunks, func(c store.Chunk) bool { return store.CompareChunks(&c, &s.Chunks[j]) == 0 }) {
				t.Errorf("%s: series %s has a chunk that no replica has", what, s.Labels)
				return
			}
		}
	}
}

// Any one of ten Stores stalls or is killed, at its opening or after some series, in each of 200 queries, on a
// clock that does not wait. Where a survivor serves the same blocks the answer is the identical one, without a
// warning; where it is a replica the answer is within what the replicas have, with an info; a shard's loss is
// named, with labels and time, by the deadline; and without partial response there is never a gap.
// (Killed: mutants that judge by labels and time; that go on after a takeover from the labels behind the last,
// or without leaving out chunks; that take any twin for proven.)
func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		faults(t, 1, 200, 20*time.Second)
		t.Logf("%s on the test's clock", time.Since(start))
	})
}
