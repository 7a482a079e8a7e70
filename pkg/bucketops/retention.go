package bucketops

import (
	"context"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/compact"
)

// RetentionConfig configures Retention.
type RetentionConfig struct {
	Choice Choice
	// Retention is how long the data of each resolution (in ms) is kept; 0 is forever.
	Retention map[int64]time.Duration
	// Alone deletes data though a coarser resolution should hold it and does not.
	Alone bool
	// DeleteDelay is how long a block stays after it was marked: blocks that are marked are passed over.
	DeleteDelay time.Duration
	// DryRun says what would be marked, and marks nothing.
	DryRun   bool
	Progress Progress
}

// Retention marks the blocks for deletion that are past the retention of their resolution, as the compactor does: data
// that the retention of a coarser resolution still covers stays until it is there.
func Retention(ctx context.Context, bkt objstore.Bucket, cfg RetentionConfig, logger log.Logger, reg prometheus.Registerer) error {
	marks := block.NewDeletionMarks(bkt, cfg.DeleteDelay/2, max(cfg.Choice.Concurrency, 1), logger)
	v, err := cfg.Choice.look(ctx, bkt, logger, reg, marks)
	if err != nil {
		return err
	}
	var blocks []*compact.Block
	for _, m := range byTime(v.Metas) {
		blocks = append(blocks, &compact.Block{Meta: m, Deleting: marks.Marks()[m.ULID] != nil})
	}
	due, kept := cfg.plan(blocks)
	for id, reason := range kept {
		_ = level.Info(logger).Log("msg", "block stays: downsample it, or give --downsampling.disable to let it go", "block", id, "reason", reason)
	}
	o := outcome{what: "blocks marked for deletion", logger: logger, progress: cfg.Progress}
	o.failView(v)
	ids := make([]ulid.ULID, len(due))
	reasons := map[ulid.ULID]string{}
	for i, st := range due {
		ids[i] = st.Inputs[0]
		reasons[ids[i]] = st.Reason
	}
	o.each(ctx, 1, ids, func(ctx context.Context, id ulid.ULID) error {
		if cfg.DryRun {
			_ = level.Info(logger).Log("msg", "would be marked for deletion", "block", id, "reason", reasons[id])
			return nil
		}
		_, err := block.MarkForDeletion(ctx, bkt, id, reasons[id], cfg.Choice.now())
		if err == nil {
			_ = level.Info(logger).Log("msg", "block marked for deletion", "block", id, "reason", reasons[id])
		}
		return err
	})
	return o.err(ctx)
}

// plan asks the compactor's planner which blocks are past their retention. Blocks whose data is in another one show up
// once that one is out of the way, so it asks until nothing is left.
func (cfg *RetentionConfig) plan(blocks []*compact.Block) (due []compact.Step, kept map[ulid.ULID]string) {
	settings := compact.Settings{Retention: cfg.Retention, Downsample: !cfg.Alone}
	for {
		p := compact.Plan(blocks, settings, cfg.Choice.now(), waitForAll)
		kept = map[ulid.ULID]string{}
		for _, g := range p.Groups {
			for id, reason := range g.LeftOut {
				kept[id] = reason
			}
		}
		going := map[ulid.ULID]bool{}
		for _, st := range p.Steps {
			if st.Kind == compact.KindExpire {
				due = append(due, st)
				going[st.Inputs[0]] = true
			}
		}
		if len(going) == 0 {
			return due, kept
		}
		for i, b := range blocks {
			if going[b.Meta.ULID] {
				c := *b
				c.Deleting = true
				blocks[i] = &c
			}
		}
	}
}

// waitForAll keeps the compactor's planner from planning merges.
func waitForAll(string) bool { return true }
