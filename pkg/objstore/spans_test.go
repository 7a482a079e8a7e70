package objstore

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/thanos-io/objstore"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// Reads within a traced request make spans, others make none; both read.
func TestSpans(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	t.Cleanup(func() { otel.SetTracerProvider(before) })

	bkt := Instrument(objstore.NewInMemBucket(), nil)
	if err := bkt.Upload(t.Context(), "a", strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	traced, root := provider.Tracer("test").Start(t.Context(), "request")
	defer root.End()
	for _, b := range []objstore.BucketReader{bkt, bkt.ReaderWithExpectedErrs(bkt.IsObjNotFoundErr)} {
		for ctx, want := range map[context.Context]int{t.Context(): 0, traced: 2} {
			n := len(spans.Ended())
			whole, err := b.Get(ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			part, err := b.GetRange(ctx, "a", 3, 4)
			if err != nil {
				t.Fatal(err)
			}
			if err := whole.Close(); err != nil {
				t.Error(err)
			}
			if err := part.Close(); err != nil {
				t.Error(err)
			}
			var names []string
			for _, s := range spans.Ended()[n:] {
				names = append(names, s.Name())
			}
			if len(names) != want || slices.Contains(names, "") {
				t.Errorf("got spans %v, want %d", names, want)
			}
		}
	}
}
