package block

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"
)

// Download copies a block from a bucket into a local directory: meta.json first, then everything else but marks,
// concurrency files at a time. A local file whose checksum is the one in meta.json is not fetched again. Every file
// is written beside its place and moved there, so that a file that exists is whole.
func Download(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, dir string, concurrency int) (*Meta, error) {
	if err := os.MkdirAll(filepath.Join(dir, ChunksDirname), 0o777); err != nil {
		return nil, err
	}
	if err := downloadFile(ctx, bkt, id, dir, MetaFilename); err != nil {
		return nil, err
	}
	meta, err := ReadMetaDir(dir)
	if err != nil {
		return nil, err
	}
	hashes := make(map[string]*Hash, len(meta.Thanos.Files))
	for _, f := range meta.Thanos.Files {
		hashes[f.RelPath] = f.Hash
	}

	var paths []string
	err = bkt.Iter(ctx, id.String()+objstore.DirDelim, func(name string) error {
		relPath := strings.TrimPrefix(name, id.String()+objstore.DirDelim)
		if relPath == IndexFilename || strings.HasPrefix(relPath, ChunksDirname+"/") && !strings.HasSuffix(relPath, "/") {
			paths = append(paths, relPath)
		}
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return nil, fmt.Errorf("list objects of block %s: %w", id, err)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(concurrency, 1))
	for _, relPath := range paths {
		if !filepath.IsLocal(relPath) {
			return nil, fmt.Errorf("object %s would leave the directory of its block", Object(id, relPath))
		}
		g.Go(func() error {
			if hashes[relPath].matches(filepath.Join(dir, relPath)) {
				return nil
			}
			return downloadFile(gctx, bkt, id, dir, relPath)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return meta, nil
}

func downloadFile(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, dir, relPath string) error {
	name := Object(id, relPath)
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("get %s: %w", name, err)
	}
	defer r.Close()
	path := filepath.Join(dir, filepath.FromSlash(relPath))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	tmp := path + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("download %s: %w", name, err)
	}
	return nil
}
