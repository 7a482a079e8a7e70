package objstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/thanos-io/objstore"
)

// condition travels in the context of an upload or a read down to the round tripper, which is below everything that
// signs, counts and retries. It is how a header reaches a request of a client that has no option for it. The header is
// not among those that are signed, which servers don't ask for.
type condition struct {
	// header and value are sent with the request; empty in reads.
	header, value string

	mu     sync.Mutex
	sent   bool
	status int
	etag   string
}

type conditionKey struct{}

// conditionTripper puts conditions into requests and takes versions out of answers.
type conditionTripper struct{ http.RoundTripper }

func wrapConditions(rt http.RoundTripper) http.RoundTripper { return conditionTripper{rt} }

// RoundTrip implements http.RoundTripper.
func (t conditionTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	c, _ := r.Context().Value(conditionKey{}).(*condition)
	write := r.Method == http.MethodPut && r.URL.Query().Get("partNumber") == ""
	if c == nil || !write && r.Method != http.MethodGet {
		return t.RoundTripper.RoundTrip(r)
	}
	if write && c.header != "" {
		r = r.Clone(r.Context())
		r.Header.Set(c.header, c.value)
	}
	resp, err := t.RoundTripper.RoundTrip(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = c.sent || write
	c.status, c.etag = 0, ""
	if err == nil {
		c.status, c.etag = resp.StatusCode, resp.Header.Get("ETag")
	}
	return resp, err
}

// CloseIdleConnections lets the transport below be closed.
func (t conditionTripper) CloseIdleConnections() {
	if c, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// s3Conditional writes with If-None-Match and If-Match; versions are ETags.
type s3Conditional struct {
	// bkt is the bucket with all that is around the client, so that these requests are counted like others.
	bkt objstore.Bucket
}

// conditionRefused tells whether the server minded the condition and refused.
func conditionRefused(c *condition) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	// 409 is a write at the same time; 404 is what If-Match gets of an object that is not there.
	return c.status == http.StatusPreconditionFailed || c.status == http.StatusConflict || c.status == http.StatusNotFound
}

// Create implements Conditional.
func (s s3Conditional) Create(ctx context.Context, name string, content []byte) (Version, error) {
	return s.put(ctx, name, &condition{header: "If-None-Match", value: "*"}, content, ErrExists)
}

// Replace implements Conditional.
func (s s3Conditional) Replace(ctx context.Context, name string, version Version, content []byte) (Version, error) {
	if version == "" {
		return "", fmt.Errorf("replace object %s: no version given", name)
	}
	return s.put(ctx, name, &condition{header: "If-Match", value: string(version)}, content, ErrChanged)
}

func (s s3Conditional) put(ctx context.Context, name string, c *condition, content []byte, refused error) (Version, error) {
	if err := checkConditionalSize(name, content); err != nil {
		return "", err
	}
	err := s.bucket(c).Upload(context.WithValue(ctx, conditionKey{}, c), name, bytes.NewReader(content))
	switch {
	case err != nil && conditionRefused(c):
		err = fmt.Errorf("write object %s: %w", name, refused)
		// The client may have sent the request more than once, and been refused for what it wrote itself.
		return settle(ctx, s, name, content, err)
	case err != nil:
		return settle(ctx, s, name, content, fmt.Errorf("write object %s: %w", name, err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.sent {
		return "", fmt.Errorf("write object %s: %w: the condition was not sent", name, ErrNotConditional)
	}
	if c.etag == "" {
		return "", fmt.Errorf("write object %s: %w: the server names no version", name, ErrNotConditional)
	}
	return Version(c.etag), nil
}

// bucket is the bucket whose failure metrics know that being refused is no failure.
func (s s3Conditional) bucket(c *condition) objstore.Bucket {
	if i, ok := s.bkt.(objstore.InstrumentedBucket); ok {
		return i.WithExpectedErrs(func(err error) bool { return err != nil && conditionRefused(c) })
	}
	return s.bkt
}

// Read implements Conditional.
func (s s3Conditional) Read(ctx context.Context, name string) ([]byte, Version, error) {
	c := &condition{}
	bkt := objstore.BucketReader(s.bkt)
	if i, ok := s.bkt.(objstore.InstrumentedBucket); ok {
		bkt = i.ReaderWithExpectedErrs(s.bkt.IsObjNotFoundErr)
	}
	b, err := readAll(context.WithValue(ctx, conditionKey{}, c), bkt, name)
	if err != nil {
		return nil, "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.etag == "" {
		return nil, "", errors.Join(ErrNotConditional, fmt.Errorf("read object %s: the server names no version", name))
	}
	return b, Version(c.etag), nil
}
