package standalone

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/serve"
	"github.com/koios-metrics/koios/pkg/shipper"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/bucket"
	"github.com/koios-metrics/koios/pkg/store/fanout"
	tsdbstore "github.com/koios-metrics/koios/pkg/store/tsdb"
)

// Standalone is the whole of it. Make one with New and run it once.
type Standalone struct {
	cfg     Config
	logger  log.Logger
	reg     *prometheus.Registry
	probe   *serve.Probe
	metrics *metrics

	external labels.Labels
	bkt      objstore.InstrumentedBucket
	http     *serve.HTTP
	grpc     *serve.GRPC
	querier  *query.Querier
	answers  cache.Cache // nil where none are kept
	blocks   *bucket.Store
	// stores are what queries are answered from.
	stores atomic.Pointer[[]store.Store]
	// first is the scrape configuration of the start.
	first *config.Config

	mtx     sync.Mutex // Held while a configuration is applied.
	scraper *scraper   // nil before the database is open
}

// New checks the configuration and takes the addresses that are listened on. The probe is told of
// readiness. Nothing is answered, scraped or written before Run.
func New(cfg Config, probe *serve.Probe, logger log.Logger, reg *prometheus.Registry) (*Standalone, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Standalone{cfg: cfg, logger: logger, reg: reg, probe: probe, metrics: newMetrics(reg)}
	for _, dir := range []string{cfg.DataDir, cfg.tsdbDir(), cfg.storeDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make the data folder: %w", err)
		}
	}
	s.stores.Store(&[]store.Store{})
	var err error
	if s.bkt, err = s.openBucket(); err != nil {
		return nil, err
	}
	if err := s.build(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// close gives back what New has opened.
func (s *Standalone) close() error {
	errs := []error{s.bkt.Close()}
	if s.querier != nil {
		errs = append(errs, s.querier.Close())
	}
	if s.answers != nil {
		errs = append(errs, s.answers.Close())
	}
	if s.blocks != nil {
		errs = append(errs, s.blocks.Close())
	}
	return errors.Join(errs...)
}

// build makes the parts that don't need the database.
func (s *Standalone) build() (err error) {
	all := fanout.New(func() []store.Store { return *s.stores.Load() }, fanout.Config{Name: "standalone"}, s.logger, s.reg)
	if s.http, err = serve.NewHTTP(s.cfg.HTTP, s.logger, s.reg, s.probe); err != nil {
		return err
	}
	if s.grpc, err = serve.NewGRPC(s.cfg.GRPC, s.logger, s.reg, s.probe, s.storeAPI(all)...); err != nil {
		return err
	}
	if s.blocks, err = s.openStore(); err != nil {
		return err
	}
	if err := errors.Join(s.http.Listen(), s.grpc.Listen()); err != nil {
		return err
	}
	if s.first, err = s.loadScrapeFile(); err != nil {
		return err
	}
	s.external = s.first.GlobalConfig.ExternalLabels
	return s.serveQueries(all)
}

// loadScrapeFile reads the scrape configuration, or makes the built-in one.
func (s *Standalone) loadScrapeFile() (*config.Config, error) {
	if s.cfg.ScrapeFile == "" {
		return selfScrape(s.http.Addr().String(), s.cfg.SelfInterval)
	}
	return loadScrapeFile(s.cfg.ScrapeFile, s.logger)
}

// Run scrapes, ships and answers until ctx ends, and returns nil then. Requests in flight are answered
// first; then scraping and shipping end, and the database is closed.
func (s *Standalone) Run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()

	ended := make(chan error, 1)
	go func() {
		err := s.work(behind)
		if err != nil {
			stop(err)
		}
		ended <- err
	}()
	err := s.serve(ctx)
	stopBehind()
	return errors.Join(err, <-ended, s.close())
}

// serve answers until ctx ends and both servers have drained.
func (s *Standalone) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.http.Run(ctx) })
	g.Go(func() error { return s.grpc.Run(ctx) })
	return g.Wait()
}

// work opens the database and does everything that goes on behind the servers, until ctx ends.
func (s *Standalone) work(ctx context.Context) (err error) {
	db, err := openDatabase(databaseConfig{
		dir:        s.cfg.tsdbDir(),
		asideDir:   s.cfg.asideDir(),
		block:      s.cfg.BlockDuration,
		retention:  s.cfg.Retention,
		outOfOrder: outOfOrder(s.first),
		reload:     s.cfg.SyncInterval,
		served:     s.served,
	}, s.logger, s.reg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	s.countAside()
	recent := tsdbstore.New(db, s.external, tsdbstore.Config{})
	s.stores.Store(&[]store.Store{recent, pending{}})
	defer s.stores.Store(&[]store.Store{})

	ship, err := shipper.New(s.cfg.tsdbDir(), s.bkt, shipper.Config{
		Labels:   func() labels.Labels { return s.external },
		Source:   block.SourceSidecar,
		Interval: s.cfg.ShipInterval,
	}, log.With(s.logger, "component", "shipper"), s.reg)
	if err != nil {
		return err
	}
	scraper, err := newScraper(db, s.logger, s.reg)
	if err != nil {
		return err
	}
	defer scraper.close()
	s.mtx.Lock()
	s.scraper = scraper
	s.mtx.Unlock()
	if err := s.apply(s.first); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	looked := make(chan struct{})
	g.Go(func() error { return scraper.run(ctx) })
	g.Go(func() error { return ship.Run(ctx) })
	g.Go(func() error { return s.watchBucket(ctx, recent, looked) })
	g.Go(func() error { return s.sayReady(ctx, looked) })
	return g.Wait()
}

// sayReady tells the probe and the person at the terminal.
func (s *Standalone) sayReady(ctx context.Context, looked <-chan struct{}) error {
	wait := time.NewTimer(s.cfg.firstLook)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-looked:
	case <-wait.C:
		_ = level.Warn(s.logger).Log("msg", "the bucket does not answer yet; recent data is served without it", "waited", s.cfg.firstLook)
	}
	s.probe.Ready()
	return greet(s.cfg.Greeting, s.http.Addr().String(), s.cfg.DataDir)
}

// Reload reads the scrape configuration again and follows it. One that can't be used changes nothing.
func (s *Standalone) Reload() error {
	cfg, err := s.loadScrapeFile()
	if err == nil && !labels.Equal(cfg.GlobalConfig.ExternalLabels, s.external) {
		err = fmt.Errorf("external labels are %s now and were %s: restart to use them", cfg.GlobalConfig.ExternalLabels, s.external)
	}
	if err == nil {
		err = s.apply(cfg)
	}
	if err != nil {
		s.metrics.reloadGood.Set(0)
		return err
	}
	_ = level.Info(s.logger).Log("msg", "scrape configuration is read again", "file", s.cfg.ScrapeFile)
	return nil
}

func (s *Standalone) apply(cfg *config.Config) error {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	if s.scraper == nil {
		return errors.New("the database is not open yet: try again once /-/ready says OK")
	}
	if err := s.scraper.apply(cfg); err != nil {
		return err
	}
	s.metrics.reloadGood.Set(1)
	s.metrics.reloadTime.SetToCurrentTime()
	return nil
}

// reload is the handler of /-/reload.
func (s *Standalone) reload(w http.ResponseWriter, _ *http.Request) {
	if err := s.Reload(); err != nil {
		_ = level.Error(s.logger).Log("msg", "read the scrape configuration again; the previous one stays", "err", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
