package promapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/koios-metrics/koios/pkg/store"
)

// ReadKind is the form of an answer to a remote read.
type ReadKind int

const (
	// ReadStreamed is a stream of frames, each a prompb.ChunkedReadResponse behind its length as a
	// varint and its checksum (CRC-32 Castagnoli, big-endian).
	ReadStreamed ReadKind = iota
	// ReadSampled is one prompb.ReadResponse in snappy's block format.
	ReadSampled
)

// ReadResponse is an answer to a remote read. The caller closes the body, which is not bounded.
type ReadResponse struct {
	Kind ReadKind
	Body io.ReadCloser
}

// Read sends a remote read and returns once the header of the answer is there. The context bounds the body,
// too.
func (c *Client) Read(ctx context.Context, req *prompb.ReadRequest) (*ReadResponse, error) {
	const what = "remote read"
	b, err := req.Marshal()
	if err != nil {
		return nil, store.Errorf(store.KindInternal, "%s of Prometheus %s: marshal request: %w", what, c.URL(), err)
	}
	resp, err := c.do(ctx, call{
		what:   what,
		method: http.MethodPost,
		path:   "api/v1/read",
		body:   bytes.NewReader(snappy.Encode(nil, b)),
		header: http.Header{
			"Content-Encoding":                 {"snappy"},
			"Content-Type":                     {"application/x-stream-protobuf"},
			"X-Prometheus-Remote-Read-Version": {"0.1.0"},
			// Set, so that net/http does not ask for gzip: chunks are compressed already.
			"Accept-Encoding": {"snappy"},
		},
	})
	if err != nil {
		return nil, err
	}
	kind, err := readKind(resp.Header.Get("Content-Type"), resp.Header.Get("Content-Encoding"))
	if err != nil {
		start, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		resp.Body.Close()
		return nil, store.Errorf(store.KindInternal, "%s of Prometheus %s: %w, starting with %q; check that this is the address of a Prometheus", what, c.URL(), err, start)
	}
	return &ReadResponse{Kind: kind, Body: resp.Body}, nil
}

func readKind(contentType, encoding string) (ReadKind, error) {
	// A type that can't be parsed is none of those below.
	media, params, _ := mime.ParseMediaType(contentType)
	switch media {
	case "application/x-streamed-protobuf":
		if p := params["proto"]; (p == "" || p == "prometheus.ChunkedReadResponse") && encoding == "" {
			return ReadStreamed, nil
		}
	case "application/x-protobuf":
		if encoding == "" || encoding == "snappy" {
			return ReadSampled, nil
		}
	}
	return 0, fmt.Errorf("an answer of content type %q and encoding %q", contentType, encoding)
}
