package promapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/koios-metrics/koios/pkg/store"
)

// ErrNotFound is in the chain of an error when Prometheus answered 404: it is too old to have the
// endpoint, or the address leads elsewhere.
var ErrNotFound = errors.New("not found")

// StatusError is an answer that is not 2xx.
type StatusError struct {
	// Code is the HTTP status.
	Code int
	// Message is the "error" of a JSON answer, otherwise the first bytes of the body.
	Message string
}

// Error implements error.
func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("request failed with code %d %s", e.Code, http.StatusText(e.Code))
	}
	return fmt.Sprintf("request failed with code %d; msg %s", e.Code, e.Message)
}

// Is makes errors.Is(err, ErrNotFound) true of a 404.
func (e *StatusError) Is(target error) bool {
	return target == ErrNotFound && e.Code == http.StatusNotFound
}

func (c *Client) statusError(k call, resp *http.Response) error {
	// What can't be read is left out: the status says enough.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	e := &StatusError{Code: resp.StatusCode, Message: errorMessage(body)}
	return store.Errorf(kindOfStatus(e.Code), "%s of Prometheus %s: %w", k.what, c.URL(), e)
}

// kindOfStatus says what a caller can do about an HTTP status.
func kindOfStatus(code int) store.Kind {
	switch code {
	case http.StatusBadRequest:
		return store.KindBadRequest
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge:
		return store.KindLimit
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return store.KindUnavailable
	}
	return store.KindInternal
}

// errorMessage takes what a person wants to read from the body of a failed call.
func errorMessage(body []byte) string {
	var env struct {
		ErrorType string `json:"errorType"`
		Error     string `json:"error"`
	}
	if json.Unmarshal(body, &env) == nil && env.Error != "" {
		if env.ErrorType != "" {
			return env.ErrorType + ": " + env.Error
		}
		return env.Error
	}
	body = bytes.TrimSpace(body)
	if !utf8.Valid(body) {
		return fmt.Sprintf("%q", body[:min(len(body), 200)])
	}
	return strings.Join(strings.Fields(string(body)), " ")
}
