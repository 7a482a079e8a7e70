package bucketops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// The issues that Verify looks for.
const (
	// IssueIndex is whatever is wrong within a block: its index, its chunks, its files.
	IssueIndex = "index_known_issues"
	// IssueOverlaps is blocks of the same labels and resolution that overlap.
	IssueOverlaps = "overlapped_blocks"
	// IssueDuplicates is blocks that came of compacting the same blocks twice.
	IssueDuplicates = "duplicated_compaction"
)

// Issues are all of them.
func Issues() []string { return []string{IssueIndex, IssueOverlaps, IssueDuplicates} }

// VerifyConfig configures Verify.
type VerifyConfig struct {
	Choice Choice
	// Issues are those to look for.
	Issues []string
	// IDs, if there are any, are the blocks to look at. IssueOverlaps and IssueDuplicates are about all blocks.
	IDs []ulid.ULID
	// Repair mends what can be mended, after a copy of the block was put into Backup.
	Repair bool
	Backup objstore.Bucket
	// DeleteDelay, if not 0, has replaced blocks marked for deletion instead of deleted.
	DeleteDelay time.Duration
	// TempDir is where blocks are repaired; "" is the system's.
	TempDir string
	// DryRun says what Repair would do, and does nothing.
	DryRun   bool
	Progress Progress
}

func (c *VerifyConfig) validate() error {
	for _, i := range c.Issues {
		if !slices.Contains(Issues(), i) {
			return fmt.Errorf("unknown issue %q: there are %s", i, strings.Join(Issues(), ", "))
		}
		if i != IssueIndex && len(c.IDs) > 0 {
			return fmt.Errorf("issue %s is about all blocks: leave out --id, or give --issues=%s", i, IssueIndex)
		}
	}
	if c.Repair && c.Backup == nil {
		return errors.New("repair puts a copy of each block aside before it goes: give --objstore-backup.config or --objstore-backup.config-file")
	}
	return nil
}

// verifier is one run of Verify.
type verifier struct {
	bkt    objstore.Bucket
	cfg    VerifyConfig
	out    io.Writer
	logger log.Logger
	marked prometheus.Counter
	outMu  sync.Mutex
}

// Verify looks for issues, writes what it finds, a line each, and mends what can be mended if asked to. What it finds is no
// error; what it could not look at, or not mend, is.
func Verify(ctx context.Context, bkt objstore.Bucket, cfg VerifyConfig, out io.Writer, logger log.Logger, reg prometheus.Registerer) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	v := &verifier{bkt: bkt, cfg: cfg, out: out, logger: logger, marked: promauto.With(reg).NewCounter(prometheus.CounterOpts{
		Name: "thanos_verify_blocks_marked_for_deletion_total", Help: "Blocks that verify marked for deletion.",
	})}
	marks := block.NewDeletionMarks(bkt, 0, 32, logger)
	view, err := cfg.Choice.look(ctx, bkt, logger, reg, marks)
	if err != nil {
		return err
	}
	for id := range marks.Marks() {
		delete(view.Metas, id)
	}
	var errs []error
	if slices.Contains(cfg.Issues, IssueOverlaps) {
		errs = append(errs, v.overlaps(ctx, view))
	}
	if slices.Contains(cfg.Issues, IssueDuplicates) {
		errs = append(errs, v.duplicates(ctx, view))
	}
	if slices.Contains(cfg.Issues, IssueIndex) {
		errs = append(errs, v.index(ctx, view))
	}
	return errors.Join(errs...)
}

func (v *verifier) report(issue string, f Fault) {
	v.outMu.Lock()
	defer v.outMu.Unlock()
	_, _ = fmt.Fprintf(v.out, "%s %s\n", issue, f)
}

func (v *verifier) overlaps(ctx context.Context, view block.View) error {
	found, err := overlaps(ctx, v.bkt, byTime(view.Metas))
	for _, f := range found {
		v.report(IssueOverlaps, f)
	}
	return err
}

