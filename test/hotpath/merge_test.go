package hotpath

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/go-kit/log"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	"github.com/koios-metrics/koios/pkg/store/remote"
	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// prepared is a Store of series that lie ready in memory, so that nothing but their way is measured.
type prepared struct {
	store.Store
	name   string
	series []*store.Series
}

func (p *prepared) Series(context.Context, *store.SeriesRequest) (store.Cursor, error) {
	return store.NewSliceCursor(p.series), nil
}

func (p *prepared) Describe() store.Description {
	return store.Description{Name: p.name, MinTime: 0, MaxTime: math.MaxInt64}
}

// served starts a gRPC server over st and returns a Store over a connection to it.
func served(tb testing.TB, st store.Store, name string) store.Store {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	srv := grpc.NewServer()
	storepb.RegisterStoreServer(srv, server.New(st, server.Config{}, log.NewNopLogger(), nil))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = conn.Close()
		srv.Stop()
		<-done
	})
	r := remote.New(conn, remote.Config{Name: name})
	info := &infopb.InfoResponse{Store: &infopb.StoreInfo{MinTime: 0, MaxTime: math.MaxInt64, SupportsSharding: true, SupportsWithoutReplicaLabels: true, ChunksNameReplicas: true}}
	if err := r.SetInfo(info); err != nil {
		tb.Fatal(err)
	}
	return r
}

// seriesOf makes n series of one replica with two chunks each; replicas differ in the bytes of their chunks.
func seriesOf(n, shard, replica int) []*store.Series {
	data := make([]byte, 180)
	for i := range data {
		data[i] = byte(i*7 + replica)
	}
	named := fmt.Sprintf("replica\x00prometheus-%d\x00", replica)
	out := make([]*store.Series, n)
	for i := range out {
		out[i] = &store.Series{
			Labels: labels.FromStrings("__name__", "requests_total", "instance", fmt.Sprintf("host-%02d-%06d:9090", shard, i), "job", "api", "method", "GET"),
			Chunks: []store.Chunk{
				{MinTime: 0, MaxTime: 99, Raw: store.Payload{Encoding: chunkenc.EncXOR, Data: data, Hash: 1 + uint64(replica)}, Replica: named},
				{MinTime: 100, MaxTime: 199, Raw: store.Payload{Encoding: chunkenc.EncXOR, Data: data, Hash: 1 + uint64(replica)}, Replica: named},
			},
		}
	}
	return out
}

// BenchmarkMergeOverGRPC merges what ten stores send, of which each two are replicas of the same series:
// servers, sockets, decoding and the merge, all in this process. Allocations are those of both ends.
// KOIOS_SERIES is the number of series of each store, 5,000 if it is not set.
func BenchmarkMergeOverGRPC(b *testing.B) {
	const stores = 10
	perStore := 5_000
	if s := os.Getenv("KOIOS_SERIES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			b.Fatalf("KOIOS_SERIES: %v", err)
		}
		perStore = n
	}
	var all []store.Store
	for i := range stores {
		name := fmt.Sprint("store-", i)
		all = append(all, served(b, &prepared{name: name, series: seriesOf(perStore, i/2, i%2)}, name))
	}
	st := fanout.New(func() []store.Store { return all }, fanout.Config{}, log.NewNopLogger(), nil)
	req := &store.SeriesRequest{
		MinTime: 0, MaxTime: 200, BatchSize: 64, WithoutReplicaLabels: []string{"replica"},
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "requests_total")},
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	received := 0
	for b.Loop() {
		cur, err := st.Series(b.Context(), req)
		if err != nil {
			b.Fatal(err)
		}
		series, chunks := 0, 0
		for cur.Next() {
			series++
			chunks += len(cur.At().Chunks)
		}
		if err := cur.Err(); err != nil || len(cur.Warnings()) > 0 {
			b.Fatal(err, cur.Warnings())
		}
		if err := cur.Close(); err != nil {
			b.Fatal(err)
		}
		if series != stores/2*perStore || chunks != 2*stores*perStore {
			b.Fatalf("%d series and %d chunks, want %d and %d", series, chunks, stores/2*perStore, 2*stores*perStore)
		}
		received += stores * perStore
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(received), "ns/series")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(received), "allocs/series")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(received), "B/series")
}
