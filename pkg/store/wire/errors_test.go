package wire

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/koios-metrics/koios/pkg/store"
)

// Each error of a Store gets its code and keeps its text; the outermost statement about it wins.
func TestStatus(t *testing.T) {
	f := func(err error, want codes.Code) {
		t.Helper()
		got := status.Convert(Status(err))
		if got.Code() != want {
			t.Errorf("%v: code %v, want %v", err, got.Code(), want)
		}
	}
	boom := errors.New("boom")
	limited := status.Error(codes.ResourceExhausted, "too much")
	f(nil, codes.OK)
	f(boom, codes.Internal)
	f(store.Errorf(store.KindInternal, "x: %w", boom), codes.Internal)
	f(store.Errorf(store.KindBadRequest, "x"), codes.InvalidArgument)
	f(store.Errorf(store.KindLimit, "x"), codes.ResourceExhausted)
	f(store.Errorf(store.KindUnavailable, "x: %w", context.DeadlineExceeded), codes.Unavailable)
	f(fmt.Errorf("y: %w", store.Errorf(store.KindAborted, "x: %w", limited)), codes.Aborted)
	f(fmt.Errorf("y: %w", context.Canceled), codes.Canceled)
	f(context.DeadlineExceeded, codes.DeadlineExceeded)
	f(fmt.Errorf("y: %w", limited), codes.ResourceExhausted)
	f(limited, codes.ResourceExhausted)

	text := func(err error, want string) {
		t.Helper()
		if got := status.Convert(Status(err)).Message(); got != want {
			t.Errorf("text %q, want %q", got, want)
		}
	}
	text(limited, "too much")
	text(fmt.Errorf("y: %w", limited), "y: rpc error: code = ResourceExhausted desc = too much")
	text(errors.New("no\xffUTF-8"), "no\uFFFDUTF-8")
}

// What a code means to a caller, and that a kind is the same after a trip over the wire.
func TestKindOf(t *testing.T) {
	for _, k := range []store.Kind{store.KindInternal, store.KindBadRequest, store.KindLimit, store.KindUnavailable, store.KindAborted} {
		if got := KindOf(Status(store.Errorf(k, "x"))); got != k {
			t.Errorf("kind %v became %v", k, got)
		}
	}
	for c, want := range map[codes.Code]store.Kind{
		codes.Unknown: store.KindInternal, codes.Unimplemented: store.KindInternal, codes.Code(422): store.KindInternal,
		codes.Canceled: store.KindUnavailable, codes.DeadlineExceeded: store.KindUnavailable,
	} {
		if got := KindOf(status.Error(c, "x")); got != want {
			t.Errorf("%v: kind %v, want %v", c, got, want)
		}
	}
}
