package federate

import (
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/proto/exemplarspb"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/metadatapb"
	"github.com/koios-metrics/koios/proto/rulespb"
	"github.com/koios-metrics/koios/proto/statuspb"
	"github.com/koios-metrics/koios/proto/targetspb"
)

// Register offers Rules, Targets, Metadata, Exemplars and Status to queriers above.
func (f *Federation) Register(r grpc.ServiceRegistrar) {
	rulespb.RegisterRulesServer(r, &rulesServer{f: f})
	targetspb.RegisterTargetsServer(r, &targetsServer{f: f})
	metadatapb.RegisterMetadataServer(r, &metadataServer{f: f})
	exemplarspb.RegisterExemplarsServer(r, &exemplarsServer{f: f})
	statuspb.RegisterStatusServer(r, &statusServer{f: f})
}

// Announce adds to a description what Register offers.
func Announce(info *infopb.InfoResponse) {
	info.Rules = &infopb.RulesInfo{}
	info.Targets = &infopb.TargetsInfo{}
	info.MetricMetadata = &infopb.MetricMetadataInfo{}
	info.Exemplars = &infopb.ExemplarsInfo{} // with no range: that is not known here
	info.Status = &infopb.StatusInfo{}
}

type rulesServer struct {
	rulespb.UnimplementedRulesServer
	f *Federation
}

// Rules implements rulespb.RulesServer.
func (s *rulesServer) Rules(req *rulespb.RulesRequest, stream grpc.ServerStreamingServer[rulespb.RulesResponse]) error {
	all, err := s.f.askRules(stream.Context(), req)
	return serve(stream.Context(), all, err, func(text string) error {
		return stream.Send(&rulespb.RulesResponse{Result: &rulespb.RulesResponse_Warning{Warning: text}})
	}, stream.Send)
}

type targetsServer struct {
	targetspb.UnimplementedTargetsServer
	f *Federation
}

// Targets implements targetspb.TargetsServer.
func (s *targetsServer) Targets(req *targetspb.TargetsRequest, stream grpc.ServerStreamingServer[targetspb.TargetsResponse]) error {
	all, err := s.f.askTargets(stream.Context(), req)
	return serve(stream.Context(), all, err, func(text string) error {
		return stream.Send(&targetspb.TargetsResponse{Result: &targetspb.TargetsResponse_Warning{Warning: text}})
	}, stream.Send)
}

type metadataServer struct {
	metadatapb.UnimplementedMetadataServer
	f *Federation
}

// MetricMetadata implements metadatapb.MetadataServer.
func (s *metadataServer) MetricMetadata(req *metadatapb.MetricMetadataRequest, stream grpc.ServerStreamingServer[metadatapb.MetricMetadataResponse]) error {
	all, err := s.f.askMetadata(stream.Context(), req)
	return serve(stream.Context(), all, err, func(text string) error {
		return stream.Send(&metadatapb.MetricMetadataResponse{Result: &metadatapb.MetricMetadataResponse_Warning{Warning: text}})
	}, stream.Send)
}

type exemplarsServer struct {
	exemplarspb.UnimplementedExemplarsServer
	f *Federation
}

// Exemplars implements exemplarspb.ExemplarsServer.
func (s *exemplarsServer) Exemplars(req *exemplarspb.ExemplarsRequest, stream grpc.ServerStreamingServer[exemplarspb.ExemplarsResponse]) error {
	all, err := s.f.askExemplars(stream.Context(), req)
	return serve(stream.Context(), all, err, func(text string) error {
		return stream.Send(&exemplarspb.ExemplarsResponse{Result: &exemplarspb.ExemplarsResponse_Warning{Warning: text}})
	}, stream.Send)
}

type statusServer struct {
	statuspb.UnimplementedStatusServer
	f *Federation
}

// TSDBStatistics implements statuspb.StatusServer.
func (s *statusServer) TSDBStatistics(req *statuspb.TSDBStatisticsRequest, stream grpc.ServerStreamingServer[statuspb.TSDBStatisticsResponse]) error {
	all, err := s.f.askStatus(stream.Context(), req)
	return serve(stream.Context(), all, err, func(text string) error {
		return stream.Send(&statuspb.TSDBStatisticsResponse{Result: &statuspb.TSDBStatisticsResponse_Warning{Warning: text}})
	}, stream.Send)
}
