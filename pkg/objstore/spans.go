package objstore

import (
	"context"
	"io"

	"github.com/thanos-io/objstore"
	tracing "github.com/thanos-io/objstore/tracing/opentelemetry"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
)

// spanned makes spans for reads within a request that is traced. Making and dropping them for all others costs more than
// a read from a warm disk.
type spanned struct {
	objstore.InstrumentedBucket // with spans
	plain                       objstore.InstrumentedBucket
}

func withSpans(bkt objstore.InstrumentedBucket) *spanned {
	return &spanned{tracing.WrapWithTraces(bkt, otel.Tracer("github.com/koios-metrics/koios/pkg/objstore")), bkt}
}

// Get implements objstore.BucketReader.
func (s *spanned) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return choose[objstore.BucketReader](ctx, s.InstrumentedBucket, s.plain).Get(ctx, name)
}

// GetRange implements objstore.BucketReader.
func (s *spanned) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return choose[objstore.BucketReader](ctx, s.InstrumentedBucket, s.plain).GetRange(ctx, name, off, length)
}

// WithExpectedErrs implements objstore.InstrumentedBucket.
func (s *spanned) WithExpectedErrs(expected objstore.IsOpFailureExpectedFunc) objstore.Bucket {
	return &expecting{s.InstrumentedBucket.WithExpectedErrs(expected), s.plain.WithExpectedErrs(expected)}
}

// ReaderWithExpectedErrs implements objstore.InstrumentedBucket.
func (s *spanned) ReaderWithExpectedErrs(expected objstore.IsOpFailureExpectedFunc) objstore.BucketReader {
	return s.WithExpectedErrs(expected)
}

// expecting is the same for a bucket that takes some errors for expected.
type expecting struct {
	objstore.Bucket // with spans
	plain           objstore.Bucket
}

// Get implements objstore.BucketReader.
func (e *expecting) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return choose(ctx, e.Bucket, e.plain).Get(ctx, name)
}

// GetRange implements objstore.BucketReader.
func (e *expecting) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return choose(ctx, e.Bucket, e.plain).GetRange(ctx, name, off, length)
}

func choose[T any](ctx context.Context, traced, plain T) T {
	if trace.SpanFromContext(ctx).IsRecording() {
		return traced
	}
	return plain
}
