package federate

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/proto/metadatapb"
)

// Metadata returns what all peers know of metrics, by name. The strategy of the request is overwritten.
func (f *Federation) Metadata(ctx context.Context, req *metadatapb.MetricMetadataRequest) (*Answer[map[string][]*metadatapb.Meta], error) {
	req = proto.CloneOf(req)
	req.PartialResponseStrategy = strategy(f.cfg.Metadata)
	all, err := f.askMetadata(ctx, req)
	if err != nil {
		return nil, err
	}
	parts := make([]*metadatapb.MetricMetadata, len(all.frames))
	for i, m := range all.frames {
		parts[i] = m.GetMetadata()
	}
	return &Answer[map[string][]*metadatapb.Meta]{Data: mergeMetadata(parts, int(req.GetLimit())), Warnings: all.warnings, release: all.release}, nil
}

func (f *Federation) askMetadata(ctx context.Context, req *metadatapb.MetricMetadataRequest) (*said[*metadatapb.MetricMetadataResponse], error) {
	if req.GetLimit() == 0 {
		return &said[*metadatapb.MetricMetadataResponse]{release: func() {}}, nil // asks for nothing
	}
	return ask(ctx, f, question[metadatapb.MetricMetadataResponse, *metadatapb.MetricMetadataResponse]{
		what: "metric metadata", capability: endpoint.HasMetadata, strategy: req.GetPartialResponseStrategy(),
		open: func(ctx context.Context, p endpoint.Peer) (grpc.ServerStreamingClient[metadatapb.MetricMetadataResponse], error) {
			return metadatapb.NewMetadataClient(p.Conn).MetricMetadata(ctx, req)
		},
		holds: func(m *metadatapb.MetricMetadataResponse) bool { return m.GetMetadata() != nil },
	})
}

// mergeMetadata joins the descriptions of each metric, in one order and each of them once. Of more metrics
// than the limit the first by name stay; below 0 it is none.
func mergeMetadata(parts []*metadatapb.MetricMetadata, limit int) map[string][]*metadatapb.Meta {
	merged := map[string][]*metadatapb.Meta{}
	for _, p := range parts {
		for name, entry := range p.GetMetadata() {
			merged[name] = append(merged[name], entry.GetMetas()...)
		}
	}
	if limit >= 0 && len(merged) > limit {
		for _, name := range slices.Sorted(maps.Keys(merged))[limit:] {
			delete(merged, name)
		}
	}
	for name, metas := range merged {
		slices.SortFunc(metas, compareMetas)
		merged[name] = slices.CompactFunc(metas, func(a, b *metadatapb.Meta) bool { return compareMetas(a, b) == 0 })
	}
	return merged
}

func compareMetas(a, b *metadatapb.Meta) int {
	return cmp.Or(strings.Compare(a.GetType(), b.GetType()), strings.Compare(a.GetHelp(), b.GetHelp()), strings.Compare(a.GetUnit(), b.GetUnit()))
}
