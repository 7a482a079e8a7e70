package federate

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/proto/targetspb"
)

// Targets returns the targets of all peers, merged. The strategy of the request is overwritten.
func (f *Federation) Targets(ctx context.Context, req *targetspb.TargetsRequest) (*Answer[*targetspb.TargetDiscovery], error) {
	req = proto.CloneOf(req)
	req.PartialResponseStrategy = strategy(f.cfg.Targets)
	all, err := f.askTargets(ctx, req)
	if err != nil {
		return nil, err
	}
	found := make([]*targetspb.TargetDiscovery, len(all.frames))
	for i, m := range all.frames {
		found[i] = m.GetTargets()
	}
	return &Answer[*targetspb.TargetDiscovery]{Data: mergeTargets(found, f.cfg.ReplicaLabels), Warnings: all.warnings, release: all.release}, nil
}

func (f *Federation) askTargets(ctx context.Context, req *targetspb.TargetsRequest) (*said[*targetspb.TargetsResponse], error) {
	return ask(ctx, f, question[targetspb.TargetsResponse, *targetspb.TargetsResponse]{
		what: "targets", capability: endpoint.HasTargets, strategy: req.GetPartialResponseStrategy(),
		open: func(ctx context.Context, p endpoint.Peer) (grpc.ServerStreamingClient[targetspb.TargetsResponse], error) {
			return targetspb.NewTargetsClient(p.Conn).Targets(ctx, req)
		},
		holds: func(m *targetspb.TargetsResponse) bool { return m.GetTargets() != nil },
	})
}

// mergeTargets makes one list of what several peers found. Targets that are the same without replica labels
// are one. It owns what was found.
func mergeTargets(found []*targetspb.TargetDiscovery, replicaLabels []string) *targetspb.TargetDiscovery {
	var (
		active  []keyedTarget
		dropped []labels.Labels
	)
	for _, d := range found {
		for _, t := range d.GetActiveTargets() {
			k := keyedTarget{t, without(t.GetDiscoveredLabels(), replicaLabels), without(t.GetLabels(), replicaLabels)}
			t.DiscoveredLabels, t.Labels = encodeLabels(k.discovered), encodeLabels(k.labels)
			active = append(active, k)
		}
		for _, t := range d.GetDroppedTargets() {
			dropped = append(dropped, without(t.GetDiscoveredLabels(), replicaLabels))
		}
	}
	slices.SortFunc(active, func(a, b keyedTarget) int { return cmp.Or(a.compare(&b), a.rank(&b), compareBytes(a.target, b.target)) })
	active = slices.CompactFunc(active, func(a, b keyedTarget) bool { return a.compare(&b) == 0 })
	slices.SortFunc(dropped, labels.Compare)
	dropped = slices.CompactFunc(dropped, labels.Equal)

	out := &targetspb.TargetDiscovery{}
	for i := range active {
		out.ActiveTargets = append(out.ActiveTargets, active[i].target)
	}
	for _, ls := range dropped {
		out.DroppedTargets = append(out.DroppedTargets, &targetspb.DroppedTarget{DiscoveredLabels: encodeLabels(ls)})
	}
	return out
}

// keyedTarget is a target with its labels as they are compared.
type keyedTarget struct {
	target             *targetspb.ActiveTarget
	discovered, labels labels.Labels
}

// compare orders targets that differ.
func (k *keyedTarget) compare(o *keyedTarget) int {
	return cmp.Or(strings.Compare(k.target.GetScrapeUrl(), o.target.GetScrapeUrl()), strings.Compare(k.target.GetScrapePool(), o.target.GetScrapePool()),
		labels.Compare(k.discovered, o.discovered), labels.Compare(k.labels, o.labels))
}

// rank orders the same target as several peers have it: one that is down, then one scraped later, wins and
// comes first.
func (k *keyedTarget) rank(o *keyedTarget) int {
	return cmp.Or(cmp.Compare(k.target.GetHealth(), o.target.GetHealth()), -compareTimes(k.target.GetLastScrape(), o.target.GetLastScrape()))
}
