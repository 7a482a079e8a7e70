package serve

import (
	"context"
	"net/http"

	"github.com/oklog/ulid/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

const (
	// RequestIDHeader names a request of HTTP, given by the client or made up here.
	RequestIDHeader = "X-Request-ID"
	// requestIDKey carries the name over gRPC, to the processes that are asked in turn.
	requestIDKey = "request-id"
)

type requestIDCtx struct{}

// RequestID returns the id of the request that ctx belongs to, "" if it has none.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDCtx{}).(string)
	return id
}

// setRequestID keeps id in the context and in the metadata of gRPC calls made with it.
func setRequestID(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(context.WithValue(ctx, requestIDCtx{}, id), requestIDKey, id)
}

// requestIDMax bounds the ids that are taken from clients, in bytes.
const requestIDMax = 256

// withRequestID gives each request an id and tells it in the answer.
func withRequestID(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(RequestIDHeader)
		if !printable(id) {
			id = ulid.Make().String()
			r.Header.Set(RequestIDHeader, id)
		}
		w.Header().Set(RequestIDHeader, id)
		h.ServeHTTP(w, r.WithContext(setRequestID(r.Context(), id)))
	})
}

// printable tells whether an id may travel as gRPC metadata: bytes outside would fail every call.
func printable(id string) bool {
	if id == "" || len(id) > requestIDMax {
		return false
	}
	for i := range len(id) {
		if id[i] < 0x20 || id[i] > 0x7e {
			return false
		}
	}
	return true
}

func grpcRequestID(ctx context.Context) context.Context {
	if ids := metadata.ValueFromIncomingContext(ctx, requestIDKey); len(ids) == 1 && printable(ids[0]) {
		return setRequestID(ctx, ids[0])
	}
	return ctx
}

func unaryRequestID(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
	return h(grpcRequestID(ctx), req)
}

func streamRequestID(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	ctx := grpcRequestID(ss.Context())
	if ctx == ss.Context() {
		return h(srv, ss)
	}
	return h(srv, &streamWithContext{ss, ctx})
}

type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *streamWithContext) Context() context.Context { return s.ctx }
