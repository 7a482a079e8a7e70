package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/filesystem"
	"go.yaml.in/yaml/v2"
)

const (
	// uploadsDirname is where files of a file-system bucket are written before they take their place. It is on the
	// same file system, so that moving them is one step, and its name is no block, so that nobody reads it.
	uploadsDirname = ".uploads"
	// What lies there for this long was left by a process that died.
	uploadAgeMax = 24 * time.Hour
)

// Filesystem is a bucket in a local directory. An upload is on disk when it returns, and seen whole or not at all: the
// provider it builds on writes in place, so that a crash would leave half a meta.json and with it a block nobody can
// read or upload again.
type Filesystem struct {
	*filesystem.Bucket
	root string
}

func openFilesystem(c Config) (*Filesystem, error) {
	var keys struct {
		Directory string `yaml:"directory"`
	}
	b, err := yaml.Marshal(c.Provider)
	if err == nil {
		err = yaml.Unmarshal(b, &keys)
	}
	if err != nil {
		return nil, fmt.Errorf("object storage config of type FILESYSTEM: %w", err)
	}
	if keys.Directory == "" {
		return nil, errors.New("object storage config of type FILESYSTEM: set config.directory to the directory of the bucket")
	}
	return NewFilesystem(keys.Directory)
}

// NewFilesystem makes a bucket of a directory, which need not exist yet.
func NewFilesystem(dir string) (*Filesystem, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if st, err := os.Stat(root); err == nil && !st.IsDir() {
		return nil, fmt.Errorf("object storage directory %s is no directory", root)
	}
	bkt, err := filesystem.NewBucket(root)
	if err != nil {
		return nil, err
	}
	f := &Filesystem{Bucket: bkt, root: root}
	f.cleanUploads()
	return f, nil
}

// cleanUploads removes what dead processes left. It is a courtesy: leftovers harm nobody, so errors are passed over.
func (f *Filesystem) cleanUploads() {
	dir := filepath.Join(f.root, uploadsDirname)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() == lockFilename {
			continue // removed while it is held, it would be held twice
		}
		if st, err := e.Info(); err == nil && time.Since(st.ModTime()) > uploadAgeMax {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// Upload implements objstore.Bucket.
func (f *Filesystem) Upload(ctx context.Context, name string, r io.Reader, _ ...objstore.ObjectUploadOption) error {
	tmp, err := f.writeAside(ctx, name, r)
	if err != nil {
		return err
	}
	if err := place(tmp, filepath.Join(f.root, name), os.Rename); err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write object %s: %w", name, err)
	}
	return nil
}

// writeAside writes what is to become an object to a file of its own, and returns its path. It is on disk then.
func (f *Filesystem) writeAside(ctx context.Context, name string, r io.Reader) (file string, err error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("object name %q leads out of the bucket", name)
	}
	dir := filepath.Join(f.root, uploadsDirname)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	tmp, err := os.CreateTemp(dir, "upload-")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(tmp, contextReader{ctx, r})
	// Files made by CreateTemp are the owner's only; buckets are shared between users.
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err != nil {
		_ = os.Remove(tmp.Name())
		return "", fmt.Errorf("write object %s: %w", name, err)
	}
	return tmp.Name(), nil
}

// place moves or links a file to its place. A deletion of the last object beside it takes the directory away, so that
// making it is tried again.
func place(tmp, file string, put func(from, to string) error) (err error) {
	for range 5 {
		if err = os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			continue
		}
		if err = put(tmp, file); err == nil || !os.IsNotExist(err) {
			break
		}
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(b)
}

// GetRange implements objstore.BucketReader. It costs an open, a look at the size, a read and a close, for a store makes very
// many of them.
func (f *Filesystem) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if name == "" || off < 0 || length < -1 {
		return f.Bucket.GetRange(ctx, name, off, length)
	}
	file, err := os.Open(filepath.Join(f.root, name))
	if err != nil {
		return nil, err // not wrapped: IsObjNotFoundErr looks at it as it is
	}
	st, err := file.Stat()
	if err == nil && st.IsDir() {
		err = errors.New("it is a directory")
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("read object %s: %w", name, err)
	}
	rest := max(st.Size()-off, 0)
	if length >= 0 {
		rest = min(rest, length)
	}
	return &part{*io.NewSectionReader(file, off, rest), file}, nil
}

// part is a range of a file.
type part struct {
	io.SectionReader
	file *os.File
}

// ObjectSize implements objstore.ObjectSizer.
func (p *part) ObjectSize() (int64, error) { return p.Size(), nil }

// Close implements io.Closer.
func (p *part) Close() error { return p.file.Close() }

// Iter implements objstore.Bucket; it passes over uploads under way.
func (f *Filesystem) Iter(ctx context.Context, dir string, fn func(string) error, opts ...objstore.IterOption) error {
	return f.Bucket.Iter(ctx, dir, func(name string) error {
		if isUpload(name) {
			return nil
		}
		return fn(name)
	}, opts...)
}

// IterWithAttributes implements objstore.Bucket; it passes over uploads under way.
func (f *Filesystem) IterWithAttributes(ctx context.Context, dir string, fn func(objstore.IterObjectAttributes) error, opts ...objstore.IterOption) error {
	return f.Bucket.IterWithAttributes(ctx, dir, func(attrs objstore.IterObjectAttributes) error {
		if isUpload(attrs.Name) {
			return nil
		}
		return fn(attrs)
	}, opts...)
}

func isUpload(name string) bool {
	return name == uploadsDirname+objstore.DirDelim || strings.HasPrefix(name, uploadsDirname+objstore.DirDelim)
}
