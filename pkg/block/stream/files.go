package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// Files gives access to the files of one block. It may be used from several goroutines.
type Files interface {
	// Open opens a file by its path below the block's directory, with slashes. If there is none, the error
	// wraps fs.ErrNotExist.
	Open(name string) (File, error)
}

// File is one file of a block, open for reading.
type File interface {
	io.ReaderAt
	io.Closer
	// Size is the length in bytes.
	Size() int64
}

// Dir gives access to a block in a local directory.
func Dir(path string) Files { return dir(path) }

type dir string

func (d dir) Open(name string) (File, error) {
	f, err := os.Open(filepath.Join(string(d), filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &localFile{File: f, size: st.Size()}, nil
}

type localFile struct {
	*os.File
	size int64
}

func (f *localFile) Size() int64 { return f.size }

// Bucket gives access to a block in a bucket by range reads, each of which is one request: the Reader's windows
// should be some MiB long. The context ends all reads.
func Bucket(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) Files {
	return &bucketFiles{ctx: ctx, bkt: bkt, id: id}
}

type bucketFiles struct {
	ctx context.Context
	bkt objstore.BucketReader
	id  ulid.ULID
}

func (b *bucketFiles) Open(name string) (File, error) {
	object := block.Object(b.id, name)
	attrs, err := b.bkt.Attributes(b.ctx, object)
	if err != nil {
		if b.bkt.IsObjNotFoundErr(err) {
			return nil, fmt.Errorf("object %s: %w", object, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("attributes of %s: %w", object, err)
	}
	return &bucketFile{bucketFiles: b, object: object, size: attrs.Size}, nil
}

type bucketFile struct {
	*bucketFiles
	object string
	size   int64
}

func (f *bucketFile) Size() int64  { return f.size }
func (f *bucketFile) Close() error { return nil }

// ReadAt reads a range of the object.
func (f *bucketFile) ReadAt(p []byte, off int64) (int, error) {
	rc, err := f.bkt.GetRange(f.ctx, f.object, off, int64(len(p)))
	if err != nil {
		return 0, fmt.Errorf("read %s from %d: %w", f.object, off, err)
	}
	n, err := io.ReadFull(rc, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, errors.Join(err, rc.Close())
}
