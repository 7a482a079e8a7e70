package server

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/proto/infopb"
)

// ErrNotReady answers Info calls until a component is ready. Its text is what peers know.
var ErrNotReady = errors.New("Not ready") //nolint:staticcheck // ST1005: the text is part of the wire

// Info is the Info service over a function that describes the component.
type Info struct {
	infopb.UnimplementedInfoServer

	describe func() (*infopb.InfoResponse, error)
}

var _ infopb.InfoServer = (*Info)(nil)

// NewInfo makes the Info service. The function is called for each request, in parallel; it returns
// ErrNotReady until the component is ready, and its answer is not changed.
func NewInfo(describe func() (*infopb.InfoResponse, error)) *Info {
	return &Info{describe: describe}
}

// Info implements infopb.InfoServer.
func (i *Info) Info(context.Context, *infopb.InfoRequest) (*infopb.InfoResponse, error) {
	r, err := i.describe()
	if err != nil {
		if _, ok := status.FromError(err); ok {
			return nil, err
		}
		return nil, status.Error(codes.Unknown, err.Error())
	}
	return r, nil
}

// InfoOf describes a component of the named type (sidecar, store, query, receive, rule) that serves the
// StoreAPI over a Store with this description. The caller adds the other services it offers.
func InfoOf(component string, d store.Description) *infopb.InfoResponse {
	r := &infopb.InfoResponse{
		LabelSets:     wire.EncodeLabelSets(d.LabelSets),
		ComponentType: component,
		Store: &infopb.StoreInfo{
			MinTime:                      d.MinTime,
			MaxTime:                      d.MaxTime,
			SupportsSharding:             true,
			SupportsWithoutReplicaLabels: true,
		},
	}
	tsdbs := slices.Clone(d.TSDBs)
	slices.SortStableFunc(tsdbs, func(a, b store.TSDB) int { return labels.Compare(a.Labels, b.Labels) })
	for _, t := range tsdbs {
		if t.Labels.IsEmpty() {
			continue // peers take one without labels for no information
		}
		r.Store.TsdbInfos = append(r.Store.TsdbInfos, &infopb.TSDBInfo{Labels: wire.EncodeLabelSet(t.Labels), MinTime: t.MinTime, MaxTime: t.MaxTime})
	}
	r.Store.OnlyBlocks, r.Store.ChunksNameReplicas = d.OnlyBlocks, d.Replicas
	for _, set := range d.Blocks {
		r.Store.BlockSets = append(r.Store.BlockSets, blockSet(set, d.MinTime, d.MaxTime))
	}
	return r
}

// blockSet writes down blocks, cut to the times that are served.
func blockSet(set store.BlockSet, mint, maxt int64) *infopb.BlockSet {
	out := &infopb.BlockSet{Labels: wire.EncodeLabelSet(set.Labels)}
	blocks := make([]infopb.ServedBlock, len(set.Blocks)) // one piece of memory for all
	for i, b := range set.Blocks {
		to := &blocks[i]
		to.Id, to.MinTime, to.MaxTime, to.Resolution = set.Blocks[i].ID[:], max(b.MinTime, mint), min(b.MaxTime, maxt), b.Resolution
		if to.MinTime <= to.MaxTime {
			out.Blocks = append(out.Blocks, to)
		}
	}
	for i, p := range set.Parents {
		if from, to := max(p.MinTime, mint), min(p.MaxTime, maxt); from <= to {
			out.Parents = append(out.Parents, &infopb.ParentBlock{Child: set.Parents[i].Child[:], Id: set.Parents[i].ID[:], MinTime: from, MaxTime: to})
		}
	}
	return out
}