// duplicates finds blocks that were made of the same sources at the same level, with the same numbers in them. All but
// the oldest can go.
func (v *verifier) duplicates(ctx context.Context, view block.View) error {
	o := outcome{what: "duplicated blocks", logger: v.logger, progress: v.cfg.Progress}
	stays := map[ulid.ULID]ulid.ULID{}
	var goes []ulid.ULID
	for _, g := range groups(byTime(view.Metas)) {
		slices.SortStableFunc(g, func(a, b *block.Meta) int { return a.ULID.Compare(b.ULID) })
		var kept []*block.Meta
		for _, m := range g {
			i := slices.IndexFunc(kept, func(k *block.Meta) bool { return sameCompaction(k, m) })
			if i < 0 {
				kept = append(kept, m)
				continue
			}
			goes = append(goes, m.ULID)
			stays[m.ULID] = kept[i].ULID
			v.report(IssueDuplicates, Fault{Block: m.ULID, Kind: KindContained, Count: 1, Others: []ulid.ULID{kept[i].ULID}})
		}
	}
	if !v.cfg.Repair {
		return nil
	}
	o.each(ctx, 1, goes, func(ctx context.Context, id ulid.ULID) error {
		if v.cfg.DryRun {
			_ = level.Info(v.logger).Log("msg", "would be deleted, after a backup", "block", id, "same as", stays[id])
			return nil
		}
		if err := v.whole(ctx, stays[id]); err != nil {
			return fmt.Errorf("not deleted, the block that should stay for it is faulty: %w", err)
		}
		if err := v.backup(ctx, id); err != nil {
			return err
		}
		return v.delete(ctx, id, "manual verify-repair")
	})
	return o.err(ctx)
}

func sameCompaction(a, b *block.Meta) bool {
	return a.MinTime == b.MinTime && a.MaxTime == b.MaxTime && a.Compaction.Level == b.Compaction.Level && a.Stats == b.Stats &&
		len(sources(a)) == len(sources(b)) && holds(a, b)
}

// index checks blocks from their first byte to their last.
func (v *verifier) index(ctx context.Context, view block.View) error {
	o := outcome{what: "blocks verified", logger: v.logger, progress: v.cfg.Progress}
	for _, id := range v.cfg.IDs {
		if view.Metas[id] == nil {
			o.fail(id, errors.New("there is no such block, or it is marked for deletion"))
		}
	}
	ms := slices.DeleteFunc(byTime(view.Metas), func(m *block.Meta) bool {
		return len(v.cfg.IDs) > 0 && !slices.Contains(v.cfg.IDs, m.ULID)
	})
	if len(v.cfg.IDs) == 0 {
		o.failView(view)
		for id, cause := range view.Partial {
			f, err := checkPartial(ctx, v.bkt, id, cause)
			if err != nil {
				o.fail(id, err)
				continue
			}
			v.report(IssueIndex, f)
		}
	}
	o.each(ctx, 1, idsOf(ms), func(ctx context.Context, id ulid.ULID) error {
		found, err := checkBlock(ctx, v.bkt, view.Metas[id], DepthChunks, v.cfg.Choice.now())
		if err != nil {
			return err
		}
		mend := false
		for _, f := range found {
			v.report(IssueIndex, f)
			mend = mend || f.Kind.mendable()
		}
		if !v.cfg.Repair || !mend {
			return nil
		}
		if v.cfg.DryRun {
			_ = level.Info(v.logger).Log("msg", "would be repaired, after a backup", "block", id)
			return nil
		}
		return v.repair(ctx, view.Metas[id])
	})
	return o.err(ctx)
}

// mendable tells whether a block with such a fault is written anew by repair.
func (k Kind) mendable() bool {
	switch k {
	case KindNoLabels, KindFuture, KindEmptyBlock, KindStray, KindGiantLabel, KindChunkTimes, KindFileMissing:
		return false
	}
	return true
}
