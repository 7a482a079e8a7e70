package standalone

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/logging"
)

// targetsEvery is the least time between two changes of the targets. Prometheus takes 5 s, which would be
// most of the wait for a first answer.
const targetsEvery = 500 * time.Millisecond

// scraper finds targets and scrapes them. Make one with newScraper, then run it once.
type scraper struct {
	targets *discovery.Manager
	scrapes *scrape.Manager
	cancel  context.CancelFunc // ends targets
}

// newScraper makes a scraper that appends to app.
func newScraper(app storage.Appendable, logger log.Logger, reg prometheus.Registerer) (*scraper, error) {
	sdMetrics, err := discovery.CreateAndRegisterSDMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("register metrics of service discovery: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &scraper{cancel: cancel}
	s.targets = discovery.NewManager(ctx, logging.Slog(log.With(logger, "component", "discovery")), reg, sdMetrics,
		discovery.Name("scrape"), discovery.Updatert(targetsEvery))
	if s.targets == nil {
		cancel()
		return nil, errors.New("register metrics of service discovery")
	}
	opts := &scrape.Options{DiscoveryReloadInterval: model.Duration(targetsEvery)}
	s.scrapes, err = scrape.NewManager(opts, logging.Slog(log.With(logger, "component", "scrape")), nil, app, reg)
	if err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// apply makes cfg the configuration, before or while the scraper runs.
func (s *scraper) apply(cfg *config.Config) error {
	if err := s.scrapes.ApplyConfig(cfg); err != nil {
		return fmt.Errorf("apply scrape configuration: %w", err)
	}
	scs, err := cfg.GetScrapeConfigs()
	if err != nil {
		return err
	}
	sds := map[string]discovery.Configs{}
	for _, sc := range scs {
		sds[sc.JobName] = sc.ServiceDiscoveryConfigs
	}
	if err := s.targets.ApplyConfig(sds); err != nil {
		return fmt.Errorf("apply service discovery of the scrape configuration: %w", err)
	}
	return nil
}

// run scrapes until ctx ends. When it returns, nothing is appended any more.
func (s *scraper) run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(s.targets.Run)
	g.Go(func() error { return s.scrapes.Run(s.targets.SyncCh()) })
	<-ctx.Done()
	s.scrapes.Stop()
	s.cancel()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// close ends a scraper that was never run.
func (s *scraper) close() { s.cancel() }
