// Package faulty is a bucket that fails as it is told to, for tests: late, refused, cut short, damaged, or done and
// reported as failed. It also remembers every request.
//
//	bkt := faulty.New(inner)
//	bkt.Plan(faulty.On(faulty.Nth(3, faulty.Fault{Err: faulty.ErrUnavailable, Done: true}), faulty.Upload))
package faulty

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/thanos-io/objstore"
)

// ErrUnavailable is what a server that is overloaded answers; nobody can tell from it whether anything was done.
var ErrUnavailable = errors.New("faulty: 503 Slow Down")

// Op is an operation of a bucket.
type Op string

// The operations.
const (
	Get        Op = "get"
	GetRange   Op = "get_range"
	Exists     Op = "exists"
	Attributes Op = "attributes"
	Iter       Op = "iter"
	Upload     Op = "upload"
	Delete     Op = "delete"
)

// Call is one request.
type Call struct {
	Op   Op
	Name string
	// Off and Length are those of a GetRange, in bytes.
	Off, Length int64
	// Number counts all requests from 1; OpNumber those of the same operation.
	Number, OpNumber int
}

// Fault says what happens to a request. The zero Fault is none.
type Fault struct {
	// Latency goes before everything else. It ends with the context.
	Latency time.Duration
	// Stall waits for the end of the context, and fails with its cause.
	Stall bool
	// Err is what the request fails with.
	Err error
	// Done does what was asked before Err is returned: reported as failed though stored, or though deleted.
	Done bool
	// Cut is the number of bytes of a body, or of entries of a listing, after which it breaks off with CutErr, if Cut
	// is not 0; negative is at once. A nil CutErr is io.ErrUnexpectedEOF, io.EOF is a body that is silently short.
	Cut    int64
	CutErr error
	// BodyLatency goes before each read of a body. It ends with the context of the request.
	BodyLatency time.Duration
	// Flip inverts the byte of a body at this place, counted from 1; 0 is none.
	Flip int64
}

// Plan decides on the fault of each request. It may be called in parallel.
type Plan func(Call) Fault

// Bucket is a bucket that fails as it is told to. Its methods may be called in parallel.
type Bucket struct {
	objstore.Bucket

	mu    sync.Mutex
	plan  Plan
	calls []Call
	ops   map[Op]int
	open  int
}

// New makes a bucket without faults.
func New(bkt objstore.Bucket) *Bucket { return &Bucket{Bucket: bkt, ops: map[Op]int{}} }

// Plan takes the place of the plan before; nil is no fault.
func (b *Bucket) Plan(p Plan) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plan = p
}

// Reset forgets all requests, so that counting begins anew; the plan stays.
func (b *Bucket) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = nil
	clear(b.ops)
}

// Calls returns all requests in the order in which they began.
func (b *Bucket) Calls() []Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]Call(nil), b.calls...)
}

// Count returns the number of requests of some operations, of all if none is named.
func (b *Bucket) Count(ops ...Op) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(ops) == 0 {
		return len(b.calls)
	}
	for _, op := range ops {
		n += b.ops[op]
	}
	return n
}

// OpenBodies returns the number of bodies that were handed out and not closed yet.
func (b *Bucket) OpenBodies() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// begin notes a request and suffers what comes before it. With an error the request is over; it was done if done.
func (b *Bucket) begin(ctx context.Context, c Call, do func() error) (f Fault, err error) {
	b.mu.Lock()
	b.ops[c.Op]++
	c.Number, c.OpNumber = len(b.calls)+1, b.ops[c.Op]
	b.calls = append(b.calls, c)
	plan := b.plan
	b.mu.Unlock()
	if plan != nil {
		f = plan(c)
	}
	if err := wait(ctx, f.Latency); err != nil {
		return f, err
	}
	if f.Stall {
		<-ctx.Done()
		return f, context.Cause(ctx)
	}
	if f.Err == nil {
		return f, nil
	}
	if f.Done && do != nil {
		if err := do(); err != nil {
			return f, err
		}
	}
	return f, f.Err
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Get implements objstore.BucketReader.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.read(ctx, Call{Op: Get, Name: name}, func() (io.ReadCloser, error) { return b.Bucket.Get(ctx, name) })
}

// GetRange implements objstore.BucketReader.
func (b *Bucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return b.read(ctx, Call{Op: GetRange, Name: name, Off: off, Length: length}, func() (io.ReadCloser, error) {
		return b.Bucket.GetRange(ctx, name, off, length)
	})
}

func (b *Bucket) read(ctx context.Context, c Call, open func() (io.ReadCloser, error)) (io.ReadCloser, error) {
	f, err := b.begin(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	r, err := open()
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.open++
	b.mu.Unlock()
	return &body{ReadCloser: r, bucket: b, ctx: ctx, fault: f}, nil
}

// Exists implements objstore.BucketReader.
func (b *Bucket) Exists(ctx context.Context, name string) (bool, error) {
	if _, err := b.begin(ctx, Call{Op: Exists, Name: name}, nil); err != nil {
		return false, err
	}
	return b.Bucket.Exists(ctx, name)
}

// Attributes implements objstore.BucketReader.
func (b *Bucket) Attributes(ctx context.Context, name string) (objstore.ObjectAttributes, error) {
	if _, err := b.begin(ctx, Call{Op: Attributes, Name: name}, nil); err != nil {
		return objstore.ObjectAttributes{}, err
	}
	return b.Bucket.Attributes(ctx, name)
}

// Iter implements objstore.BucketReader.
func (b *Bucket) Iter(ctx context.Context, dir string, fn func(string) error, opts ...objstore.IterOption) error {
	f, err := b.begin(ctx, Call{Op: Iter, Name: dir}, nil)
	if err != nil {
		return err
	}
	n := int64(0)
	return b.Bucket.Iter(ctx, dir, func(name string) error {
		if err := f.cutAt(n); err != nil {
			return err
		}
		n++
		return fn(name)
	}, opts...)
}

// IterWithAttributes implements objstore.BucketReader.
func (b *Bucket) IterWithAttributes(ctx context.Context, dir string, fn func(objstore.IterObjectAttributes) error, opts ...objstore.IterOption) error {
	f, err := b.begin(ctx, Call{Op: Iter, Name: dir}, nil)
	if err != nil {
		return err
	}
	n := int64(0)
	return b.Bucket.IterWithAttributes(ctx, dir, func(attrs objstore.IterObjectAttributes) error {
		if err := f.cutAt(n); err != nil {
			return err
		}
		n++
		return fn(attrs)
	}, opts...)
}

// Upload implements objstore.Bucket.
func (b *Bucket) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	do := func() error { return b.Bucket.Upload(ctx, name, r, opts...) }
	if _, err := b.begin(ctx, Call{Op: Upload, Name: name}, do); err != nil {
		return err
	}
	return do()
}

// Delete implements objstore.Bucket.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	do := func() error { return b.Bucket.Delete(ctx, name) }
	if _, err := b.begin(ctx, Call{Op: Delete, Name: name}, do); err != nil {
		return err
	}
	return do()
}

// Unwrap returns the bucket below.
func (b *Bucket) Unwrap() objstore.Bucket { return b.Bucket }
