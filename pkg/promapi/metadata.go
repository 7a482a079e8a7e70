package promapi

import (
	"context"
	"net/url"
	"strconv"
)

// Metadata is what a target says about a metric.
type Metadata struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

// Metadata returns what targets say about one metric, or about all if metric is empty, for at most limit
// metrics; less than 0 is no limit.
func (c *Client) Metadata(ctx context.Context, metric string, limit int) (map[string][]Metadata, error) {
	params := url.Values{}
	if metric != "" {
		params.Set("metric", metric)
	}
	if limit >= 0 {
		params.Set("limit", strconv.Itoa(limit))
	}
	var md map[string][]Metadata
	_, err := c.get(ctx, call{what: "read metadata", path: "api/v1/metadata", params: params}, maxLargeBytes, &md)
	return md, err
}
