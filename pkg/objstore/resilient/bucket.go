// Package resilient keeps the faults and the late answers of object storage from those who read. A request that may be
// repeated is repeated after a pause; one that is later than most is asked a second time, and the first answer counts.
//
// Both are bounded for the bucket as a whole: retries to a share of the requests and a burst, second requests to a
// share. A storage that is down or overloaded is so asked little more than it would be without this package.
package resilient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
)

const (
	// A request is repeated so often at most, after pauses that double from the first to the last.
	retriesMax    = 3
	retryDelay    = 100 * time.Millisecond
	retryDelayMax = time.Second
	// Past this time the client below has tried long enough by itself.
	retryDurationMax = 10 * time.Second
	// Retries are one in so many requests at most, after a burst.
	retryPart  = 10
	retryBurst = 100
	// Second requests are one in so many requests at most.
	hedgePart  = 20
	hedgeBurst = 10
)

// Bucket is a bucket whose reads are repeated. Its methods may be called in parallel. Uploads and deletions go through
// as they are: nobody can tell whether one that failed was done.
//
// Objects that are read by ranges are taken for unchanging, as index and chunk files of blocks are: a body that breaks
// off is read on from there by another request.
type Bucket struct {
	objstore.InstrumentedBucket
	*shared
	// reader is what reads go to: it may take other errors for expected than the bucket does.
	reader objstore.BucketReader
}

// shared is what the views of one bucket have in common.
type shared struct {
	policy  retrypolicy.RetryPolicy[any]
	retries *allowance
	hedges  *allowance
	learned map[string]*usual // by operation
	metrics *metrics
	local   bool           // a file system: a second request would wait for the same disk
	running sync.WaitGroup // attempts, and what is left of them
}

// New makes a resilient bucket. Each attempt counts as a request in the metrics of bkt. Close closes bkt, after requests
// that nobody waits for any more have ended.
func New(bkt objstore.InstrumentedBucket, reg prometheus.Registerer) *Bucket {
	s := &shared{
		policy: retrypolicy.NewBuilder[any]().
			WithMaxRetries(retriesMax).
			WithMaxDuration(retryDurationMax).
			WithBackoff(retryDelay, retryDelayMax).
			WithJitterFactor(0.25).
			ReturnLastFailure().
			Build(),
		retries: newAllowance(retryPart, retryBurst, retryBurst),
		hedges:  newAllowance(hedgePart, hedgeBurst, 0),
		learned: map[string]*usual{},
		metrics: newMetrics(reg),
		local:   bkt.Provider() == objstore.FILESYSTEM,
	}
	for _, op := range hedged {
		s.learned[op] = newUsual()
	}
	return &Bucket{InstrumentedBucket: bkt, shared: s, reader: bkt}
}

// Unwrap returns the bucket below.
func (b *Bucket) Unwrap() objstore.Bucket { return b.InstrumentedBucket }

// Close implements objstore.Bucket.
func (b *Bucket) Close() error {
	b.running.Wait()
	return b.InstrumentedBucket.Close()
}

// WithExpectedErrs implements objstore.InstrumentedBucket.
func (b *Bucket) WithExpectedErrs(expected objstore.IsOpFailureExpectedFunc) objstore.Bucket {
	return &Bucket{InstrumentedBucket: b.InstrumentedBucket, shared: b.shared, reader: b.InstrumentedBucket.WithExpectedErrs(expected)}
}

// ReaderWithExpectedErrs implements objstore.InstrumentedBucket.
func (b *Bucket) ReaderWithExpectedErrs(expected objstore.IsOpFailureExpectedFunc) objstore.BucketReader {
	return b.WithExpectedErrs(expected)
}

// Usually returns what half of the reads of a range, or of objects while no ranges are read, take until the first byte;
// 0 as long as too little is known.
func (b *Bucket) Usually() time.Duration {
	for _, op := range []string{objstore.OpGetRange, objstore.OpGet} {
		if d, known := b.learned[op].half.Value(); known {
			return d
		}
	}
	return 0
}

// Exists implements objstore.BucketReader.
func (b *Bucket) Exists(ctx context.Context, name string) (there bool, err error) {
	err = b.retry(ctx, objstore.OpExists, func() error {
		there, err = ask(ctx, b, objstore.OpExists, func(ctx context.Context) (bool, error) { return b.reader.Exists(ctx, name) })
		return err
	})
	return there, err
}

// Attributes implements objstore.BucketReader.
func (b *Bucket) Attributes(ctx context.Context, name string) (attrs objstore.ObjectAttributes, err error) {
	err = b.retry(ctx, objstore.OpAttributes, func() error {
		attrs, err = ask(ctx, b, objstore.OpAttributes, func(ctx context.Context) (objstore.ObjectAttributes, error) {
			return b.reader.Attributes(ctx, name)
		})
		return err
	})
	return attrs, err
}

// Get implements objstore.BucketReader.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := b.get(ctx, name)
	if err != nil {
		return nil, err
	}
	// From the second byte on another request might read another version of the object.
	return b.body(ctx, objstore.OpGet, r, func(at int64) (io.ReadCloser, error) {
		if at > 0 {
			return nil, errNotAgain
		}
		return b.get(ctx, name)
	}), nil
}

