package faulty

import (
	"context"
	"io"

	"github.com/thanos-io/objstore"
)

func (f Fault) cutErr() error {
	if f.CutErr != nil {
		return f.CutErr
	}
	return io.ErrUnexpectedEOF
}

// cutAt returns the error of a body or listing of which n parts were handed out.
func (f Fault) cutAt(n int64) error {
	if f.Cut != 0 && n >= max(f.Cut, 0) {
		return f.cutErr()
	}
	return nil
}

// body is what comes of an object.
type body struct {
	io.ReadCloser
	bucket *Bucket
	ctx    context.Context
	fault  Fault
	n      int64
	closed bool
}

// Read implements io.Reader.
func (r *body) Read(p []byte) (int, error) {
	if err := wait(r.ctx, r.fault.BodyLatency); err != nil {
		return 0, err
	}
	if err := r.fault.cutAt(r.n); err != nil {
		return 0, err
	}
	if r.fault.Cut > 0 {
		p = p[:min(int64(len(p)), r.fault.Cut-r.n)]
	}
	n, err := r.ReadCloser.Read(p)
	if at := r.fault.Flip - 1 - r.n; at >= 0 && at < int64(n) {
		p[at] ^= 0xff
	}
	r.n += int64(n)
	return n, err
}

// Close implements io.Closer.
func (r *body) Close() error {
	if !r.closed {
		r.closed = true
		r.bucket.mu.Lock()
		r.bucket.open--
		r.bucket.mu.Unlock()
	}
	return r.ReadCloser.Close()
}

// ObjectSize implements objstore.ObjectSizer: the size that is announced, whatever comes.
func (r *body) ObjectSize() (int64, error) { return objstore.TryToGetSize(r.ReadCloser) }
