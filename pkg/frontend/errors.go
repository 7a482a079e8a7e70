package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/go-kit/log/level"

	"github.com/koios-metrics/koios/pkg/frontend/matrix"
)

// badRequestError is the client's to mend.
type badRequestError struct{ err error }

// Error implements error.
func (e *badRequestError) Error() string { return e.err.Error() }
func (e *badRequestError) Unwrap() error { return e.err }

// statusCanceled is the status of requests whose client has gone; nobody sees it but logs and metrics.
const statusCanceled = 499

// writeError answers with an error: a querier's as it is, our own in Prometheus's envelope.
func (f *Frontend) writeError(w http.ResponseWriter, err error) {
	var (
		status  *statusError
		failure *matrix.Failure
		bad     *badRequestError
		tooLong *http.MaxBytesError
		over    *overloadError
	)
	w.Header().Set("Cache-Control", "no-store")
	if errors.As(err, &status) {
		for _, name := range []string{"Content-Type", "Retry-After"} {
			if v := status.header.Get(name); v != "" {
				w.Header().Set(name, v)
			}
		}
		w.WriteHeader(status.code)
		_, _ = w.Write(status.body)
		return
	}
	// Of all statuses for trouble below, 503 is the one whose text Grafana shows.
	code, kind := http.StatusServiceUnavailable, "unavailable"
	switch {
	case errors.As(err, &failure):
		code, kind = http.StatusUnprocessableEntity, failure.Type
	case errors.As(err, &bad):
		code, kind = http.StatusBadRequest, "bad_data"
	case errors.As(err, &tooLong):
		code, kind = http.StatusRequestEntityTooLarge, "bad_data"
	case errors.As(err, &over):
		code, kind = http.StatusTooManyRequests, "unavailable"
		if over.everybody {
			code = http.StatusServiceUnavailable
		}
		w.Header().Set("Retry-After", "1")
	case errors.Is(err, context.Canceled):
		code, kind = statusCanceled, "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		code, kind = http.StatusGatewayTimeout, "timeout"
	default:
		level.Warn(f.logger).Log("msg", "request failed", "err", err)
	}
	body, _ := json.Marshal(map[string]string{"status": "error", "errorType": kind, "error": err.Error()}) // strings can always be encoded
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

func readCloser(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }
