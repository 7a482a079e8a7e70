package objstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/thanos-io/objstore"
)

var (
	// ErrExists is that of a Create whose object is there with other content.
	ErrExists = errors.New("object exists already")
	// ErrChanged is that of a Replace whose object is not, or not any more, of the version it names.
	ErrChanged = errors.New("object was changed or removed by somebody else")
	// ErrNotConditional tells that a bucket can't write on conditions.
	ErrNotConditional = errors.New("this object storage has no conditional writes here")
)

// ConditionalBytesMax is the largest object that can be written on a condition, in bytes: leases and the like.
const ConditionalBytesMax = 1 << 20

// Version names one content of an object. It is opaque.
type Version string

// Conditional writes objects on the condition of what is there, for leases. Its methods may be called in parallel, by
// any number of processes: of several that write on the same condition one wins. Content must tell writers apart (a
// random token is enough), because a write whose outcome is unknown, as after a broken connection, is looked at again
// and counts as done when the object holds just this content.
//
// A write is durable and seen by everybody when it returns without an error. After an error that is neither ErrExists
// nor ErrChanged it may or may not have been done. Objects that are written on conditions must not be written by
// Upload, and Delete minds no condition.
type Conditional interface {
	// Create writes an object that is not there; ErrExists if it is.
	Create(ctx context.Context, name string, content []byte) (Version, error)
	// Replace writes an object that is of a version still; ErrChanged if it is not, or is gone.
	Replace(ctx context.Context, name string, version Version, content []byte) (Version, error)
	// Read returns an object with its version. The bucket's IsObjNotFoundErr knows the error of one that is not there.
	Read(ctx context.Context, name string) ([]byte, Version, error)
}

// ConditionalOf returns what writes on conditions to a bucket: one that New or NewFilesystem made, or a wrapper that
// tells by a method Unwrap what it wraps. The error is ErrNotConditional where the provider has no such writes. That a
// server minds conditions is not known yet: see CheckConditional.
func ConditionalOf(bkt objstore.Bucket) (Conditional, error) {
	for b := bkt; ; {
		switch t := b.(type) {
		case interface{ Conditional() (Conditional, error) }:
			return t.Conditional()
		case Conditional:
			return t, nil
		case interface{ Unwrap() objstore.Bucket }:
			b = t.Unwrap()
			continue
		}
		return nil, fmt.Errorf("%w: provider %s", ErrNotConditional, bkt.Provider())
	}
}

// CheckConditional tells whether the server minds conditions: some that speak S3 pass over them, and two would win. It
// writes an object below dir and deletes it.
func CheckConditional(ctx context.Context, bkt objstore.Bucket, dir string) (err error) {
	c, err := ConditionalOf(bkt)
	if err != nil {
		return err
	}
	name := dir + objstore.DirDelim + "conditions-" + rand.Text()
	v, err := c.Create(ctx, name, []byte("first"))
	if err != nil {
		return fmt.Errorf("check conditional writes: create %s: %w", name, err)
	}
	defer func() {
		if derr := bkt.Delete(context.WithoutCancel(ctx), name); derr != nil && !bkt.IsObjNotFoundErr(derr) {
			err = errors.Join(err, fmt.Errorf("check conditional writes: delete %s: %w", name, derr))
		}
	}()
	if _, err := c.Create(ctx, name, []byte("second")); !errors.Is(err, ErrExists) {
		return errors.Join(fmt.Errorf("%w: an object was created twice", ErrNotConditional), err)
	}
	if _, err := c.Replace(ctx, name, v, []byte("third")); err != nil {
		return fmt.Errorf("check conditional writes: replace %s: %w", name, err)
	}
	if _, err := c.Replace(ctx, name, v, []byte("fourth")); !errors.Is(err, ErrChanged) {
		return errors.Join(fmt.Errorf("%w: an object was replaced in an old version", ErrNotConditional), err)
	}
	return nil
}

func checkConditionalSize(name string, content []byte) error {
	if len(content) > ConditionalBytesMax {
		return fmt.Errorf("write object %s on a condition: %d bytes are more than %d", name, len(content), ConditionalBytesMax)
	}
	return nil
}

// readAll reads a small object.
func readAll(ctx context.Context, bkt objstore.BucketReader, name string) ([]byte, error) {
	r, err := bkt.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, ConditionalBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", name, err)
	}
	if len(b) > ConditionalBytesMax {
		return nil, fmt.Errorf("read object %s: it has more than %d bytes", name, ConditionalBytesMax)
	}
	return b, nil
}

// settle decides about a write that did not end well by what is there now: nil if it is this content.
func settle(ctx context.Context, c Conditional, name string, content []byte, cause error) (Version, error) {
	got, v, err := c.Read(ctx, name)
	if err == nil && bytes.Equal(got, content) {
		return v, nil
	}
	return "", cause
}
