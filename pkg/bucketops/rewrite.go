package bucketops

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// changeLogFilename is the file with what was changed, in the directory of the new block below TempDir.
const changeLogFilename = "change.log"

// detailsRewritten is the text of the mark of a block that was rewritten.
const detailsRewritten = "block rewritten"

// RewriteConfig configures Rewrite.
type RewriteConfig struct {
	IDs []ulid.ULID
	// Deletions are applied first, then Relabel; series whose labels become equal are merged.
	Deletions []Deletion
	Relabel   []*relabel.Config
	// DryRun writes what would be changed, and changes nothing.
	DryRun bool
	// PromBlocks admits blocks without external labels.
	PromBlocks bool
	// DeleteBlocks marks the old blocks for deletion once the new ones are there.
	DeleteBlocks bool
	// Hash adds checksums to the metadata.
	Hash block.HashFunc
	// TempDir is for the blocks being worked on.
	TempDir string
	// ChangeLog keeps what was changed in TempDir.
	ChangeLog bool
	// Now is the clock; nil is time.Now.
	Now      func() time.Time
	Progress Progress
}

// Rewrite writes blocks anew with series deleted or labels changed. A block that nothing of is changed is left as it is.
func Rewrite(ctx context.Context, bkt objstore.Bucket, cfg RewriteConfig, out io.Writer, logger log.Logger) error {
	if len(cfg.Deletions) == 0 && len(cfg.Relabel) == 0 {
		return errors.New("nothing to do: give --rewrite.to-delete-config or --rewrite.to-relabel-config")
	}
	rw := &rewriter{bkt: bkt, cfg: cfg, changes: changes{deletions: cfg.Deletions, relabel: cfg.Relabel}, out: out, logger: logger}
	o := outcome{what: "blocks rewritten", logger: logger, progress: cfg.Progress}
	o.each(ctx, 1, cfg.IDs, rw.one)
	return o.err(ctx)
}

// rewriter is one run of Rewrite.
type rewriter struct {
	bkt     objstore.Bucket
	cfg     RewriteConfig
	changes changes
	out     io.Writer
	logger  log.Logger
}

func (rw *rewriter) one(ctx context.Context, id ulid.ULID) error {
	m, err := block.GetMeta(ctx, rw.bkt, id)
	if err != nil {
		return err
	}
	if len(m.Thanos.Labels) == 0 && !rw.cfg.PromBlocks {
		return errors.New("it has no external labels: give --prom-blocks if that is as it should be")
	}
	if rw.cfg.DryRun {
		w := bufio.NewWriter(rw.out)
		_, _, err := rw.changes.plan(stream.Bucket(ctx, rw.bkt, id), windowBytes, w)
		return errors.Join(err, w.Flush())
	}
	return rw.write(ctx, m)
}

// write makes the new block, uploads it, reads it back, and lets the old one go if asked to.
func (rw *rewriter) write(ctx context.Context, m *block.Meta) (err error) {
	if err := os.MkdirAll(rw.cfg.TempDir, 0o777); err != nil {
		return err
	}
	work, err := os.MkdirTemp(rw.cfg.TempDir, "rewrite-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	in := filepath.Join(work, m.ULID.String())
	if _, err := block.Download(ctx, rw.bkt, m.ULID, in, 4); err != nil {
		return fmt.Errorf("download it: %w", err)
	}
	logFile, err := os.Create(filepath.Join(work, changeLogFilename))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(logFile)
	all, changed, err := rw.changes.plan(stream.Dir(in), 0, w)
	if err := errors.Join(err, w.Flush(), logFile.Close()); err != nil {
		return err
	}
	if !changed {
		_ = level.Info(rw.logger).Log("msg", "nothing of the block is changed", "block", m.ULID)
		return nil
	}
	made, err := makeRewritten(ctx, stream.Dir(in), m, all, work)
	if err != nil {
		return err
	}
	if made == nil {
		_ = level.Warn(rw.logger).Log("msg", "nothing is left of the block, so there is no new one", "block", m.ULID)
		return rw.letGo(ctx, m.ULID)
	}
	if err := rw.finishMeta(made, m, filepath.Join(work, made.ULID.String())); err != nil {
		return err
	}
	if rw.cfg.ChangeLog {
		kept := filepath.Join(rw.cfg.TempDir, made.ULID.String())
		if err := errors.Join(os.MkdirAll(kept, 0o777), os.Rename(logFile.Name(), filepath.Join(kept, changeLogFilename))); err != nil {
			return err
		}
		_ = level.Info(rw.logger).Log("msg", "changes are listed", "file", filepath.Join(kept, changeLogFilename))
	}
	return rw.publish(ctx, m.ULID, made, filepath.Join(work, made.ULID.String()))
}

// finishMeta makes the metadata that of a rewritten block. It is its own source: what the old one was made of is not all
// in it.
func (rw *rewriter) finishMeta(made, from *block.Meta, dir string) error {
	record, err := rw.changes.record(from)
	if err != nil {
		return err
	}
	made.MinTime, made.MaxTime = from.MinTime, from.MaxTime
	made.Compaction = tsdb.BlockMetaCompaction{Level: from.Compaction.Level, Sources: []ulid.ULID{made.ULID}}
	made.Thanos.Labels = from.Thanos.Labels
	made.Thanos.Downsample = from.Thanos.Downsample
	made.Thanos.Source = block.SourceBucketRewrite
	made.Thanos.Extensions = from.Thanos.Extensions
	made.Thanos.Rewrites = append(slices.Clone(from.Thanos.Rewrites), record)
	return block.WriteMetaDir(dir, made)
}

func (rw *rewriter) publish(ctx context.Context, old ulid.ULID, made *block.Meta, dir string) error {
	opts := block.UploadOptions{Hash: rw.cfg.Hash, Concurrency: 4, AllowNoLabels: rw.cfg.PromBlocks, Now: rw.cfg.Now}
	up, err := block.Upload(ctx, rw.bkt, dir, opts)
	if err != nil {
		return fmt.Errorf("upload what was rewritten: %w", err)
	}
	fs := newFaults(made.ULID)
	if err := checkFiles(ctx, rw.bkt, up, fs); err != nil {
		return fmt.Errorf("read back what was rewritten: %w", err)
	}
	if found := fs.list(); len(found) > 0 {
		return fmt.Errorf("read back what was rewritten: %s", found[0])
	}
	_ = level.Info(rw.logger).Log("msg", "block rewritten", "block", old, "into", made.ULID, "series", made.Stats.NumSeries, "samples", made.Stats.NumSamples)
	return rw.letGo(ctx, old)
}

func (rw *rewriter) letGo(ctx context.Context, id ulid.ULID) error {
	if !rw.cfg.DeleteBlocks {
		return nil
	}
	clock := Choice{Now: rw.cfg.Now}
	_, err := block.MarkForDeletion(ctx, rw.bkt, id, detailsRewritten, clock.now())
	return err
}
