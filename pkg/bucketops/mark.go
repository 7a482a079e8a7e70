package bucketops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// Markers are the marks that Mark writes and removes, by the names of their objects.
func Markers() []string {
	return []string{block.DeletionMarkFilename, block.NoCompactMarkFilename, block.NoDownsampleMarkFilename}
}

// MarkConfig configures Mark.
type MarkConfig struct {
	IDs []ulid.ULID
	// Marker is one of Markers.
	Marker string
	// Details say why, for people; they are needed but for Remove.
	Details string
	// Remove takes the mark away.
	Remove bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Mark marks blocks, or takes marks away. A mark that is there is left as it is.
func Mark(ctx context.Context, bkt objstore.Bucket, cfg MarkConfig, logger log.Logger) error {
	if cfg.Details == "" && !cfg.Remove {
		return errors.New("say in --details why the blocks are marked")
	}
	clock := Choice{Now: cfg.Now}
	o := outcome{what: "blocks marked", logger: logger}
	o.each(ctx, 1, cfg.IDs, func(ctx context.Context, id ulid.ULID) error {
		if cfg.Remove {
			if err := block.RemoveMark(ctx, bkt, id, cfg.Marker); err != nil {
				return err
			}
			_ = level.Info(logger).Log("msg", "mark removed", "block", id, "marker", cfg.Marker)
			return nil
		}
		fresh, err := cfg.mark(ctx, bkt, id, clock.now())
		if err != nil {
			return err
		}
		if !fresh {
			_ = level.Warn(logger).Log("msg", "the block has this mark already, it is left as it is", "block", id, "marker", cfg.Marker)
			return nil
		}
		_ = level.Info(logger).Log("msg", "block marked", "block", id, "marker", cfg.Marker)
		return nil
	})
	return o.err(ctx)
}

func (cfg *MarkConfig) mark(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, now time.Time) (bool, error) {
	switch cfg.Marker {
	case block.DeletionMarkFilename:
		return block.MarkForDeletion(ctx, bkt, id, cfg.Details, now)
	case block.NoCompactMarkFilename:
		return block.MarkForNoCompact(ctx, bkt, id, block.NoCompactManual, cfg.Details, now)
	case block.NoDownsampleMarkFilename:
		return block.MarkForNoDownsample(ctx, bkt, id, block.NoDownsampleManual, cfg.Details, now)
	}
	return false, fmt.Errorf("unknown mark %q", cfg.Marker)
}