func (b *Bucket) get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.open(ctx, objstore.OpGet, func(ctx context.Context) (io.ReadCloser, error) { return b.reader.Get(ctx, name) })
}

// GetRange implements objstore.BucketReader.
func (b *Bucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	r, err := b.getRange(ctx, name, off, length)
	if err != nil {
		return nil, err
	}
	return b.body(ctx, objstore.OpGetRange, r, func(at int64) (io.ReadCloser, error) {
		rest := length
		if length >= 0 {
			if rest -= at; rest <= 0 {
				return nil, io.EOF
			}
		}
		return b.getRange(ctx, name, off+at, rest)
	}), nil
}

func (b *Bucket) getRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return b.open(ctx, objstore.OpGetRange, func(ctx context.Context) (io.ReadCloser, error) {
		return b.reader.GetRange(ctx, name, off, length)
	})
}

func (b *Bucket) open(ctx context.Context, op string, do func(context.Context) (io.ReadCloser, error)) (r io.ReadCloser, err error) {
	err = b.retry(ctx, op, func() error {
		if b.local {
			r, err = do(ctx)
			return err
		}
		var release context.CancelFunc
		r, release, err = hedge(ctx, b, op, func(r io.ReadCloser) { _ = r.Close() }, do)
		if err == nil {
			r = &held{r, release}
		}
		return err
	})
	return r, err
}

// ask is a hedge for what is answered when the call returns.
func ask[R any](ctx context.Context, b *Bucket, op string, do func(context.Context) (R, error)) (R, error) {
	if b.local {
		return do(ctx)
	}
	value, release, err := hedge(ctx, b, op, nil, do)
	if err == nil {
		release()
	}
	return value, err
}

// Iter implements objstore.BucketReader.
func (b *Bucket) Iter(ctx context.Context, dir string, fn func(string) error, opts ...objstore.IterOption) error {
	return iter(ctx, b, func(each func(string) error) error { return b.reader.Iter(ctx, dir, each, opts...) }, func(name string) string { return name }, fn)
}

// IterWithAttributes implements objstore.BucketReader.
func (b *Bucket) IterWithAttributes(ctx context.Context, dir string, fn func(objstore.IterObjectAttributes) error, opts ...objstore.IterOption) error {
	return iter(ctx, b, func(each func(objstore.IterObjectAttributes) error) error {
		return b.reader.IterWithAttributes(ctx, dir, each, opts...)
	}, func(a objstore.IterObjectAttributes) string { return a.Name }, fn)
}

// iter lists. A listing that broke off begins anew, without the entries that were handed out.
func iter[E any](ctx context.Context, b *Bucket, list func(each func(E) error) error, name func(E) string, fn func(E) error) error {
	given := map[string]bool{}
	var own error // that of fn
	err := b.retry(ctx, objstore.OpIter, func() error {
		err := list(func(e E) error {
			if given[name(e)] {
				return nil
			}
			given[name(e)] = true
			own = fn(e)
			return own
		})
		if own != nil {
			return errFinal{err}
		}
		return err
	})
	var final errFinal
	if errors.As(err, &final) {
		return final.error
	}
	return err
}

// errFinal is an error that no retry changes.
type errFinal struct{ error }

// errNotAgain tells that a body can't be read on.
var errNotAgain = errors.New("the body can't be read on")

// retry does something until it ends well, or with an error that another attempt would end with too.
func (b *Bucket) retry(ctx context.Context, op string, do func() error) error {
	b.retries.earn()
	err := do()
	if err == nil || !b.mayRetry(ctx, op, err) {
		return err
	}
	// The first attempt is over; the executor begins with the pause after it.
	first, last := true, err
	_ = failsafe.With[any](b.policy).WithContext(ctx).RunWithExecution(func(exec failsafe.Execution[any]) error {
		if first {
			first = false
			return last
		}
		b.metrics.retries.WithLabelValues(op).Inc()
		last = do()
		if last == nil || exec.Retries() >= retriesMax || !b.mayRetry(ctx, op, last) {
			return nil
		}
		return last
	})
	return last
}

// mayRetry tells whether another attempt makes sense and is allowed.
func (b *Bucket) mayRetry(ctx context.Context, op string, err error) bool {
	if ctx.Err() != nil || b.permanent(err) {
		return false
	}
	if !b.retries.take() {
		b.metrics.retriesWithheld.WithLabelValues(op).Inc()
		return false
	}
	return true
}

// permanent tells whether an error is an answer, and not the lack of one.
func (b *Bucket) permanent(err error) bool {
	var final errFinal
	if errors.As(err, &final) || errors.Is(err, objstore.ErrOptionNotSupported) ||
		b.IsObjNotFoundErr(err) || b.IsAccessDeniedErr(err) {
		return true
	}
	var s3 minio.ErrorResponse
	if !errors.As(err, &s3) {
		return false
	}
	return s3.StatusCode >= 400 && s3.StatusCode < 500 && s3.StatusCode != http.StatusRequestTimeout && s3.StatusCode != http.StatusTooManyRequests
}
