package frontend

import (
	"fmt"
	"io"
	"net/http"
	"sync"
)

// InProcess reaches queriers that are in the same process: it hands requests to their handler, and answers are read
// while they are written. A request that has an answer holds a goroutine until the answer's body is closed.
type InProcess struct {
	Handler http.Handler
}

// RoundTrip implements http.RoundTripper.
func (t InProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	in := req.Clone(req.Context())
	in.RequestURI = in.URL.RequestURI()
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	r, w := io.Pipe()
	a := &pipedAnswer{header: http.Header{}, w: w, begun: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() { _ = in.Body.Close() }()
		defer func() {
			if p := recover(); p != nil {
				a.begin(http.StatusInternalServerError)
				_ = w.CloseWithError(fmt.Errorf("the answer was given up: %v", p))
			}
		}()
		t.Handler.ServeHTTP(a, in)
		a.begin(http.StatusOK)
		_ = w.Close()
	}()
	<-a.begun // the handler ends with the request's context
	return &http.Response{
		Status: http.StatusText(a.code), StatusCode: a.code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.sent, Body: &pipedBody{PipeReader: r, ended: ended}, ContentLength: -1, Request: req,
	}, nil
}

// pipedAnswer is the http.ResponseWriter of the handler.
type pipedAnswer struct {
	header http.Header
	w      *io.PipeWriter
	once   sync.Once
	code   int
	sent   http.Header // what header was when the answer began
	begun  chan struct{}
}

func (a *pipedAnswer) begin(code int) {
	a.once.Do(func() {
		a.code, a.sent = code, a.header.Clone()
		close(a.begun)
	})
}

// Header implements http.ResponseWriter.
func (a *pipedAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *pipedAnswer) WriteHeader(code int) {
	if code >= 200 { // what comes before is not the answer
		a.begin(code)
	}
}

// Write implements http.ResponseWriter.
func (a *pipedAnswer) Write(b []byte) (int, error) {
	a.begin(http.StatusOK)
	return a.w.Write(b)
}

// Flush implements http.Flusher: nothing is held back.
func (a *pipedAnswer) Flush() { a.begin(http.StatusOK) }

// pipedBody is the body of an answer. Close waits until the handler has ended.
type pipedBody struct {
	*io.PipeReader
	ended <-chan struct{}
}

// Close implements io.Closer.
func (b *pipedBody) Close() error {
	err := b.PipeReader.Close()
	<-b.ended
	return err
}
