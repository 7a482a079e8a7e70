package promapi

import (
	"context"
	"net/url"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Targets are the targets of scrapes.
type Targets struct {
	Active  []ActiveTarget  `json:"activeTargets"`
	Dropped []DroppedTarget `json:"droppedTargets"`
}

// ActiveTarget is a target that is scraped.
type ActiveTarget struct {
	DiscoveredLabels labels.Labels `json:"discoveredLabels"`
	Labels           labels.Labels `json:"labels"`
	ScrapePool       string        `json:"scrapePool"`
	ScrapeURL        string        `json:"scrapeUrl"`
	GlobalURL        string        `json:"globalUrl"`
	LastError        string        `json:"lastError"`
	LastScrape       time.Time     `json:"lastScrape"`
	// LastScrapeDuration is in seconds.
	LastScrapeDuration float64 `json:"lastScrapeDuration"`
	// Health is up, down or unknown.
	Health         string `json:"health"`
	ScrapeInterval string `json:"scrapeInterval"`
	ScrapeTimeout  string `json:"scrapeTimeout"`
}

// DroppedTarget is a target that relabelling has dropped.
type DroppedTarget struct {
	DiscoveredLabels labels.Labels `json:"discoveredLabels"`
	ScrapePool       string        `json:"scrapePool"`
}

// Targets returns the targets; state is "active", "dropped", "any" or empty for any.
func (c *Client) Targets(ctx context.Context, state string) (*Targets, error) {
	params := url.Values{}
	if state != "" {
		params.Set("state", state)
	}
	var ts Targets
	if _, err := c.get(ctx, call{what: "read targets", path: "api/v1/targets", params: params}, maxLargeBytes, &ts); err != nil {
		return nil, err
	}
	return &ts, nil
}
