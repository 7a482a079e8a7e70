package bucketops

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/merge"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// repair writes what is readable of a block into a new one. The order is: a whole copy into the backup; the new block
// made, checked, uploaded and read back; then the old one deleted, or marked. So there is always one of them.
func (v *verifier) repair(ctx context.Context, m *block.Meta) (err error) {
	work, err := os.MkdirTemp(v.cfg.TempDir, "koios-repair-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	in := filepath.Join(work, m.ULID.String())
	if _, err := block.Download(ctx, v.bkt, m.ULID, in, 4); err != nil {
		return fmt.Errorf("download it: %w", err)
	}
	made, lost, err := salvage(ctx, stream.Dir(in), m, filepath.Join(work, "out"))
	if err != nil {
		return fmt.Errorf("nothing of it can be read: upload it again from where it was made, or mark it for deletion: %w", err)
	}
	if made == nil {
		return errors.New("no series of it can be read: upload it again from where it was made, or mark it for deletion")
	}
	if err := v.backup(ctx, m.ULID); err != nil {
		return err
	}
	opts := block.UploadOptions{AllowNoLabels: len(m.Thanos.Labels) == 0, Concurrency: 4, Now: v.cfg.Choice.Now}
	if _, err := block.Upload(ctx, v.bkt, filepath.Join(work, "out", made.ULID.String()), opts); err != nil {
		return fmt.Errorf("upload what was repaired: %w", err)
	}
	if err := v.whole(ctx, made.ULID); err != nil {
		return fmt.Errorf("read back what was repaired: %w", err)
	}
	_ = level.Warn(v.logger).Log("msg", "block repaired", "block", m.ULID, "into", made.ULID, "samples", made.Stats.NumSamples, "samplesBefore", m.Stats.NumSamples, "partsLost", lost)
	return v.delete(ctx, m.ULID, "source of repaired block")
}

// salvage writes a new block with all that can be read of one, in order, and within its times. It names the old one's
// sources and itself, so that it stands in for the old one wherever both are seen.
func salvage(ctx context.Context, files stream.Files, m *block.Meta, parent string) (made *block.Meta, lost int64, err error) {
	var n atomic.Int64
	cfg := merge.Config{
		Inputs:  []merge.Input{{Files: files, Meta: m}},
		MinTime: m.MinTime, MaxTime: m.MaxTime + 1, // some writers have a sample at the very end
		Skip: func(int, *stream.CorruptError) bool {
			n.Add(1)
			return true
		},
	}
	made, _, err = merge.Compact(ctx, cfg, m.Thanos.Labels, parent)
	if err != nil || made == nil {
		return nil, n.Load(), err
	}
	made.Compaction.Level = m.Compaction.Level
	made.Compaction.Sources = append(slices.Clone(sources(m)), made.ULID)
	slices.SortFunc(made.Compaction.Sources, ulid.ULID.Compare)
	made.Compaction.Parents = []tsdb.BlockDesc{{ULID: m.ULID, MinTime: m.MinTime, MaxTime: m.MaxTime}}
	made.Thanos.Source = block.SourceBucketRepair
	made.Thanos.Rewrites = slices.Clone(m.Thanos.Rewrites)
	return made, n.Load(), block.WriteMetaDir(filepath.Join(parent, made.ULID.String()), made)
}

// whole reads a block in the bucket from its first byte to its last.
func (v *verifier) whole(ctx context.Context, id ulid.ULID) error {
	m, err := block.GetMeta(ctx, v.bkt, id)
	if err != nil {
		return err
	}
	found, err := checkBlock(ctx, v.bkt, m, DepthChunks, v.cfg.Choice.now())
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Kind.Explain().Severity == SeverityError {
			return errors.New(f.String())
		}
	}
	return nil
}

// backup copies all objects of a block into the backup bucket, meta.json last, and looks at what arrived. What lies there
// already under its name must be the same block: a run that was cut off goes on.
func (v *verifier) backup(ctx context.Context, id ulid.ULID) error {
	sizes, err := objectSizes(ctx, v.bkt, id)
	if err != nil {
		return err
	}
	there, err := objectSizes(ctx, v.cfg.Backup, id)
	if err != nil {
		return fmt.Errorf("look into the backup: %w", err)
	}
	for name := range there {
		same, err := v.sameAcross(ctx, name)
		if err != nil {
			return fmt.Errorf("look into the backup: %w", err)
		}
		if _, ok := sizes[name]; !ok || !same {
			return fmt.Errorf("the backup has another block of this id already: move %s away", id)
		}
	}
	names := make([]string, 0, len(sizes))
	metaName := block.Object(id, block.MetaFilename)
	for name := range sizes {
		if name != metaName {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range append(names, metaName) {
		if _, ok := there[name]; ok {
			continue
		}
		if err := copyBetween(ctx, v.bkt, v.cfg.Backup, name); err != nil {
			return fmt.Errorf("back up: %w", err)
		}
	}
	arrived, err := objectSizes(ctx, v.cfg.Backup, id)
	if err != nil {
		return fmt.Errorf("look into the backup: %w", err)
	}
	for name, size := range sizes {
		if got, ok := arrived[name]; !ok || got != size {
			return fmt.Errorf("back up: %s has %d bytes in the backup, not %d", name, got, size)
		}
	}
	return nil
}

// sameAcross tells whether an object is the same in both buckets.
func (v *verifier) sameAcross(ctx context.Context, name string) (bool, error) {
	a, err := v.bkt.Attributes(ctx, name)
	if err != nil {
		return false, passNotFound(v.bkt, err)
	}
	b, err := v.cfg.Backup.Attributes(ctx, name)
	if err != nil {
		return false, passNotFound(v.cfg.Backup, err)
	}
	return a.Size == b.Size, nil
}

// objectSizes are the objects of a block with their lengths in bytes.
func objectSizes(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := bkt.Iter(ctx, id.String()+objstore.DirDelim, func(name string) error {
		a, err := bkt.Attributes(ctx, name)
		if err != nil {
			return err
		}
		sizes[name] = a.Size
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return nil, fmt.Errorf("list objects of block %s: %w", id, err)
	}
	return sizes, nil
}

func copyBetween(ctx context.Context, from objstore.BucketReader, to objstore.Bucket, name string) error {
	rc, err := from.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("get %s: %w", name, err)
	}
	defer rc.Close()
	if err := to.Upload(ctx, name, rc); err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	return nil
}

// delete lets a block go: at once, or with a mark if there is a delay.
func (v *verifier) delete(ctx context.Context, id ulid.ULID, details string) error {
	if v.cfg.DeleteDelay == 0 {
		if err := block.Delete(ctx, v.bkt, id); err != nil {
			return err
		}
		_ = level.Info(v.logger).Log("msg", "block deleted", "block", id)
		return nil
	}
	fresh, err := block.MarkForDeletion(ctx, v.bkt, id, details, v.cfg.Choice.now())
	if fresh {
		v.marked.Inc()
	}
	return err
}
