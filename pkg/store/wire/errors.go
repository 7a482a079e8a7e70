package wire

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/koios-metrics/koios/pkg/store"
)

// Status turns an error of a Store into one that gRPC sends: with the code of its kind, the code of the
// context error it wraps, or that of the status it wraps, in this order. Its text stays. Nil stays nil.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err // a status as it is; one that is wrapped keeps its code and gets the text of the wrapper
	}
	return status.Error(codeOf(err), strings.ToValidUTF8(err.Error(), "\uFFFD"))
}

func codeOf(err error) codes.Code {
	var e *store.Error
	if errors.As(err, &e) {
		switch e.Kind {
		case store.KindBadRequest:
			return codes.InvalidArgument
		case store.KindLimit:
			return codes.ResourceExhausted
		case store.KindUnavailable:
			return codes.Unavailable
		case store.KindAborted:
			return codes.Aborted
		}
		return codes.Internal
	}
	switch {
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.OK {
		return s.Code()
	}
	return codes.Internal
}

// KindOf returns the kind of an error that gRPC received. A peer that is late, gone or stopping is
// unavailable; a fault without a name is internal.
func KindOf(err error) store.Kind {
	switch status.Code(err) {
	case codes.InvalidArgument:
		return store.KindBadRequest
	case codes.ResourceExhausted:
		return store.KindLimit
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return store.KindUnavailable
	case codes.Aborted:
		return store.KindAborted
	}
	return store.KindInternal
}
