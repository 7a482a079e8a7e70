package objstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"github.com/thanos-io/objstore"
)

const (
	// lockFilename is the file among the uploads that those who replace objects lock.
	lockFilename = "lock"
	// lockRetry is how often that is tried.
	lockRetry = 5 * time.Millisecond
)

// versionOf names content by its hash. Content that comes back is the same version again, which writers that tell
// themselves apart never see.
func versionOf(content []byte) Version {
	h := sha256.Sum256(content)
	return Version(hex.EncodeToString(h[:]))
}

// Create implements Conditional: a name is linked to the file only if it is free.
func (f *Filesystem) Create(ctx context.Context, name string, content []byte) (Version, error) {
	if err := checkConditionalSize(name, content); err != nil {
		return "", err
	}
	tmp, err := f.writeAside(ctx, name, bytes.NewReader(content))
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(tmp) }()
	err = place(tmp, filepath.Join(f.root, name), os.Link)
	switch {
	case errors.Is(err, os.ErrExist):
		return settle(ctx, f, name, content, fmt.Errorf("write object %s: %w", name, ErrExists))
	case err != nil:
		return "", fmt.Errorf("write object %s: %w", name, err)
	}
	return versionOf(content), nil
}

// Replace implements Conditional. Those who replace hold a lock on a file, which the processes of one machine mind, and
// those of several as far as the file system does.
func (f *Filesystem) Replace(ctx context.Context, name string, version Version, content []byte) (Version, error) {
	if err := checkConditionalSize(name, content); err != nil {
		return "", err
	}
	tmp, err := f.writeAside(ctx, name, bytes.NewReader(content))
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(tmp) }()
	lock := flock.New(filepath.Join(f.root, uploadsDirname, lockFilename))
	if _, err := lock.TryLockContext(ctx, lockRetry); err != nil {
		return "", fmt.Errorf("write object %s: take the lock of the bucket: %w", name, err)
	}
	defer func() { _ = lock.Unlock() }()
	switch _, got, err := f.Read(ctx, name); {
	case err != nil && !f.IsObjNotFoundErr(err):
		return "", err
	case err == nil && got == versionOf(content):
		return got, nil
	case err != nil || got != version:
		return "", fmt.Errorf("write object %s: %w", name, ErrChanged)
	}
	if err := place(tmp, filepath.Join(f.root, name), os.Rename); err != nil {
		return "", fmt.Errorf("write object %s: %w", name, err)
	}
	return versionOf(content), nil
}

// Read implements Conditional.
func (f *Filesystem) Read(ctx context.Context, name string) ([]byte, Version, error) {
	b, err := readAll(ctx, f, name)
	if err != nil {
		return nil, "", err
	}
	return b, versionOf(b), nil
}

// prefixedFilesystem is a file-system bucket below a prefix.
type prefixedFilesystem struct {
	objstore.Bucket
	files  *Filesystem
	prefix string
}

func (p *prefixedFilesystem) full(name string) string {
	if p.prefix == "" {
		return name
	}
	return p.prefix + objstore.DirDelim + name
}

// Create implements Conditional.
func (p *prefixedFilesystem) Create(ctx context.Context, name string, content []byte) (Version, error) {
	return p.files.Create(ctx, p.full(name), content)
}

// Replace implements Conditional.
func (p *prefixedFilesystem) Replace(ctx context.Context, name string, version Version, content []byte) (Version, error) {
	return p.files.Replace(ctx, p.full(name), version, content)
}

// Read implements Conditional.
func (p *prefixedFilesystem) Read(ctx context.Context, name string) ([]byte, Version, error) {
	return p.files.Read(ctx, p.full(name))
}
