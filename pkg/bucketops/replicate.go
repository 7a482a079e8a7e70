package bucketops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

const (
	// replicateInterval is the time between two runs.
	replicateInterval = time.Minute
	// A meta.json grows with the sources of a block; past this it is none.
	metaBytesMax = 64 << 20
)

// ReplicateConfig configures a Replicator.
type ReplicateConfig struct {
	Choice Choice
	// Matchers must all match the external labels of a block.
	Matchers []*labels.Matcher
	// Resolutions are those in ms, and Levels those of compaction, that blocks are copied of.
	Resolutions []int64
	Levels      []int
	// IDs, if there are any, are the blocks to copy; the rest of the choice does not count then.
	IDs []ulid.ULID
	// IgnoreDeleted leaves out blocks that are marked for deletion.
	IgnoreDeleted bool
	// SingleRun ends Run after one run. So do IDs, once a run has gone well.
	SingleRun bool
	Progress  Progress
}

// Replicator copies blocks from one bucket to another. Of the target it asks that nobody else writes the same blocks there,
// other than by copying them too.
type Replicator struct {
	from     objstore.BucketReader
	to       objstore.Bucket
	cfg      ReplicateConfig
	logger   log.Logger
	fetcher  *block.Fetcher
	deleted  *block.DeletionMarks
	metrics  replicateMetrics
	interval time.Duration
}

// NewReplicator makes a Replicator.
func NewReplicator(from objstore.BucketReader, to objstore.Bucket, cfg ReplicateConfig, logger log.Logger, reg prometheus.Registerer) (*Replicator, error) {
	r := &Replicator{from: from, to: to, cfg: cfg, logger: logger, metrics: newReplicateMetrics(reg), interval: replicateInterval}
	var filters []block.Filter
	if cfg.Choice.MinTime != nil && cfg.Choice.MaxTime != nil && len(cfg.IDs) == 0 {
		filters = append(filters, block.TimePartition(cfg.Choice.MinTime, cfg.Choice.MaxTime))
	}
	if cfg.IgnoreDeleted {
		r.deleted = block.NewDeletionMarks(from, 0, 32, logger)
		filters = append(filters, r.deleted)
	}
	var err error
	r.fetcher, err = block.NewFetcher(from, block.FetcherConfig{Concurrency: cfg.Choice.Concurrency, MetricsPrefix: metricsPrefix, Filters: filters}, logger, reg)
	return r, err
}

// Run copies, again and again unless the Replicator is for one run.
func (r *Replicator) Run(ctx context.Context) error {
	tick := time.NewTicker(r.interval)
	defer tick.Stop()
	for {
		err := r.RunOnce(ctx)
		if r.cfg.SingleRun || len(r.cfg.IDs) > 0 && err == nil {
			return err
		}
		if err != nil && ctx.Err() == nil {
			_ = level.Error(r.logger).Log("msg", "replication failed in part, trying again", "after", r.interval, "err", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// RunOnce copies the blocks that the target lacks, the oldest data first.
func (r *Replicator) RunOnce(ctx context.Context) error {
	began := time.Now()
	err := r.copyAll(ctx)
	result := resultSuccess
	if err != nil {
		result = resultError
	}
	r.metrics.runs.WithLabelValues(result).Inc()
	r.metrics.duration.WithLabelValues(result).Observe(time.Since(began).Seconds())
	return err
}

func (r *Replicator) copyAll(ctx context.Context) error {
	v, err := r.fetcher.Fetch(ctx)
	if err != nil {
		return fmt.Errorf("look at the bucket: %w", err)
	}
	o := outcome{what: "blocks replicated", logger: r.logger, progress: r.cfg.Progress}
	o.failView(v)
	chosen := slices.DeleteFunc(byTime(v.Metas), func(m *block.Meta) bool { return !r.chooses(m) })
	for _, id := range r.cfg.IDs {
		if !slices.ContainsFunc(chosen, func(m *block.Meta) bool { return m.ULID == id }) && v.Failed[id] == nil {
			o.fail(id, errors.New("it is not in the bucket, has no external labels, or is marked for deletion"))
		}
	}
	o.each(ctx, 1, idsOf(chosen), r.copyBlock)
	return o.err(ctx)
}

func (r *Replicator) chooses(m *block.Meta) bool {
	if r.deleted != nil && r.deleted.Marks()[m.ULID] != nil {
		return false
	}
	if len(m.Thanos.Labels) == 0 {
		_ = level.Info(r.logger).Log("msg", "not replicated: the block has no external labels", "block", m.ULID)
		return false
	}
	if len(r.cfg.IDs) > 0 {
		return slices.Contains(r.cfg.IDs, m.ULID)
	}
	for _, match := range r.cfg.Matchers {
		if !match.Matches(m.Thanos.Labels[match.Name]) {
			return false
		}
	}
	return slices.Contains(r.cfg.Resolutions, m.Resolution()) && slices.Contains(r.cfg.Levels, m.Compaction.Level)
}

// copyBlock copies one block: chunks, index, and meta.json last, so that a run that is cut off leaves a partial block,
// which the next one completes.
func (r *Replicator) copyBlock(ctx context.Context, id ulid.ULID) error {
	metaName := block.Object(id, block.MetaFilename)
	meta, err := readObject(ctx, r.from, metaName)
	if err != nil {
		return err
	}
	there, err := r.to.Exists(ctx, metaName)
	if err != nil {
		return fmt.Errorf("look for %s in the target: %w", metaName, err)
	}
	if there {
		copied, err := readObject(ctx, r.to, metaName)
		if err != nil {
			return err
		}
		if bytes.Equal(copied, meta) {
			r.metrics.already.Inc()
			return nil
		}
	}
	var names []string
	err = r.from.Iter(ctx, block.Object(id, block.ChunksDirname)+objstore.DirDelim, func(name string) error {
		if !strings.HasSuffix(name, objstore.DirDelim) {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list chunks: %w", err)
	}
	slices.Sort(names)
	for _, name := range append(names, block.Object(id, block.IndexFilename)) {
		if err := r.copyObject(ctx, name); err != nil {
			return err
		}
	}
	if err := r.to.Upload(ctx, metaName, bytes.NewReader(meta)); err != nil {
		return fmt.Errorf("upload %s: %w", metaName, err)
	}
	r.metrics.objects.Inc()
	r.metrics.blocks.Inc()
	_ = level.Info(r.logger).Log("msg", "block replicated", "block", id)
	return nil
}

// copyObject copies an object, unless the target has one of that name and size.
func (r *Replicator) copyObject(ctx context.Context, name string) error {
	want, err := r.from.Attributes(ctx, name)
	if err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	there, err := r.to.Exists(ctx, name)
	if err != nil {
		return fmt.Errorf("look for %s in the target: %w", name, err)
	}
	if there {
		got, err := r.to.Attributes(ctx, name)
		if err != nil {
			return fmt.Errorf("look at %s in the target: %w", name, err)
		}
		if got.Size == want.Size {
			return nil
		}
	}
	rc, err := r.from.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("get %s: %w", name, err)
	}
	defer rc.Close()
	if err := r.to.Upload(ctx, name, rc); err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	r.metrics.objects.Inc()
	return nil
}

// readObject reads a small object.
func readObject(ctx context.Context, bkt objstore.BucketReader, name string) ([]byte, error) {
	rc, err := bkt.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, metaBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > metaBytesMax {
		return nil, fmt.Errorf("read %s: longer than %d bytes", name, metaBytesMax)
	}
	return b, nil
}
