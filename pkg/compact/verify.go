package compact

import (
	"context"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// errNotWhole says that a block in the bucket is not what its metadata says.
var errNotWhole = errors.New("block is not whole")

// verifyWhole checks that a block is in the bucket with every file that its metadata lists, each of the length it
// states. Only then may anything be deleted because the block is there.
func verifyWhole(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) error {
	m, err := block.GetMeta(ctx, bkt, id)
	if err != nil {
		return fmt.Errorf("read back block %s: %w", id, err)
	}
	hasIndex := false
	for _, f := range m.Thanos.Files {
		if f.RelPath == block.MetaFilename {
			continue
		}
		hasIndex = hasIndex || f.RelPath == block.IndexFilename
		name := block.Object(id, f.RelPath)
		a, err := bkt.Attributes(ctx, name)
		switch {
		case err != nil && bkt.IsObjNotFoundErr(err):
			return fmt.Errorf("%w: %s is missing", errNotWhole, name)
		case err != nil:
			return fmt.Errorf("look at %s: %w", name, err)
		case a.Size != f.SizeBytes:
			return fmt.Errorf("%w: %s has %d bytes, should have %d", errNotWhole, name, a.Size, f.SizeBytes)
		}
	}
	if hasIndex {
		return nil
	}
	// Blocks of old list no files.
	ok, err := bkt.Exists(ctx, block.Object(id, block.IndexFilename))
	if err == nil && !ok {
		err = fmt.Errorf("%w: it has no index", errNotWhole)
	}
	return err
}

// stillWanted checks that blocks are there and not marked for deletion. Somebody else may have worked on them since the
// plan was made.
func stillWanted(ctx context.Context, bkt objstore.BucketReader, ids []ulid.ULID) error {
	for _, id := range ids {
		there, err := block.Exists(ctx, bkt, id)
		if err != nil {
			return err
		}
		mark, err := block.ReadDeletionMark(ctx, bkt, id)
		if err != nil && !errors.Is(err, block.ErrMarkUndecodable) {
			return err
		}
		if !there || mark != nil {
			return fmt.Errorf("block %s: %w", id, errAbandoned)
		}
	}
	return nil
}
