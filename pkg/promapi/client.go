// Package promapi is a client of the HTTP API of one Prometheus: its state, its metadata and its remote read.
//
// Every method may be called in parallel and takes the context that bounds the call. Errors carry a
// store.Kind; an answer that is not 2xx is a *StatusError in their chain. Every body has a maximum size,
// so that a Prometheus (or whatever answers in its place) can't fill our memory.
package promapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/koios-metrics/koios/pkg/store"
)

// Maximum sizes of bodies, in bytes.
const (
	// maxSmallBytes bounds answers that people or Prometheus's authors bound: versions and flags.
	maxSmallBytes = 4 << 20
	// maxLargeBytes bounds answers that grow with the configuration or with the variety of labels:
	// rules, targets, metadata, label values, exemplars, the configuration itself, the page of metrics.
	maxLargeBytes = 128 << 20
	// maxSeriesBytes bounds lists of series. They are decoded as they arrive, so this bounds the work
	// rather than the memory.
	maxSeriesBytes = 1 << 30
	// maxErrorBytes is how much of the body of a failed call is read for its message.
	maxErrorBytes = 4 << 10
	// maxGetBytes is the longest query string that is sent in an address; longer ones go into the
	// body of a POST where Prometheus allows it. Prometheus itself takes 1 MB, proxies often 4 or 8 kB.
	maxGetBytes = 2 << 10
)

// Client talks to one Prometheus.
type Client struct {
	base  *url.URL
	http  *http.Client
	agent string
}

// New makes a client of the Prometheus at base, whose path is kept as a prefix. The HTTP client is the
// caller's own; nil means http.DefaultClient. agent is the User-Agent of every call; empty means the
// one of net/http.
func New(base *url.URL, hc *http.Client, agent string) *Client {
	if hc == nil {
		hc = http.DefaultClient
	}
	u := *base
	return &Client{base: &u, http: hc, agent: agent}
}

// URL returns the address of the Prometheus, without user and password.
func (c *Client) URL() string {
	u := *c.base
	u.User = nil
	return u.String()
}

// call is one HTTP call.
type call struct {
	what   string // what is attempted, for errors: "read flags"
	method string // GET if empty
	path   string // below the base URL, escaped
	params url.Values
	body   io.Reader
	header http.Header
	// post allows to send long parameters in the body of a POST.
	post bool
}

// do sends a call and returns the answer if its status is 2xx. The caller closes the body.
func (c *Client) do(ctx context.Context, k call) (*http.Response, error) {
	req, err := c.request(ctx, k)
	if err != nil {
		return nil, store.Errorf(store.KindInternal, "%s of Prometheus %s: %w", k.what, c.URL(), err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.wrap(ctx, k.what, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, c.statusError(k, resp)
	}
	return resp, nil
}

func (c *Client) request(ctx context.Context, k call) (*http.Request, error) {
	u := c.base.JoinPath(strings.Split(strings.Trim(k.path, "/"), "/")...)
	body, header := k.body, k.header
	method := k.method
	if method == "" {
		method = http.MethodGet
	}
	q := k.params.Encode()
	if k.post && len(q) > maxGetBytes {
		method, body = http.MethodPost, strings.NewReader(q)
		header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	} else if q != "" {
		if u.RawQuery != "" {
			u.RawQuery += "&"
		}
		u.RawQuery += q
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	for name, vs := range header {
		req.Header[name] = vs
	}
	if c.agent != "" {
		req.Header.Set("User-Agent", c.agent)
	}
	return req, nil
}

// wrap names the call and the Prometheus in an error of the transport and says what to check.
func (c *Client) wrap(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		// The caller gave up: no fault of anyone.
		return fmt.Errorf("%s of Prometheus %s: %w", what, c.URL(), context.Cause(ctx))
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the address, which may be long and hold a password
	}
	return store.Errorf(store.KindUnavailable, "%s of Prometheus %s: %w; check that it runs and that this is its address", what, c.URL(), err)
}

// read sends a call and hands its body, cut at limit bytes, to decode.
func (c *Client) read(ctx context.Context, k call, limit int64, decode func(*http.Response, io.Reader) error) error {
	resp, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := &limitedReader{r: resp.Body, left: limit, limit: limit}
	if err := decode(resp, body); err != nil {
		switch {
		case body.over:
			return store.Errorf(store.KindLimit, "%s of Prometheus %s: the answer is longer than %d bytes", k.what, c.URL(), limit)
		case body.err != nil:
			return c.wrap(ctx, k.what, body.err)
		}
		return fmt.Errorf("%s of Prometheus %s: %w", k.what, c.URL(), err)
	}
	return nil
}

// limitedReader fails, rather than ends, past its limit, and remembers why reading failed.
type limitedReader struct {
	r           io.Reader
	left, limit int64
	over        bool
	err         error
}

func (l *limitedReader) Read(p []byte) (int, error) {
	// One byte more than allowed is asked for, to tell a body of exactly the limit from a longer one.
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		l.over = true
		return 0, fmt.Errorf("answer longer than %d bytes", l.limit)
	}
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}
