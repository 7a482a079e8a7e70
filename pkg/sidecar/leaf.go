package sidecar

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc/status"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// leaf is what the services over Prometheus's HTTP API share.
type leaf struct {
	prometheus *promapi.Client
	known      *knowledge
}

// answer makes the outcome of a call that of its stream. With the strategy WARN an error becomes a warning,
// so that others go on without us; with ABORT it is the call's own, and so is always a request that nobody
// could answer. A caller that has gone away gets neither.
func answer(ctx context.Context, err error, strategy storepb.PartialResponseStrategy, warn func(string) error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case strategy == storepb.PartialResponseStrategy_WARN && store.KindOf(err) != store.KindBadRequest:
		return warn(err.Error())
	}
	return wire.Status(err)
}

// withExternal writes labels for the wire, with the external ones over them.
func withExternal(ls, external labels.Labels) *labelpb.ZLabelSet {
	b := labels.NewBuilder(ls)
	external.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
	return wire.EncodeLabelSet(b.Labels())
}
