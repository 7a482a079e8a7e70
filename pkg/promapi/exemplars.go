package promapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
)

// SeriesExemplars are the exemplars of one series.
type SeriesExemplars struct {
	SeriesLabels labels.Labels `json:"seriesLabels"`
	Exemplars    []Exemplar    `json:"exemplars"`
}

// Exemplar is one exemplar.
type Exemplar struct {
	Labels labels.Labels
	Value  float64
	// Timestamp is in ms.
	Timestamp int64
}

// UnmarshalJSON reads the value from a string, or a number as old versions write it, and the time from
// a number of seconds.
func (e *Exemplar) UnmarshalJSON(b []byte) error {
	var raw struct {
		Labels    labels.Labels   `json:"labels"`
		Value     json.RawMessage `json:"value"`
		Timestamp float64         `json:"timestamp"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	text := string(raw.Value)
	if len(text) > 1 && text[0] == '"' {
		text = text[1 : len(text)-1]
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return fmt.Errorf("value of exemplar: %w", err)
	}
	*e = Exemplar{Labels: raw.Labels, Value: v, Timestamp: millis(raw.Timestamp)}
	return nil
}

// Exemplars returns the exemplars of the series that the selectors in a PromQL expression select, between
// start and end in ms, both inclusive.
func (c *Client) Exemplars(ctx context.Context, query string, start, end int64) ([]SeriesExemplars, error) {
	params := url.Values{"query": {query}}
	setTimes(params, start, end)
	var data []SeriesExemplars
	_, err := c.get(ctx, call{what: "read exemplars", path: "api/v1/query_exemplars", params: params, post: true}, maxLargeBytes, &data)
	return data, err
}
