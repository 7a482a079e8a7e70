package bucketops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// partialAgeMin is the age at which what lies in a bucket without metadata is no upload under way any more.
const partialAgeMin = 48 * time.Hour

// CleanupConfig configures Cleanup.
type CleanupConfig struct {
	Choice Choice
	// DeleteDelay is how long a block stays after it was marked for deletion.
	DeleteDelay time.Duration
	// DryRun says what would be deleted, and deletes nothing.
	DryRun   bool
	Progress Progress
}

// Cleanup deletes the blocks that were marked for deletion long enough ago, and what is left of uploads and deletions
// that never ended.
func Cleanup(ctx context.Context, bkt objstore.Bucket, cfg CleanupConfig, logger log.Logger, reg prometheus.Registerer) error {
	marks := block.NewDeletionMarks(bkt, cfg.DeleteDelay, max(cfg.Choice.Concurrency, 1), logger)
	v, err := cfg.Choice.look(ctx, bkt, logger, reg, marks)
	if err != nil {
		return err
	}
	o := outcome{what: "blocks deleted", logger: logger, progress: cfg.Progress}
	o.failView(v)
	var due []ulid.ULID
	for id, m := range marks.Marks() {
		if cfg.Choice.now().Sub(time.Unix(m.DeletionTime, 0)) >= cfg.DeleteDelay {
			due = append(due, id)
		}
	}
	for id, cause := range v.Partial {
		r, err := readRemains(ctx, bkt, id)
		if err != nil {
			o.fail(id, err)
			continue
		}
		if keep := r.keep(cfg, cause); keep != "" {
			_ = level.Info(logger).Log("msg", "not deleted: "+keep, "block", id, "newest", r.newest.UTC(), "metadata", cause)
			continue
		}
		due = append(due, id)
	}
	o.each(ctx, 1, due, func(ctx context.Context, id ulid.ULID) error {
		if cfg.DryRun {
			_ = level.Info(logger).Log("msg", "would be deleted", "block", id)
			return nil
		}
		if err := block.Delete(ctx, bkt, id); err != nil {
			return err
		}
		_ = level.Info(logger).Log("msg", "block deleted", "block", id)
		return nil
	})
	return o.err(ctx)
}

// remains are what is left of a block without usable metadata.
type remains struct {
	meta   error // why the metadata can't be used, now
	newest time.Time
	mark   *block.DeletionMark
}

// readRemains looks at the objects of a block without usable metadata.
func readRemains(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (r remains, err error) {
	r.mark, err = block.ReadDeletionMark(ctx, bkt, id)
	if err != nil && !errors.Is(err, block.ErrMarkUndecodable) {
		return r, err
	}
	err = bkt.Iter(ctx, id.String()+objstore.DirDelim, func(name string) error {
		a, err := bkt.Attributes(ctx, name)
		switch {
		case err != nil && bkt.IsObjNotFoundErr(err):
			return nil
		case err != nil:
			return err
		}
		if a.LastModified.After(r.newest) {
			r.newest = a.LastModified
		}
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return r, fmt.Errorf("look at the objects of block %s: %w", id, err)
	}
	if r.newest.IsZero() {
		r.newest = ulid.Time(id.Time())
	}
	if _, r.meta = block.GetMeta(ctx, bkt, id); r.meta == nil {
		r.meta = errMended
	}
	return r, nil
}

// errMended says that metadata which could not be used can be.
var errMended = errors.New("it has metadata now")

// keep tells why remains are not to be deleted; "" is that they are: their deletion was begun, or nothing has been added
// for long. Metadata of another version is somebody's block, and never deleted for that.
func (r *remains) keep(cfg CleanupConfig, cause error) string {
	now := cfg.Choice.now()
	switch {
	case r.meta.Error() != cause.Error():
		return "its metadata changed while it was looked at"
	case !block.IsRemains(cause):
		return "its metadata is whole, though it can't be used"
	case r.mark != nil && now.Sub(time.Unix(r.mark.DeletionTime, 0)) >= cfg.DeleteDelay:
		return ""
	case r.mark != nil:
		return "its deletion delay is not over"
	case now.Sub(r.newest) <= max(partialAgeMin, cfg.Choice.ConsistencyDelay):
		return "its upload may still be under way"
	}
	return ""
}
