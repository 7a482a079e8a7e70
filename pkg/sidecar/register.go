package sidecar

import (
	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/store/server"
	"github.com/koios-metrics/koios/proto/exemplarspb"
	"github.com/koios-metrics/koios/proto/infopb"
	"github.com/koios-metrics/koios/proto/metadatapb"
	"github.com/koios-metrics/koios/proto/rulespb"
	"github.com/koios-metrics/koios/proto/statuspb"
	"github.com/koios-metrics/koios/proto/storepb"
	"github.com/koios-metrics/koios/proto/targetspb"
)

// componentName is how the sidecar calls itself to its peers.
const componentName = "sidecar"

// Register offers everything the sidecar serves: Store, Info, Rules, Targets, Metadata, Exemplars and
// Status. It may be called before Run. It is called once: it registers metrics.
func (s *Sidecar) Register(r grpc.ServiceRegistrar) {
	l := leaf{prometheus: s.deps.Prometheus, known: s.known}
	storepb.RegisterStoreServer(r, server.New(s.store, s.cfg.Server, s.logger, s.reg))
	infopb.RegisterInfoServer(r, server.NewInfo(s.Info))
	rulespb.RegisterRulesServer(r, &rules{leaf: l})
	targetspb.RegisterTargetsServer(r, &targets{leaf: l})
	metadatapb.RegisterMetadataServer(r, &metadata{leaf: l})
	exemplarspb.RegisterExemplarsServer(r, &exemplars{leaf: l})
	statuspb.RegisterStatusServer(r, &tsdbStatus{leaf: l})
}

// Info describes the sidecar to queriers. While it is not ready, that is server.ErrNotReady: queriers then
// don't ask it.
func (s *Sidecar) Info() (*infopb.InfoResponse, error) {
	if s.known.ready() != nil {
		return nil, server.ErrNotReady
	}
	info := server.InfoOf(componentName, s.store.Describe())
	info.Rules = &infopb.RulesInfo{}
	info.Targets = &infopb.TargetsInfo{}
	info.MetricMetadata = &infopb.MetricMetadataInfo{}
	// Peers look at its presence only; Prometheus keeps exemplars in a ring without a range in time.
	info.Exemplars = &infopb.ExemplarsInfo{}
	info.Status = &infopb.StatusInfo{}
	return info, nil
}
