package bucketops

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/compact"
)

// Depth says how much of a block is read to check it.
type Depth string

// The depths.
const (
	// DepthMeta reads metadata and lists objects.
	DepthMeta Depth = "metadata"
	// DepthIndex reads the index too.
	DepthIndex Depth = "index"
	// DepthChunks reads everything.
	DepthChunks Depth = "chunks"
)

// windowBytes is how much of a block in a bucket is read at once.
const windowBytes = 4 << 20

// A block may end so much after the clock before it counts as one of the future: clocks differ, and blocks are cut at full hours.
const futureSlack = 2 * time.Hour

// checkBlock finds the faults of one block. The error is about the storage, not about the block.
func checkBlock(ctx context.Context, bkt objstore.BucketReader, m *block.Meta, depth Depth, now time.Time) ([]Fault, error) {
	fs := newFaults(m.ULID)
	checkMeta(fs, m, now)
	if err := checkFiles(ctx, bkt, m, fs); err != nil {
		return nil, err
	}
	if depth != DepthMeta && !fs.has(KindIndexMissing) {
		if err := checkContent(stream.Bucket(ctx, bkt, m.ULID), m, depth, fs); err != nil {
			return nil, err
		}
	}
	return fs.list(), nil
}

func checkMeta(fs *faults, m *block.Meta, now time.Time) {
	if len(m.Thanos.Labels) == 0 {
		fs.add(KindNoLabels, "")
	}
	if end := time.UnixMilli(m.MaxTime); end.After(now.Add(futureSlack)) {
		fs.add(KindFuture, "it ends at %s", end.UTC().Format(time.RFC3339))
	}
	if m.Stats.NumSamples == 0 {
		fs.add(KindEmptyBlock, "")
	}
}

// checkFiles compares the objects of a block with those that its metadata lists.
func checkFiles(ctx context.Context, bkt objstore.BucketReader, m *block.Meta, fs *faults) error {
	listed := map[string]int64{}
	for _, f := range m.Thanos.Files {
		if f.RelPath != block.MetaFilename {
			listed[f.RelPath] = f.SizeBytes
		}
	}
	for _, name := range m.Thanos.SegmentFiles {
		if rel := block.ChunksDirname + "/" + name; len(m.Thanos.Files) == 0 {
			listed[rel] = 0
		}
	}
	if _, ok := listed[block.IndexFilename]; !ok {
		listed[block.IndexFilename] = 0
	}
	// Blocks of old list neither.
	unlisted := len(m.Thanos.Files) == 0 && len(m.Thanos.SegmentFiles) == 0
	there := map[string]bool{}
	err := bkt.Iter(ctx, m.ULID.String()+objstore.DirDelim, func(name string) error {
		rel := strings.TrimPrefix(name, m.ULID.String()+objstore.DirDelim)
		there[rel] = true
		_, ok := listed[rel]
		ok = ok || belongs(rel) || unlisted && strings.HasPrefix(rel, block.ChunksDirname+"/")
		if !ok {
			fs.add(KindStray, "%s", rel)
		}
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return fmt.Errorf("list objects: %w", err)
	}
	for rel, size := range listed {
		switch {
		case !there[rel] && rel == block.IndexFilename:
			fs.add(KindIndexMissing, "")
			continue
		case !there[rel] && strings.HasPrefix(rel, block.ChunksDirname+"/"):
			fs.add(KindChunksMissing, "%s", rel)
			continue
		case !there[rel]:
			fs.add(KindFileMissing, "%s", rel)
			continue
		case size == 0:
			continue
		}
		a, err := bkt.Attributes(ctx, block.Object(m.ULID, rel))
		if err != nil {
			return fmt.Errorf("look at %s: %w", rel, err)
		}
		if a.Size != size {
			fs.add(KindFileSize, "%s has %d bytes, meta.json says %d", rel, a.Size, size)
		}
	}
	return nil
}

// belongs tells whether an object may be in a block without being listed.
func belongs(rel string) bool {
	switch rel {
	case block.MetaFilename, block.DeletionMarkFilename, block.NoCompactMarkFilename, block.NoDownsampleMarkFilename, compact.SetAsideFilename:
		return true
	}
	return strings.HasSuffix(rel, objstore.DirDelim)
}

// checkPartial names the fault of a directory without usable metadata.
func checkPartial(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, cause error) (Fault, error) {
	fs := newFaults(id)
	switch text := cause.Error(); {
	case errors.Is(cause, block.ErrPartial):
		mark, err := block.ReadDeletionMark(ctx, bkt, id)
		if err != nil && !errors.Is(err, block.ErrMarkUndecodable) {
			return Fault{}, err
		}
		if mark != nil {
			fs.add(KindHalfDeleted, "marked for deletion on %s", time.Unix(mark.DeletionTime, 0).UTC().Format(time.RFC3339))
		} else {
			fs.add(KindPartial, "")
		}
	case strings.Contains(text, "version is"):
		fs.add(KindMetaVersion, "%v", cause)
	case strings.Contains(text, "it is that of block"):
		fs.add(KindMetaOther, "%v", cause)
	default:
		fs.add(KindMetaMalformed, "%v", cause)
	}
	return fs.list()[0], nil
}

// checkMarks looks at the marks of a block: whether they can be read, whether its deletion is overdue, and whether the
// compactor has set it aside.
func checkMarks(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, now time.Time) (found []Fault, deleting bool, err error) {
	fs := newFaults(id)
	del, err := block.ReadDeletionMark(ctx, bkt, id)
	if err := markFault(fs, block.DeletionMarkFilename, err); err != nil {
		return nil, false, err
	}
	if del != nil {
		if at := time.Unix(del.DeletionTime, 0); now.Sub(at) > overdueAfter {
			fs.add(KindOverdue, "marked on %s", at.UTC().Format(time.RFC3339))
		}
	}
	nc, err := block.ReadNoCompactMark(ctx, bkt, id)
	if err := markFault(fs, block.NoCompactMarkFilename, err); err != nil {
		return nil, false, err
	}
	_, err = block.ReadNoDownsampleMark(ctx, bkt, id)
	if err := markFault(fs, block.NoDownsampleMarkFilename, err); err != nil {
		return nil, false, err
	}
	aside, err := bkt.Exists(ctx, block.Object(id, compact.SetAsideFilename))
	if err != nil {
		return nil, false, err
	}
	if aside {
		why := "see " + compact.SetAsideFilename
		if nc != nil {
			why = nc.Details
		}
		fs.add(KindSetAside, "%s", why)
	}
	return fs.list(), del != nil, nil
}

// overdueAfter is twice the usual delay of deletions, and a day for the compactor to come by.
const overdueAfter = 2*48*time.Hour + 24*time.Hour

// markFault notes a mark that can't be read; the error is the storage's.
func markFault(fs *faults, name string, err error) error {
	switch {
	case err == nil:
	case errors.Is(err, block.ErrMarkUndecodable), strings.Contains(err.Error(), "has version"):
		fs.add(KindMarkMalformed, "%s: %v", name, err)
	default:
		return err
	}
	return nil
}
