package block

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"
)

// UploadOptions tune Upload. The zero value uploads one file at a time, without checksums.
type UploadOptions struct {
	// Hash adds checksums to the list of files in meta.json.
	Hash HashFunc
	// Concurrency is the number of chunk files that are uploaded at a time; less than 1 is 1.
	Concurrency int
	// AllowNoLabels admits a block without external labels. Only plain Prometheus blocks have none.
	AllowNoLabels bool
	// Now gives the upload time; nil is time.Now.
	Now func() time.Time
}

// Upload copies the block in a local directory to a bucket: all chunk files, then the index, then meta.json, which
// makes it visible. The directory is named like the block and holds a meta.json with external labels; it is not
// changed. Returned is the metadata as it was uploaded, with the list of files and the upload time filled in.
//
// After an error nothing is rolled back. Uploading again completes the block.
func Upload(ctx context.Context, bkt objstore.Bucket, dir string, opts UploadOptions) (*Meta, error) {
	meta, err := ReadMetaDir(dir)
	if err != nil {
		return nil, err
	}
	id := meta.ULID
	if base := filepath.Base(dir); base != id.String() {
		return nil, fmt.Errorf("directory %s holds block %s: the names must be equal", dir, id)
	}
	if len(meta.Thanos.Labels) == 0 && !opts.AllowNoLabels {
		return nil, fmt.Errorf("block %s has no external labels: set external_labels, so that blocks of different origin can be told apart", id)
	}
	files, err := listFiles(dir, opts.Hash)
	if err != nil {
		return nil, fmt.Errorf("list files of block %s: %w", id, err)
	}

	meta.Thanos.Version = metaVersion
	meta.Thanos.Files = files
	meta.Thanos.SegmentFiles = nil
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(opts.Concurrency, 1))
	for _, f := range files {
		name, isChunk := strings.CutPrefix(f.RelPath, ChunksDirname+"/")
		if !isChunk {
			continue
		}
		meta.Thanos.SegmentFiles = append(meta.Thanos.SegmentFiles, name)
		g.Go(func() error { return uploadFile(gctx, bkt, dir, id, f.RelPath) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := uploadFile(ctx, bkt, dir, id, IndexFilename); err != nil {
		return nil, err
	}

	now := time.Now
	if opts.Now != nil {
		now = opts.Now
	}
	meta.Thanos.UploadTime = now().UTC()
	b, err := meta.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode meta.json of block %s: %w", id, err)
	}
	if err := bkt.Upload(ctx, Object(id, MetaFilename), bytes.NewReader(b)); err != nil {
		return nil, fmt.Errorf("upload %s: %w", Object(id, MetaFilename), err)
	}
	return meta, nil
}

// uploadFile uploads a file of a block.
func uploadFile(ctx context.Context, bkt objstore.Bucket, dir string, id ulid.ULID, relPath string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(relPath)))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := bkt.Upload(ctx, Object(id, relPath), f); err != nil {
		return fmt.Errorf("upload %s: %w", Object(id, relPath), err)
	}
	return nil
}

// listFiles lists what belongs to a block: the chunk files, the index and meta.json, sorted by path.
func listFiles(dir string, fn HashFunc) ([]File, error) {
	entries, err := os.ReadDir(filepath.Join(dir, ChunksDirname))
	if err != nil {
		return nil, err
	}
	var files []File
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		files = append(files, File{RelPath: ChunksDirname + "/" + e.Name()})
	}
	files = append(files, File{RelPath: IndexFilename})
	for i := range files {
		path := filepath.Join(dir, filepath.FromSlash(files[i].RelPath))
		st, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		files[i].SizeBytes = st.Size()
		if files[i].Hash, err = hashFile(path, fn); err != nil {
			return nil, err
		}
	}
	// meta.json can state neither its own size nor its own checksum.
	files = append(files, File{RelPath: MetaFilename})
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.RelPath, b.RelPath) })
	return files, nil
}

// Exists tells whether a block is in the bucket, whole: whether its meta.json is.
func Exists(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (bool, error) {
	ok, err := bkt.Exists(ctx, Object(id, MetaFilename))
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", Object(id, MetaFilename), err)
	}
	return ok, nil
}

// Delete removes a block: meta.json first, so that nobody starts to read it, then every other object, and the deletion
// mark last, so that a deletion that was interrupted can be told from an upload that was. A block that is not there, or
// only in parts, is no error.
func Delete(ctx context.Context, bkt objstore.Bucket, id ulid.ULID) error {
	metaName, markName := Object(id, MetaFilename), Object(id, DeletionMarkFilename)
	var others []string
	var hasMeta, hasMark bool
	err := bkt.Iter(ctx, id.String()+objstore.DirDelim, func(name string) error {
		switch {
		case name == metaName:
			hasMeta = true
		case name == markName:
			hasMark = true
		case !strings.HasSuffix(name, objstore.DirDelim):
			others = append(others, name)
		}
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return fmt.Errorf("list objects of block %s: %w", id, err)
	}
	// A stale listing may miss a meta.json that readers see.
	if !hasMeta {
		if hasMeta, err = Exists(ctx, bkt, id); err != nil {
			return err
		}
	}
	if hasMeta {
		if err := deleteObject(ctx, bkt, metaName); err != nil {
			return err
		}
	}
	for _, name := range others {
		if err := deleteObject(ctx, bkt, name); err != nil {
			return err
		}
	}
	if hasMark {
		if err := deleteObject(ctx, bkt, markName); err != nil {
			return err
		}
	}
	// Some tools leave an empty object per directory. Where there is none, deleting it may fail.
	for _, name := range []string{Object(id, ChunksDirname, ""), Object(id, "")} {
		if ok, err := bkt.Exists(ctx, name); err == nil && ok {
			_ = bkt.Delete(ctx, name)
		}
	}
	return nil
}

// deleteObject deletes an object; one that is gone already is no error.
func deleteObject(ctx context.Context, bkt objstore.Bucket, name string) error {
	if err := bkt.Delete(ctx, name); err != nil && !bkt.IsObjNotFoundErr(err) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

// ErrPartial says that a block has no meta.json, so that it is not, or not yet, or no longer, a block.
var ErrPartial = errors.New("no meta.json")

// IsRemains tells whether metadata that can't be used for this reason may be what an upload or a deletion left that
// never ended: there is none, or it is cut off. Any other, of an unknown version for example, is somebody's block.
func IsRemains(cause error) bool {
	return errors.Is(cause, ErrPartial) || errors.As(cause, new(*json.SyntaxError))
}
