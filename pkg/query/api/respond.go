package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/prometheus/promql"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/query"
	"github.com/koios-metrics/koios/pkg/store"
)

// answer is what a handler found. Data is for encoding/json, or a *query.Result's dataOf.
type answer struct {
	data any
	// warnings and infos are shown with the data; noStore says that some of the data may be missing, so
	// that nobody keeps the answer.
	warnings, infos []string
	noStore         bool
	// done, if not nil, is called when the answer has been sent.
	done func()
}

type handlerFunc func(*http.Request) (*answer, error)

// errorType is the kind of an error in the envelope.
type errorType string

const (
	errorBadData   errorType = "bad_data"
	errorExecution errorType = "execution"
	errorCanceled  errorType = "canceled"
	errorTimeout   errorType = "timeout"
	errorInternal  errorType = "internal"
)

func (t errorType) status() int {
	switch t {
	case errorBadData:
		return http.StatusBadRequest
	case errorExecution:
		return http.StatusUnprocessableEntity
	case errorCanceled, errorTimeout:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func typeOf(err error) errorType {
	var (
		canceled promql.ErrQueryCanceled
		timeout  promql.ErrQueryTimeout
		storage  promql.ErrStorage
		internal *internalError
	)
	switch {
	case errors.As(err, &canceled):
		return errorCanceled
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		return errorTimeout
	case errors.Is(err, context.Canceled):
		return errorCanceled
	case errors.As(err, &storage), errors.As(err, &internal):
		return errorInternal
	case store.KindOf(err) == store.KindBadRequest:
		return errorBadData
	}
	return errorExecution
}

// badRequest makes an error that is the client's to mend.
func badRequest(format string, args ...any) error {
	return store.Errorf(store.KindBadRequest, format, args...)
}

// respond runs a handler and writes its envelope.
func respond(w http.ResponseWriter, r *http.Request, f handlerFunc) {
	if err := r.ParseForm(); err != nil {
		writeError(w, badRequest("parse the request's form: %w", err))
		return
	}
	a, err := f(r)
	if err != nil {
		writeError(w, err)
		return
	}
	if a.done != nil {
		defer a.done()
	}
	if a.data == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if a.noStore {
		w.Header().Set("Cache-Control", "no-store")
	}
	e := newEncoder(w)
	defer e.release()
	e.raw(`{"status":"success","data":`)
	if d, ok := a.data.(*queryData); ok {
		w.Header().Set(promapi.FetchedSeriesHeader, strconv.FormatInt(d.result.Fetched.Series, 10))
		w.Header().Set(promapi.FetchedChunkBytesHeader, strconv.FormatInt(d.result.Fetched.Bytes, 10))
		e.queryData(d)
	} else if err := e.json(a.data); err != nil {
		// Nothing has been sent yet: the encoder sends only what was complete.
		e.buf = e.buf[:0]
		w.Header().Del("Cache-Control")
		writeError(w, fmt.Errorf("encode the answer: %w", err))
		return
	}
	e.texts(`,"warnings":`, a.warnings)
	e.texts(`,"infos":`, a.infos)
	e.raw("}\n")
	// A client that has gone needs no answer.
	_ = e.flush()
}

func writeError(w http.ResponseWriter, err error) {
	t := typeOf(err)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	// Strings can always be encoded.
	_ = enc.Encode(struct {
		Status    string    `json:"status"`
		ErrorType errorType `json:"errorType"`
		Error     string    `json:"error"`
	}{"error", t, err.Error()})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(t.status())
	_, _ = w.Write(b.Bytes())
}

// queryData is the data of query and query_range.
type queryData struct {
	result   *query.Result
	stats    any // nil: not asked for
	analysis any // never nil
}
