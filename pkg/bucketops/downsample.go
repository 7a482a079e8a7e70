package bucketops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/compact"
	"github.com/koios-metrics/koios/pkg/downsample"
)

// DownsampleConfig configures a Downsampler.
type DownsampleConfig struct {
	Choice Choice
	// DataDir holds the blocks that are being worked on. What is in its directory "downsample" is the Downsampler's.
	DataDir string
	// Concurrency is the number of blocks that are downsampled at a time, FilesConcurrency the number of files of each that
	// are copied at a time.
	Concurrency, FilesConcurrency int
	// Hash adds checksums to the metadata of what is made.
	Hash     block.HashFunc
	Progress Progress
}

// Downsampler makes the blocks of 5m and 1h that are due. Its runs must not overlap.
type Downsampler struct {
	bkt     objstore.Bucket
	cfg     DownsampleConfig
	logger  log.Logger
	fetcher *block.Fetcher
	deleted *block.DeletionMarks
	marks   *block.NoDownsampleMarks
	metrics downsampleMetrics
}

// NewDownsampler makes a Downsampler.
func NewDownsampler(bkt objstore.Bucket, cfg DownsampleConfig, logger log.Logger, reg prometheus.Registerer) (*Downsampler, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("downsampling needs a data directory")
	}
	d := &Downsampler{
		bkt: bkt, cfg: cfg, logger: logger, metrics: newDownsampleMetrics(reg),
		deleted: block.NewDeletionMarks(bkt, 0, 32, logger), marks: block.NewNoDownsampleMarks(bkt, 32, logger),
	}
	var err error
	d.fetcher, err = block.NewFetcher(bkt, block.FetcherConfig{MetricsPrefix: metricsPrefix, Filters: []block.Filter{d.deleted, d.marks}}, logger, reg)
	return d, err
}

// Run downsamples what is due: first to 5m, then, with what that made, to 1h. A block that fails is named by the error;
// the others are done.
func (d *Downsampler) Run(ctx context.Context) error {
	var errs []error
	for range 2 {
		errs = append(errs, d.pass(ctx))
	}
	return errors.Join(errs...)
}

func (d *Downsampler) pass(ctx context.Context) error {
	v, err := d.fetcher.Fetch(ctx)
	if err != nil {
		return fmt.Errorf("look at the bucket: %w", err)
	}
	var blocks []*compact.Block
	for _, m := range byTime(v.Metas) {
		blocks = append(blocks, &compact.Block{
			Meta: m, Deleting: d.deleted.Marks()[m.ULID] != nil, NoDownsample: d.marks.Marks()[m.ULID] != nil,
		})
	}
	p := compact.Plan(blocks, compact.Settings{Downsample: true}, d.cfg.Choice.now(), waitForAll)
	var due []ulid.ULID
	for _, st := range p.Steps {
		if st.Kind == compact.KindDownsample {
			due = append(due, st.Inputs[0])
		}
	}
	o := outcome{what: "blocks downsampled", logger: d.logger, progress: d.cfg.Progress}
	o.failView(v)
	o.each(ctx, d.cfg.Concurrency, due, func(ctx context.Context, id ulid.ULID) error { return d.one(ctx, v.Metas[id]) })
	return o.err(ctx)
}

// one downsamples one block.
func (d *Downsampler) one(ctx context.Context, m *block.Meta) (err error) {
	began := time.Now()
	res := strconv.FormatInt(m.Resolution(), 10)
	defer func() {
		if err != nil {
			d.metrics.failures.WithLabelValues(res).Inc()
		}
	}()
	work := filepath.Join(d.cfg.DataDir, "downsample", m.ULID.String())
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	in := filepath.Join(work, m.ULID.String())
	if _, err := block.Download(ctx, d.bkt, m.ULID, in, d.cfg.FilesConcurrency); err != nil {
		return err
	}
	out := filepath.Join(work, "out")
	made, _, err := downsample.Downsample(ctx, stream.Dir(in), m, out, downsample.Config{})
	if err != nil {
		return err
	}
	if made == nil {
		_ = level.Info(d.logger).Log("msg", "no sample of the block makes a window", "block", m.ULID)
		return nil
	}
	opts := block.UploadOptions{Hash: d.cfg.Hash, Concurrency: d.cfg.FilesConcurrency, AllowNoLabels: len(m.Thanos.Labels) == 0}
	if _, err := block.Upload(ctx, d.bkt, filepath.Join(out, made.ULID.String()), opts); err != nil {
		return err
	}
	d.metrics.done.WithLabelValues(res).Inc()
	d.metrics.duration.WithLabelValues(res).Observe(time.Since(began).Seconds())
	_ = level.Info(d.logger).Log("msg", "block downsampled", "block", m.ULID, "to", made.ULID, "resolution", durationText(made.Resolution()))
	return nil
}

// Loop runs again after each interval, until the context ends. What fails is logged and tried again.
func (d *Downsampler) Loop(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		if err := d.Run(ctx); err != nil && ctx.Err() == nil {
			_ = level.Error(d.logger).Log("msg", "downsampling failed in part, trying again", "after", interval, "err", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
