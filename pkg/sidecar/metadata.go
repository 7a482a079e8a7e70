package sidecar

import (
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/proto/metadatapb"
)

// metadata serves what targets say about their metrics. It has no labels.
type metadata struct {
	metadatapb.UnimplementedMetadataServer
	leaf
}

// MetricMetadata implements metadatapb.MetadataServer. A limit below 0 is none; a limit of 0 asks for nothing.
func (m *metadata) MetricMetadata(req *metadatapb.MetricMetadataRequest, stream grpc.ServerStreamingServer[metadatapb.MetricMetadataResponse]) error {
	warn := func(text string) error {
		return stream.Send(&metadatapb.MetricMetadataResponse{Result: &metadatapb.MetricMetadataResponse_Warning{Warning: text}})
	}
	return answer(stream.Context(), m.send(req, stream), req.GetPartialResponseStrategy(), warn)
}

func (m *metadata) send(req *metadatapb.MetricMetadataRequest, stream grpc.ServerStreamingServer[metadatapb.MetricMetadataResponse]) error {
	found, err := m.prometheus.Metadata(stream.Context(), req.GetMetric(), int(req.GetLimit()))
	if err != nil {
		return err
	}
	out := &metadatapb.MetricMetadata{Metadata: make(map[string]*metadatapb.MetricMetadataEntry, len(found))}
	for name, metas := range found {
		entry := &metadatapb.MetricMetadataEntry{}
		for _, md := range metas {
			entry.Metas = append(entry.Metas, &metadatapb.Meta{Type: md.Type, Help: md.Help, Unit: md.Unit})
		}
		out.Metadata[name] = entry
	}
	return stream.Send(&metadatapb.MetricMetadataResponse{Result: &metadatapb.MetricMetadataResponse_Metadata{Metadata: out}})
}
