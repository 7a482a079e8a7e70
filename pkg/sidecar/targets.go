package sidecar

import (
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/proto/targetspb"
)

// targets serves the targets that Prometheus scrapes, with its external labels.
type targets struct {
	targetspb.UnimplementedTargetsServer
	leaf
}

// Targets implements targetspb.TargetsServer.
func (t *targets) Targets(req *targetspb.TargetsRequest, stream grpc.ServerStreamingServer[targetspb.TargetsResponse]) error {
	warn := func(text string) error {
		return stream.Send(&targetspb.TargetsResponse{Result: &targetspb.TargetsResponse_Warning{Warning: text}})
	}
	return answer(stream.Context(), t.send(req, stream), req.GetPartialResponseStrategy(), warn)
}

func (t *targets) send(req *targetspb.TargetsRequest, stream grpc.ServerStreamingServer[targetspb.TargetsResponse]) error {
	external, err := t.known.available()
	if err != nil {
		return err
	}
	state := map[targetspb.TargetsRequest_State]string{
		targetspb.TargetsRequest_ANY: "any", targetspb.TargetsRequest_ACTIVE: "active", targetspb.TargetsRequest_DROPPED: "dropped",
	}[req.GetState()]
	found, err := t.prometheus.Targets(stream.Context(), state)
	if err != nil {
		return err
	}
	return stream.Send(&targetspb.TargetsResponse{Result: &targetspb.TargetsResponse_Targets{Targets: targetDiscovery(found, external)}})
}

func targetDiscovery(found *promapi.Targets, external labels.Labels) *targetspb.TargetDiscovery {
	out := &targetspb.TargetDiscovery{}
	for i := range found.Active {
		a := &found.Active[i]
		out.ActiveTargets = append(out.ActiveTargets, &targetspb.ActiveTarget{
			DiscoveredLabels:   withExternal(a.DiscoveredLabels, external),
			Labels:             withExternal(a.Labels, external),
			ScrapePool:         a.ScrapePool,
			ScrapeUrl:          a.ScrapeURL,
			GlobalUrl:          a.GlobalURL,
			LastError:          a.LastError,
			LastScrape:         timestamppb.New(a.LastScrape),
			LastScrapeDuration: a.LastScrapeDuration,
			Health:             targetHealth(a.Health),
		})
	}
	for i := range found.Dropped {
		out.DroppedTargets = append(out.DroppedTargets, &targetspb.DroppedTarget{
			DiscoveredLabels: withExternal(found.Dropped[i].DiscoveredLabels, external),
		})
	}
	return out
}

func targetHealth(h string) targetspb.TargetHealth {
	switch h {
	case "up":
		return targetspb.TargetHealth_UP
	case "down":
		return targetspb.TargetHealth_DOWN
	}
	return targetspb.TargetHealth_TARGET_UNKNOWN
}
