package sidecar

import (
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/proto/exemplarspb"
)

// exemplars serves Prometheus's exemplars, with its external labels on their series. The query it gets has
// no matchers on external labels any more: queriers have decided those.
type exemplars struct {
	exemplarspb.UnimplementedExemplarsServer
	leaf
}

// Exemplars implements exemplarspb.ExemplarsServer.
func (e *exemplars) Exemplars(req *exemplarspb.ExemplarsRequest, stream grpc.ServerStreamingServer[exemplarspb.ExemplarsResponse]) error {
	warn := func(text string) error {
		return stream.Send(&exemplarspb.ExemplarsResponse{Result: &exemplarspb.ExemplarsResponse_Warning{Warning: text}})
	}
	return answer(stream.Context(), e.send(req, stream), req.GetPartialResponseStrategy(), warn)
}

func (e *exemplars) send(req *exemplarspb.ExemplarsRequest, stream grpc.ServerStreamingServer[exemplarspb.ExemplarsResponse]) error {
	external, err := e.known.available()
	if err != nil {
		return err
	}
	found, err := e.prometheus.Exemplars(stream.Context(), req.GetQuery(), req.GetStart(), req.GetEnd())
	if err != nil {
		return err
	}
	for i := range found {
		data := &exemplarspb.ExemplarsResponse_Data{Data: exemplarData(&found[i], external)}
		if err := stream.Send(&exemplarspb.ExemplarsResponse{Result: data}); err != nil {
			return err
		}
	}
	return nil
}

func exemplarData(s *promapi.SeriesExemplars, external labels.Labels) *exemplarspb.ExemplarData {
	out := &exemplarspb.ExemplarData{SeriesLabels: withExternal(s.SeriesLabels, external)}
	for i := range s.Exemplars {
		x := &s.Exemplars[i]
		out.Exemplars = append(out.Exemplars, &exemplarspb.Exemplar{Labels: wire.EncodeLabelSet(x.Labels), Value: x.Value, Ts: x.Timestamp})
	}
	return out
}
