package frontend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/koios-metrics/koios/pkg/frontend/matrix"
	"github.com/koios-metrics/koios/pkg/tenancy"
)

// orgHeader carries the organisation that asks.
const orgHeader = "X-Scope-OrgID"

// requestIDHeader carries the name of a request.
const requestIDHeader = "X-Request-ID"

// statusError is an answer of the querier that is no success. It goes to the client as it is.
type statusError struct {
	code   int
	header http.Header
	body   []byte
}

// Error implements error.
func (e *statusError) Error() string {
	return fmt.Sprintf("the querier answered %d: %s", e.code, bytes.TrimSpace(e.body[:min(len(e.body), 500)]))
}

// downstream asks the querier.
type downstream struct {
	url    *url.URL
	client *http.Client
	// bytesMax bounds an answer; a longer one is an error.
	bytesMax int64
	queue    *queue
	metrics  *metrics
	// forceStats asks for the statistics of range queries also where the client does not.
	forceStats bool
}

// do implements rangeHandler.
func (d *downstream) do(ctx context.Context, q *rangeQuery) (*rangeAnswer, error) {
	form := q.values()
	forced := d.forceStats && !form.Has("stats")
	if forced {
		form.Set("stats", "all")
	}
	var a *matrix.Answer
	header, err := d.post(ctx, &q.call, form, func(r io.Reader, _ int64) (err error) {
		a, err = matrix.Read(r)
		return err
	})
	if err != nil {
		return nil, err
	}
	if q.stats.add(a.Stats); forced {
		a.Stats = nil
	}
	return &rangeAnswer{Answer: a, noStore: noStore(header) || missesData(a.Warnings) || missesData(a.Infos), header: header}, nil
}

// missesData tells whether a note is of something else than PromQL: of data that is missing, or that came from another
// replica than it usually does. (A querier forbids to keep the first kind of answer, but not everything between us and it
// keeps headers.)
func missesData(notes []string) bool {
	for _, w := range notes {
		if !strings.HasPrefix(w, "PromQL ") {
			return true
		}
	}
	return false
}

func noStore(h http.Header) bool {
	for _, v := range h.Values("Cache-Control") {
		if strings.Contains(strings.ToLower(v), "no-store") {
			return true
		}
	}
	return false
}

// target is where a request of a path goes.
func (d *downstream) target(requested string) *url.URL {
	u := *d.url
	u.Path = path.Join("/", d.url.Path, requested)
	u.RawPath, u.RawQuery = "", ""
	return &u
}

// reading takes what a querier answers with success, and its length or -1.
type reading func(body io.Reader, length int64) error

// post sends a form and has the body of a success read.
func (d *downstream) post(ctx context.Context, c *call, form url.Values, read reading) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.target(c.path).String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	c.head(req.Header)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return d.send(req, c, read)
}

// head sets the headers that go down with each request.
func (c *call) head(h http.Header) {
	for name, vs := range c.header {
		h[name] = vs
	}
	h.Set(tenancy.DefaultHeader, c.tenant)
	if c.org != "" {
		h.Set(orgHeader, c.org)
	}
	if c.requestID != "" {
		h.Set(requestIDHeader, c.requestID)
	}
}

// send asks the querier, once there is room.
func (d *downstream) send(req *http.Request, c *call, read reading) (http.Header, error) {
	leave, err := d.queue.enter(req.Context(), c.tenant)
	if err != nil {
		return nil, err
	}
	defer leave()
	begin := time.Now()
	defer func() { c.stats.asked(time.Since(begin)) }()
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the querier: %w", err)
	}
	body, ok := &limited{r: resp.Body, left: d.bytesMax}, resp.StatusCode/100 == 2
	var refusal []byte
	switch {
	case resp.ContentLength > d.bytesMax:
		err = fmt.Errorf("%w: %d bytes, %d are allowed", errTooLong, resp.ContentLength, d.bytesMax)
	case ok:
		err = read(body, resp.ContentLength)
	default:
		refusal, err = readAll(body, resp.ContentLength)
	}
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the querier's answer: %w", err)
	}
	if !ok {
		return nil, &statusError{code: resp.StatusCode, header: resp.Header, body: refusal}
	}
	d.metrics.fetched(resp.Header, c.org)
	return resp.Header, nil
}

// errTooLong tells of an answer that is past its bound.
var errTooLong = errors.New("answer is longer than the frontend takes")

// limited reads so many bytes; that there are more is an error.
type limited struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (l *limited) Read(b []byte) (int, error) {
	if int64(len(b)) > l.left+1 {
		b = b[:l.left+1]
	}
	n, err := l.r.Read(b)
	if l.left -= int64(n); l.left < 0 {
		return n, errTooLong
	}
	return n, err
}

// readAll reads a body into memory of its own.
func readAll(body io.Reader, length int64) ([]byte, error) {
	var buf bytes.Buffer
	if length > 0 {
		buf.Grow(int(length) + bytes.MinRead)
	}
	_, err := buf.ReadFrom(body)
	return buf.Bytes(), err
}

// into is a reading of a whole body.
func into(body *[]byte) reading {
	return func(r io.Reader, length int64) (err error) {
		*body, err = readAll(r, length)
		return err
	}
}
