package frontend

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// request is what a client asks.
type request struct {
	path   string
	form   url.Values
	header http.Header
	// get puts the form into the URL, and mixed a part of it, as Grafana does with what its data source adds.
	get, mixed bool
}

// call asks a handler in this process. A connection that is cut in the middle of the answer has the code 0.
func call(ctx context.Context, t testing.TB, h http.Handler, q request) (code int, header http.Header, body []byte) {
	t.Helper()
	inURL, inBody := url.Values{}, q.form
	switch {
	case q.get:
		inURL, inBody = q.form, nil
	case q.mixed:
		inBody = url.Values{}
		for name, vs := range q.form {
			if name == "query" || name == "start" {
				inBody[name] = vs
			} else {
				inURL[name] = vs
			}
		}
	}
	method := http.MethodPost
	if q.get {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(context.WithValue(ctx, http.ServerContextKey, &http.Server{}), method, "http://here"+q.path+"?"+inURL.Encode(), strings.NewReader(inBody.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	for name, vs := range q.header {
		r.Header[http.CanonicalHeaderKey(name)] = vs
	}
	if !q.get {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	rec := serve(h, r)
	if rec.aborted {
		return 0, rec.sent, rec.body.Bytes()
	}
	return rec.code, rec.sent, rec.body.Bytes()
}

// recorder is an http.ResponseWriter that keeps what is written.
type recorder struct {
	header, sent http.Header
	code         int
	body         bytes.Buffer
	aborted      bool
}

// serve calls a handler as a server does.
func serve(h http.Handler, r *http.Request) (rec *recorder) {
	rec = &recorder{header: http.Header{}}
	r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), "127.0.0.1:1"
	defer func() {
		rec.WriteHeader(http.StatusOK)
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			rec.aborted = true
		default:
			panic(p)
		}
	}()
	h.ServeHTTP(rec, r)
	return rec
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) Flush()              {}

func (r *recorder) WriteHeader(code int) {
	if r.code == 0 && code >= 200 {
		r.code, r.sent = code, r.header.Clone()
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

// trouble is what may happen to a request on its way to the querier.
type trouble int

const (
	none    trouble = iota
	refused         // nobody listens
	failing         // a status from 500 on
	cut             // the connection ends in the middle of the answer
	half            // the answer ends in the middle, and nobody says so
	slow            // the answer takes seconds
	troubles
)

// direct is an http.RoundTripper that calls a handler in this process.
type direct struct {
	handler http.Handler

	// What happens to the next requests, in order: events change the world between two of them, while none is being
	// answered.
	mu             sync.Mutex
	plan           []trouble
	events         []func()
	asked, running int
}

// next takes what happens to a request.
func (d *direct) next() trouble {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.events) > 0 && d.asked > 0 && d.running == 0 {
		d.events[0]()
		d.events = d.events[1:]
	}
	d.asked++
	d.running++
	if len(d.plan) == 0 {
		return none
	}
	p := d.plan[0]
	d.plan = d.plan[1:]
	return p
}

func (d *direct) done() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running--
}

// set says what happens to the next requests.
func (d *direct) set(plan []trouble, events []func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plan, d.events, d.asked = slices.Clone(plan), events, 0
}

// left is how many of the troubles nobody met.
func (d *direct) left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.plan)
}

// RoundTrip implements http.RoundTripper.
func (d *direct) RoundTrip(req *http.Request) (*http.Response, error) {
	p := d.next()
	defer d.done()
	switch p {
	case refused:
		return nil, errors.New("connection refused")
	case slow:
		select {
		case <-time.After(7 * time.Second):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	in := req.Clone(req.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	if in.Host == "" {
		in.Host = in.URL.Host
	}
	rec := serve(d.handler, in)
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	resp := &http.Response{
		StatusCode: rec.code, Status: http.StatusText(rec.code), Header: rec.sent, Request: req, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		ContentLength: -1, Body: io.NopCloser(&rec.body),
	}
	switch p {
	case failing:
		resp.StatusCode = http.StatusInternalServerError + rec.body.Len()%4
		resp.Header = http.Header{"Content-Type": {"text/plain"}}
		resp.Body = io.NopCloser(strings.NewReader("something went wrong"))
	case cut:
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(rec.body.Bytes()[:rec.body.Len()/2]), brokenBody{}))
	case half:
		if rec.code == http.StatusOK { // half an error's text is one too
			resp.Body = io.NopCloser(bytes.NewReader(rec.body.Bytes()[:rec.body.Len()/2]))
		}
	}
	return resp, nil
}

// brokenBody is the rest of an answer whose connection has ended.
type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
