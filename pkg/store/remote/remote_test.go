package remote_test

import (
	"context"
	"math"
	"net"
	"testing"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/remote"
	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/pkg/store/storetest"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// What a Store promises holds over the wire, whatever the peer can do itself: remote over server over the
// reference Store passes the suite, with batches and without.
func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name               string
		sharding, replicas bool
		batch              int
	}{
		{"peer that does it all", true, true, 0},
		{"in batches", true, true, 4},
		{"peer without replica labels", true, false, 0},
		{"peer without sharding", false, true, 0},
		{"peer that can do nothing", false, false, 64},
		{"peer that forgets when asked for labels", true, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			storetest.Run(t, func(t testing.TB, data storetest.Data) store.Store {
				under := storetest.New(data)
				var srv storepb.StoreServer = server.New(under, server.Config{}, log.NewNopLogger(), prometheus.NewRegistry())
				srv = &deaf{StoreServer: srv, sharding: c.sharding, replicas: c.replicas, forgets: c.batch == 1}
				st := remote.New(connect(t, srv), remote.Config{Name: "peer"})
				info := server.InfoOf("store", under.Describe())
				info.Store.SupportsSharding, info.Store.SupportsWithoutReplicaLabels = c.sharding, c.replicas
				if err := st.SetInfo(info); err != nil {
					t.Fatal(err)
				}
				return batched{Store: st, size: c.batch}
			})
		})
	}
}

// deaf is a peer that does not know some fields of requests.
type deaf struct {
	storepb.StoreServer
	sharding, replicas bool
	// forgets is true of a peer that knows the fields and ignores them when it is asked for labels only.
	forgets bool
}

func (d *deaf) Series(m *storepb.SeriesRequest, stream storepb.Store_SeriesServer) error {
	if !d.sharding || d.forgets && m.SkipChunks {
		m.ShardInfo = nil
	}
	if !d.replicas || d.forgets && m.SkipChunks {
		m.WithoutReplicaLabels = nil
	}
	return d.StoreServer.Series(m, stream)
}

func (d *deaf) LabelNames(ctx context.Context, m *storepb.LabelNamesRequest) (*storepb.LabelNamesResponse, error) {
	if !d.replicas {
		m.WithoutReplicaLabels = nil
	}
	return d.StoreServer.LabelNames(ctx, m)
}

func (d *deaf) LabelValues(ctx context.Context, m *storepb.LabelValuesRequest) (*storepb.LabelValuesResponse, error) {
	if !d.replicas {
		m.WithoutReplicaLabels = nil
	}
	return d.StoreServer.LabelValues(ctx, m)
}

// batched asks for batches.
type batched struct {
	store.Store
	size int
}

func (b batched) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	r := *req
	r.BatchSize = b.size
	return b.Store.Series(ctx, &r)
}

// connect serves a Store on a loopback in memory and returns a connection to it.
func connect(t testing.TB, srv storepb.StoreServer, opts ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(append([]grpc.ServerOption{grpc.MaxSendMsgSize(math.MaxInt32), grpc.MaxRecvMsgSize(math.MaxInt32)}, opts...)...)
	storepb.RegisterStoreServer(s, srv)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:///peer", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cc.Close(); err != nil {
			t.Error(err)
		}
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return cc
}

func full(t testing.TB, st *remote.Store) *remote.Store {
	t.Helper()
	err := st.SetInfo(&infopb.InfoResponse{Store: &infopb.StoreInfo{MinTime: math.MinInt64, MaxTime: math.MaxInt64, SupportsSharding: true, SupportsWithoutReplicaLabels: true}})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// What a Store says of its blocks arrives at the other end: its own label sets, ids, resolutions, parents,
// and the times cut to what is served. Ids of the wrong length are refused. (Killed: a mutant that does not cut.)
func TestBlocksTravel(t *testing.T) {
	id := func(n byte) (u ulid.ULID) { u[15] = n; return u }
	d := store.Description{
		Name: "gateway", MinTime: 100, MaxTime: 299, OnlyBlocks: true,
		LabelSets: []labels.Labels{labels.FromStrings("r", "a"), labels.FromStrings("r", "b")},
		Blocks: []store.BlockSet{
			{Labels: labels.FromStrings("r", "a"), Blocks: []store.Block{{ID: id(1), MinTime: 0, MaxTime: 99}, {ID: id(2), MinTime: 50, MaxTime: 149}, {ID: id(3), MinTime: 150, MaxTime: 199, Resolution: 300_000}},
				Parents: []store.ParentBlock{{Child: id(2), ID: id(9), MinTime: 50, MaxTime: 99}, {Child: id(2), ID: id(7), MinTime: 80, MaxTime: 120}, {Child: id(2), ID: id(6), MinTime: 121, MaxTime: 149}, {Child: id(3), ID: id(8), MinTime: 150, MaxTime: 199}}},
			{Labels: labels.FromStrings("r", "b"), Blocks: []store.Block{{ID: id(4), MinTime: 150, MaxTime: 400}}},
		},
	}
	want := d
	want.Name, want.Labelled = "peer", len(want.LabelSets) > 0
	want.Blocks = []store.BlockSet{
		{Labels: labels.FromStrings("r", "a"), Blocks: []store.Block{{ID: id(2), MinTime: 100, MaxTime: 149}, {ID: id(3), MinTime: 150, MaxTime: 199, Resolution: 300_000}},
			Parents: []store.ParentBlock{{Child: id(2), ID: id(7), MinTime: 100, MaxTime: 120}, {Child: id(2), ID: id(6), MinTime: 121, MaxTime: 149}, {Child: id(3), ID: id(8), MinTime: 150, MaxTime: 199}}},
		{Labels: labels.FromStrings("r", "b"), Blocks: []store.Block{{ID: id(4), MinTime: 150, MaxTime: 299}}},
	}
	st := remote.New(nil, remote.Config{Name: "peer"})
	info := server.InfoOf("store", d)
	raw, err := proto.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	got := &infopb.InfoResponse{}
	if err := proto.Unmarshal(raw, got); err != nil {
		t.Fatal(err)
	}
	if err := st.SetInfo(got); err != nil {
		t.Fatal(err)
	}
	same := cmp.Comparer(func(a, b labels.Labels) bool { return labels.Equal(a, b) })
	if diff := cmp.Diff(want, st.Describe(), same); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	got.Store.BlockSets[0].Blocks[0].Id = []byte("short")
	if err := st.SetInfo(got); err == nil {
		t.Error("an id of five bytes is taken")
	}
	got.Store.BlockSets[0].Blocks[0].Id = got.Store.BlockSets[0].Blocks[1].Id
	got.Store.BlockSets[0].Parents[0].Id = nil
	if err := st.SetInfo(got); err == nil {
		t.Error("a parent without an id is taken")
	}
}
