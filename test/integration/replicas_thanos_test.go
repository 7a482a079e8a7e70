//go:build compat

package integration

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	"github.com/koios-metrics/koios/pkg/store/remote"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/test/bulk"
	"github.com/koios-metrics/koios/test/fleet"
)

// Over a store gateway of Thanos, and over its querier, every chunk comes once and in the replica in which Koios's own
// gateway says it is; only what has its replica as a stored label, which nobody advertises, stays unknown.
func TestReplicasBesideThanos(t *testing.T) {
	bucket := t.TempDir()
	from := time.Now().Add(-48 * time.Hour).Truncate(2 * time.Hour).UnixMilli()
	stored := bulk.Counters("requests_total", 20)
	for i, ls := range stored {
		b := labels.NewBuilder(ls)
		b.Set("replica", "stored")
		stored[i] = b.Labels()
	}
	slices.SortFunc(stored, labels.Compare)
	for i, external := range []map[string]string{
		{"cluster": "eu", "replica": "a"}, {"cluster": "eu", "replica": "b"}, {"cluster": "us", "replica": "b", "rule_replica": "1"}, {"cluster": "us", "rule_replica": "2"}, {"cluster": "asia"},
	} {
		series := bulk.Counters("requests_total", 20)
		if len(external) == 1 {
			series = stored
		}
		if _, err := bulk.Write(t.Context(), bucket, bulk.Spec{From: from + int64(i)*3_000, Interval: 15_000, Samples: 400, Series: series, External: external, Seed: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	conf := "--objstore.config-file=" + fleet.BucketConfig(t, bucket)
	ours := startKoios(t, "store", "--data-dir="+t.TempDir(), conf).Ready(t)
	thanos := startThanos(t, "store", "--data-dir="+t.TempDir(), conf).Ready(t)
	above := querier(t, startThanos, thanos)

	for _, without := range [][]string{{"replica"}, {"rule_replica", "replica"}} {
		want := chunksOver(t, ours, without)
		if len(want) != 5*20*4 {
			t.Fatalf("%d chunks of Koios's gateway, want %d", len(want), 5*20*4)
		}
		unknown := map[string]string{}
		for chunk, replica := range want {
			if replica == "replica\x00stored\x00" {
				replica = ""
			}
			unknown[chunk] = replica
		}
		for _, c := range []*fleet.Component{thanos, above} {
			if d := cmp.Diff(unknown, chunksOver(t, c, without)); d != "" {
				t.Errorf("%s, without %v (-Koios's gateway +Thanos):\n%.3000s", c.URL, without, d)
			}
		}
	}
}

// chunksOver asks an endpoint through a fan-out and returns the replica of each chunk.
func chunksOver(t *testing.T, c *fleet.Component, without []string) map[string]string {
	t.Helper()
	cc, err := grpc.NewClient(c.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	peer := remote.New(cc, remote.Config{Name: c.GRPC})
	fleet.Eventually(t, "the label sets are advertised", time.Minute, func() error {
		info, err := infopb.NewInfoClient(cc).Info(t.Context(), &infopb.InfoRequest{})
		if err != nil {
			return err
		}
		if n := len(info.GetLabelSets()); n != 5 {
			return fmt.Errorf("%d label sets", n)
		}
		return peer.SetInfo(info)
	})
	st := fanout.New(func() []store.Store { return []store.Store{peer} }, fanout.Config{}, nil, nil)
	cur, err := st.Series(t.Context(), &store.SeriesRequest{
		MinTime: math.MinInt64, MaxTime: math.MaxInt64, WithoutReplicaLabels: without, BatchSize: 64,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "requests_total")},
	})
	if err != nil {
		t.Fatal(err)
	}
	all, ws, err := store.Drain(cur)
	if err != nil || len(ws) > 0 {
		t.Fatalf("%s: warnings %v, error %v", c.URL, ws, err)
	}
	got := map[string]string{}
	for _, s := range all {
		for i := range s.Chunks {
			k := fmt.Sprintf("%s %d %x", s.Labels, s.Chunks[i].MinTime, s.Chunks[i].Raw.Sum64())
			if _, twice := got[k]; twice {
				t.Errorf("%s: twice: %s", c.URL, k)
			}
			got[k] = s.Chunks[i].Replica
		}
	}
	return got
}
