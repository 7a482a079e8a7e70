package resilient

import (
	"context"
	"errors"
	"io"

	"github.com/thanos-io/objstore"
)

// held is a body whose request lives until it is closed.
type held struct {
	io.ReadCloser
	release context.CancelFunc
}

// Close implements io.Closer.
func (h *held) Close() error {
	err := h.ReadCloser.Close()
	h.release()
	return err
}

// ObjectSize implements objstore.ObjectSizer.
func (h *held) ObjectSize() (int64, error) { return objstore.TryToGetSize(h.ReadCloser) }

// body is what comes of an object. When it breaks off it is read on by another request, if there may be one.
type body struct {
	io.ReadCloser
	bucket *Bucket
	ctx    context.Context
	op     string
	again  func(at int64) (io.ReadCloser, error) // io.EOF: nothing is missing

	size    int64 // as the first body tells it
	sizeErr error
	at      int64
	resumed int
}

func (b *Bucket) body(ctx context.Context, op string, r io.ReadCloser, again func(at int64) (io.ReadCloser, error)) *body {
	size, err := objstore.TryToGetSize(r)
	return &body{ReadCloser: r, bucket: b, ctx: ctx, op: op, again: again, size: size, sizeErr: err}
}

// Read implements io.Reader.
func (r *body) Read(p []byte) (int, error) {
	for {
		n, err := r.ReadCloser.Read(p)
		r.at += int64(n)
		if err != nil && !errors.Is(err, io.EOF) {
			err = r.resume(err)
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// resume has the rest come by another request, or returns how the body ends.
func (r *body) resume(cause error) error {
	if r.resumed >= retriesMax || !r.bucket.mayRetry(r.ctx, r.op, cause) {
		return cause
	}
	next, err := r.again(r.at)
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	if err != nil {
		return cause
	}
	r.resumed++
	r.bucket.metrics.resumed.WithLabelValues(r.op).Inc()
	_ = r.Close() // it is broken
	r.ReadCloser = next
	return nil
}

// ObjectSize implements objstore.ObjectSizer.
func (r *body) ObjectSize() (int64, error) { return r.size, r.sizeErr }
