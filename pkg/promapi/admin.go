package promapi

import (
	"context"
	"net/http"
)

// Ready returns nil once Prometheus serves queries.
func (c *Client) Ready(ctx context.Context) error {
	return c.discard(ctx, call{what: "check readiness", path: "-/ready"})
}

// Reload makes Prometheus load its configuration again. Prometheus must run with --web.enable-lifecycle.
func (c *Client) Reload(ctx context.Context) error {
	return c.discard(ctx, call{what: "reload configuration", method: http.MethodPost, path: "-/reload"})
}

func (c *Client) discard(ctx context.Context, k call) error {
	resp, err := c.do(ctx, k)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
