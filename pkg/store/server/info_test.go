package server

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/labelpb"
)

func set(ss ...string) *labelpb.ZLabelSet {
	var out labelpb.ZLabelSet
	for i := 0; i < len(ss); i += 2 {
		out.Labels = append(out.Labels, &labelpb.Label{Name: ss[i], Value: ss[i+1]})
	}
	return &out
}

// A description becomes what peers expect to be told: sets sorted, databases grouped by labels in order
// of time, none without labels; and the description, which is shared, stays as it was.
func TestInfoOf(t *testing.T) {
	a, b := labels.FromStrings("cluster", "a"), labels.FromStrings("cluster", "b", "replica", "1")
	d := store.Description{
		LabelSets: []labels.Labels{b, a}, MinTime: 5, MaxTime: math.MaxInt64, Name: "n", Replicas: true,
		TSDBs: []store.TSDB{{Labels: b, MinTime: 5, MaxTime: 6}, {Labels: a, MinTime: 7, MaxTime: 8}, {MinTime: 1, MaxTime: 2}, {Labels: b, MinTime: 10, MaxTime: 11}},
	}
	want := &infopb.InfoResponse{
		ComponentType: "sidecar",
		LabelSets:     []*labelpb.ZLabelSet{set("cluster", "a"), set("cluster", "b", "replica", "1")},
		Store: &infopb.StoreInfo{
			MinTime: 5, MaxTime: math.MaxInt64, SupportsSharding: true, SupportsWithoutReplicaLabels: true, ChunksNameReplicas: true,
			TsdbInfos: []*infopb.TSDBInfo{
				{Labels: set("cluster", "a"), MinTime: 7, MaxTime: 8},
				{Labels: set("cluster", "b", "replica", "1"), MinTime: 5, MaxTime: 6},
				{Labels: set("cluster", "b", "replica", "1"), MinTime: 10, MaxTime: 11},
			},
		},
	}
	if diff := cmp.Diff(want, InfoOf("sidecar", d), cmp.Comparer(proto.Equal)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !labels.Equal(d.LabelSets[0], b) || d.TSDBs[1].MinTime != 7 {
		t.Errorf("the description was changed: %+v", d)
	}
}

// The Info call fails with the words that peers know until the component is ready.
func TestInfo(t *testing.T) {
	fails := ErrNotReady
	i := NewInfo(func() (*infopb.InfoResponse, error) { return &infopb.InfoResponse{ComponentType: "query"}, fails })
	_, err := i.Info(t.Context(), &infopb.InfoRequest{})
	if s := status.Convert(err); s.Code() != codes.Unknown || s.Message() != "Not ready" {
		t.Errorf("got %v", err)
	}
	fails = status.Error(codes.Unavailable, "stopping")
	if _, err := i.Info(t.Context(), &infopb.InfoRequest{}); !errors.Is(err, fails) {
		t.Errorf("got %v, want %v", err, fails)
	}
	fails = nil
	if r, err := i.Info(t.Context(), &infopb.InfoRequest{}); err != nil || r.GetComponentType() != "query" {
		t.Errorf("got %v, %v", r, err)
	}
}
