package sidecar

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/shipper"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/prom"
)

// Sidecar watches one Prometheus. Make one with New; Run does the work, and Register offers it over gRPC.
type Sidecar struct {
	cfg     Config
	deps    Deps
	logger  log.Logger
	reg     prometheus.Registerer
	metrics *metrics

	known       *knowledge
	labelsKnown chan struct{} // Closed by the first good heartbeat.
	onLabels    sync.Once
	store       store.Store
	shipper     *shipper.Shipper // nil: nothing is uploaded.
}

// New makes a Sidecar; metrics are registered with reg. It asks Prometheus nothing yet.
func New(cfg Config, deps Deps, logger log.Logger, reg prometheus.Registerer) (*Sidecar, error) {
	if err := errors.Join(cfg.Validate(), deps.validate()); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	s := &Sidecar{
		cfg: cfg, deps: deps, logger: logger, reg: reg, metrics: newMetrics(reg),
		known:       &knowledge{lowest: math.MinInt64, why: errors.New("prometheus has not answered yet")},
		labelsKnown: make(chan struct{}),
	}
	deps.Probe.NotReady(s.known.why)
	cfg.Store.Version = s.known.buildVersion
	s.store = &gated{known: s.known, Store: prom.New(deps.Prometheus, s.known.externalLabels, s.timeRange, cfg.Store, logger, reg)}
	if deps.Bucket == nil {
		return s, nil
	}
	cfg.Shipper.Labels, cfg.Shipper.Source = s.known.externalLabels, block.SourceSidecar
	var err error
	s.shipper, err = shipper.New(cfg.TSDBPath, deps.Bucket, cfg.Shipper, logger, reg)
	return s, err
}

// Run watches Prometheus and uploads its blocks until ctx ends; it then returns nil. It returns an error
// early when Prometheus's configuration makes its work wrong (no external labels, blocks compacted before
// they are uploaded), or when Prometheus does not answer for ReadyTimeout and blocks are to be uploaded.
func (s *Sidecar) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if s.deps.Reloader != nil {
		g.Go(func() error { return s.deps.Reloader.Run(ctx) })
	}
	g.Go(func() error {
		if s.shipper != nil {
			if err := s.checkFlags(ctx); err != nil {
				return err
			}
		}
		return s.watch(ctx)
	})
	if s.shipper != nil {
		g.Go(func() error { return s.upload(ctx) })
	}
	return g.Wait()
}

// upload runs the shipper once labels are known.
func (s *Sidecar) upload(ctx context.Context) error {
	timeout := time.NewTimer(s.cfg.ReadyTimeout)
	defer timeout.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-timeout.C:
		return fmt.Errorf("prometheus at %s has not told its external labels within --prometheus.ready_timeout of %s, and nothing is uploaded without them: %w", s.deps.Prometheus.URL(), s.cfg.ReadyTimeout, s.known.ready())
	case <-s.labelsKnown:
		s.lookAtTSDB()
		return s.shipper.Run(ctx)
	}
}

// lookAtTSDB warns if the directory of blocks is not where Prometheus writes: nothing would ever be uploaded.
func (s *Sidecar) lookAtTSDB() {
	// A running Prometheus has a write-ahead log.
	if _, err := os.Stat(filepath.Join(s.cfg.TSDBPath, "wal")); err != nil {
		level.Warn(s.logger).Log("msg", "--tsdb.path does not look like the data of a running Prometheus; is it the volume that Prometheus's --storage.tsdb.path is on?", "path", s.cfg.TSDBPath, "err", err)
	}
}

// minTime is the later of Prometheus's oldest sample and --min-time, in ms.
func (s *Sidecar) minTime() int64 {
	mint := s.known.lowestTime()
	if s.cfg.MinTime != nil {
		mint = max(mint, s.cfg.MinTime().UnixMilli())
	}
	return mint
}

// timeRange is what is served. Prometheus goes on to scrape, so there is no end.
func (s *Sidecar) timeRange() (mint, maxt int64) { return s.minTime(), math.MaxInt64 }

// Store returns the series of Prometheus with its external labels. While those are not known, requests fail
// with KindUnavailable.
func (s *Sidecar) Store() store.Store { return s.store }

// gated is a Store that answers once external labels are known.
type gated struct {
	known *knowledge
	store.Store
}

func (g *gated) Series(ctx context.Context, req *store.SeriesRequest) (store.Cursor, error) {
	if _, err := g.known.available(); err != nil {
		return nil, err
	}
	return g.Store.Series(ctx, req)
}

func (g *gated) LabelNames(ctx context.Context, req *store.LabelNamesRequest) ([]string, store.Warnings, error) {
	if _, err := g.known.available(); err != nil {
		return nil, nil, err
	}
	return g.Store.LabelNames(ctx, req)
}

func (g *gated) LabelValues(ctx context.Context, req *store.LabelValuesRequest) ([]string, store.Warnings, error) {
	if _, err := g.known.available(); err != nil {
		return nil, nil, err
	}
	return g.Store.LabelValues(ctx, req)
}
