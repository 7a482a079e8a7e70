package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// recovered turns the panic of a handler into an answer of 500 and an error line with the stack. A panic
// that means "abort this response" goes on to the server.
func (s *HTTP) recovered(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			_ = level.Error(s.logger).Log("msg", "BUG: panic in a request", "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			// Has no effect on the status when the answer has begun.
			http.Error(w, "internal error: the log of the process says more", http.StatusInternalServerError)
		}()
		h.ServeHTTP(w, r)
	})
}

// grpcRecovery turns the panic of a gRPC method into an error of code Internal, counted and logged with
// the stack.
func grpcRecovery(logger log.Logger, reg prometheus.Registerer) recovery.Option {
	panics := promauto.With(reg).NewCounter(prometheus.CounterOpts{
		Name: "grpc_req_panics_recovered_total",
		Help: "Panics of gRPC methods that were turned into errors.",
	})
	return recovery.WithRecoveryHandlerContext(func(_ context.Context, p any) error {
		panics.Inc()
		_ = level.Error(logger).Log("msg", "BUG: panic in a request", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		return status.Errorf(codes.Internal, "panic: %v", p)
	})
}
