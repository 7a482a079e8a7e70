package promqlcompat

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"
	promtsdb "github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/bucket"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	"github.com/koios-metrics/koios/pkg/store/prom"
	storeremote "github.com/koios-metrics/koios/pkg/store/remote"
	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/pkg/store/tsdb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// external are the labels that every road adds and the query takes off again. They sort on either side of
// those that the data has.
var (
	external      = labels.FromStrings("_fleet", "x", "zz_replica", "0")
	replicaLabels = []string{"_fleet", "zz_replica"}
)

// roads are the ways from a TSDB to a querier.
var roads = []string{"tsdb", "wire", "prom", "bucket", "all"}

// destinations are the Stores at the ends of the roads. The live ones are those of the first roads; the others show the
// data as it is now.
func destinations(t testing.TB, db *promtsdb.DB, live []store.Store) []store.Store {
	t.Helper()
	all := append(slices.Clone(live), overBucket(t, db))
	return append(all, overAll(all))
}

func overTSDB(db *promtsdb.DB) store.Store {
	return tsdb.New(db, external, tsdb.Config{})
}

// overWire asks a server over gRPC.
func overWire(t testing.TB, db *promtsdb.DB) store.Store {
	t.Helper()
	under := overTSDB(db)
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer()
	storepb.RegisterStoreServer(s, server.New(under, server.Config{}, log.NewNopLogger(), prometheus.NewRegistry()))
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
	st := storeremote.New(cc, storeremote.Config{Name: "peer"})
	// Data comes after this, so that the range of the TSDB is not yet known.
	d := under.Describe()
	d.MinTime = math.MinInt64
	if err := st.SetInfo(server.InfoOf("sidecar", d)); err != nil {
		t.Fatal(err)
	}
	return st
}

// overPrometheus asks by remote read, as a sidecar does; the handler is Prometheus's own.
func overPrometheus(t testing.TB, db *promtsdb.DB) store.Store {
	t.Helper()
	cfg := config.Config{GlobalConfig: config.GlobalConfig{ExternalLabels: external}}
	mux := http.NewServeMux()
	mux.Handle("/api/v1/read", remote.NewReadHandler(slog.New(slog.DiscardHandler), nil, db, func() config.Config { return cfg }, 1e7, 10, 1<<20))
	mux.HandleFunc("/api/v1/labels", func(w http.ResponseWriter, r *http.Request) {
		var names []string
		q, err := db.Querier(math.MinInt64, math.MaxInt64)
		if err == nil {
			names, _, err = q.LabelNames(r.Context(), nil)
			_ = q.Close()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": names})
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return prom.New(promapi.New(u, srv.Client(), "Koios/test"), func() labels.Labels { return external },
		func() (int64, int64) { return math.MinInt64, math.MaxInt64 }, prom.Config{}, log.NewNopLogger(), prometheus.NewRegistry())
}

// overBucket uploads what the TSDB holds, its head as a block too, and reads it from there.
func overBucket(t testing.TB, db *promtsdb.DB) store.Store {
	t.Helper()
	dir, bkt := t.TempDir(), objstore.NewInMemBucket()
	if db.Head().NumSeries() > 0 {
		if err := db.Snapshot(dir, true); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		at := filepath.Join(dir, e.Name())
		m, err := block.ReadMetaDir(at)
		if err != nil {
			t.Fatal(err)
		}
		m.Thanos.Labels, m.Thanos.Source = external.Map(), block.SourceTest
		if err := block.WriteMetaDir(at, m); err != nil {
			t.Fatal(err)
		}
		if _, err := block.Upload(t.Context(), bkt, at, block.UploadOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := bucket.New(bkt, bucket.Config{DataDir: t.TempDir(), IndexCacheBytesMax: 1 << 20}, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.InitialSync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// overAll merges what all roads bring: the same data several times, in chunks cut differently.
func overAll(all []store.Store) store.Store {
	return fanout.New(func() []store.Store { return all }, fanout.Config{}, log.NewNopLogger(), prometheus.NewRegistry())
}
