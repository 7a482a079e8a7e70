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
	body, header, err := d.post(ctx, &q.call, form)
	if err != nil {
		return nil, err
	}
	a, err := matrix.Decode(body)
	if err != nil {
		return nil, fmt.Errorf("read the querier's answer: %w", err)
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

// post sends a form and returns the body of a success. The body belongs to the caller.
func (d *downstream) post(ctx context.Context, c *call, form url.Values) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.target(c.path).String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, nil, err
	}
	c.head(req.Header)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return d.send(req, c)
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
func (d *downstream) send(req *http.Request, c *call) ([]byte, http.Header, error) {
	leave, err := d.queue.enter(req.Context(), c.tenant)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	begin := time.Now()
	defer func() { c.stats.asked(time.Since(begin)) }()
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("ask the querier: %w", err)
	}
	body, err := d.read(resp)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, nil, fmt.Errorf("read the querier's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, nil, &statusError{code: resp.StatusCode, header: resp.Header, body: body}
	}
	return body, resp.Header, nil
}

var errTooLong = errors.New("answer is longer than the frontend takes")

func (d *downstream) read(resp *http.Response) ([]byte, error) {
	if resp.ContentLength > d.bytesMax {
		return nil, fmt.Errorf("%w: %d bytes, %d are allowed", errTooLong, resp.ContentLength, d.bytesMax)
	}
	var buf bytes.Buffer
	if resp.ContentLength > 0 {
		buf.Grow(int(resp.ContentLength) + bytes.MinRead)
	}
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, d.bytesMax+1))
	if n > d.bytesMax {
		return nil, fmt.Errorf("%w: %d bytes are allowed", errTooLong, d.bytesMax)
	}
	return buf.Bytes(), err
}
