package compact

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// Clean deletes the blocks that were marked for deletion long enough ago, and what was left of uploads that never
// ended. A block that can't be deleted now does not keep others from it.
func (c *Compactor) Clean(ctx context.Context) error {
	defer c.metrics.cleanLoops.Inc()
	if err := c.eyes.look(ctx); err != nil {
		return err
	}
	_, view, _ := c.eyes.seen()
	var errs []error
	for id, m := range c.eyes.deletions.Marks() {
		if c.cfg.Now().Sub(time.Unix(m.DeletionTime, 0)) < c.cfg.DeleteDelay {
			continue
		}
		errs = append(errs, c.delete(ctx, id, "delay over"))
	}
	for id, cause := range view.Partial {
		old, err := c.isAbandoned(ctx, id, cause)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if old {
			c.metrics.aborted.Inc()
			errs = append(errs, c.delete(ctx, id, "upload or deletion that never ended"))
		}
	}
	c.mu.Lock()
	l := c.leases
	c.mu.Unlock()
	errs = append(errs, l.sweep(ctx))
	return errors.Join(errs...)
}

func (c *Compactor) delete(ctx context.Context, id ulid.ULID, reason string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := block.Delete(ctx, c.bkt, id); err != nil {
		c.metrics.cleanFailures.Inc()
		return fmt.Errorf("delete block %s: %w", id, err)
	}
	c.metrics.cleaned.Inc()
	_ = level.Info(c.logger).Log("msg", "block deleted", "block", id, "reason", reason)
	return nil
}

// isAbandoned tells whether a directory without readable metadata is to be deleted: its deletion was begun, or none of
// its objects is newer than an upload may take. Metadata that is whole, if of another version, is never taken for remains.
func (c *Compactor) isAbandoned(ctx context.Context, id ulid.ULID, cause error) (bool, error) {
	if !block.IsRemains(cause) {
		return false, nil
	}
	mark, err := block.ReadDeletionMark(ctx, c.bkt, id)
	if err != nil && !errors.Is(err, block.ErrMarkUndecodable) {
		return false, err
	}
	now := c.cfg.Now()
	if mark != nil {
		return now.Sub(time.Unix(mark.DeletionTime, 0)) >= c.cfg.DeleteDelay, nil
	}
	var newest time.Time
	err = c.bkt.Iter(ctx, id.String()+objstore.DirDelim, func(name string) error {
		a, err := c.bkt.Attributes(ctx, name)
		switch {
		case err != nil && c.bkt.IsObjNotFoundErr(err):
			return nil
		case err != nil:
			return err
		}
		if a.LastModified.After(newest) {
			newest = a.LastModified
		}
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return false, fmt.Errorf("look at the objects of partial block %s: %w", id, err)
	}
	if newest.IsZero() {
		newest = ulid.Time(id.Time())
	}
	if now.Sub(newest) <= c.cfg.PartialAge {
		return false, nil
	}
	// An upload that slept for days may have ended since the look.
	_, err = block.GetMeta(ctx, c.bkt, id)
	return err != nil && err.Error() == cause.Error(), nil
}
