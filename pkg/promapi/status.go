package promapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"go.yaml.in/yaml/v2"
)

// Flags returns the command-line flags of Prometheus by name. The chain of the error has ErrNotFound when
// Prometheus does not tell them.
func (c *Client) Flags(ctx context.Context) (map[string]string, error) {
	var flags map[string]string
	_, err := c.get(ctx, call{what: "read flags", path: "api/v1/status/flags"}, maxSmallBytes, &flags)
	return flags, err
}

// BuildVersion returns the version of Prometheus, such as "3.9.1".
func (c *Client) BuildVersion(ctx context.Context) (string, error) {
	var info struct {
		Version string `json:"version"`
	}
	_, err := c.get(ctx, call{what: "read build info", path: "api/v1/status/buildinfo"}, maxSmallBytes, &info)
	return info.Version, err
}

// ExternalLabels returns global.external_labels of the configuration that Prometheus runs with.
func (c *Client) ExternalLabels(ctx context.Context) (labels.Labels, error) {
	var config struct {
		YAML string `json:"yaml"`
	}
	k := call{what: "read external labels", path: "api/v1/status/config"}
	if _, err := c.get(ctx, k, maxLargeBytes, &config); err != nil {
		return labels.EmptyLabels(), err
	}
	ls, err := externalLabels(config.YAML)
	if err != nil {
		return labels.EmptyLabels(), fmt.Errorf("%s of Prometheus %s: %w", k.what, c.URL(), err)
	}
	return ls, nil
}

func externalLabels(config string) (labels.Labels, error) {
	var parsed struct {
		Global struct {
			ExternalLabels map[string]string `yaml:"external_labels"`
		} `yaml:"global"`
	}
	if err := yaml.Unmarshal([]byte(config), &parsed); err != nil {
		return labels.EmptyLabels(), fmt.Errorf("parse configuration: %w", err)
	}
	b := labels.NewScratchBuilder(len(parsed.Global.ExternalLabels))
	for name, value := range parsed.Global.ExternalLabels {
		if name != "" && value != "" {
			b.Add(name, value)
		}
	}
	b.Sort()
	return b.Labels(), nil
}

// ErrNoLowestTimestamp answers LowestTimestamp when Prometheus does not export the metric.
var ErrNoLowestTimestamp = errors.New("no lowest timestamp: Prometheus does not export " + lowestTimestamp + "; it needs a local TSDB (no agent mode)")

const lowestTimestamp = "prometheus_tsdb_lowest_timestamp_seconds"

// LowestTimestamp returns the time in ms of the oldest sample that Prometheus holds. It is the gauge
// prometheus_tsdb_lowest_timestamp_seconds of Prometheus's own metrics, math.MaxInt64 while there is no
// sample at all.
func (c *Client) LowestTimestamp(ctx context.Context) (ms int64, err error) {
	k := call{what: "read lowest timestamp", path: "metrics", header: http.Header{"Accept": {"text/plain;version=0.0.4"}}}
	err = c.read(ctx, k, maxLargeBytes, func(resp *http.Response, body io.Reader) error {
		page, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		seconds, err := gauge(page, resp.Header.Get("Content-Type"), lowestTimestamp)
		ms = millis(seconds)
		return err
	})
	return ms, err
}

// gauge finds the value of a metric without labels in an exposition.
func gauge(page []byte, contentType, name string) (float64, error) {
	p, err := textparse.New(page, contentType, labels.NewSymbolTable(), textparse.ParserOptions{FallbackContentType: "text/plain"})
	if p == nil {
		return 0, fmt.Errorf("parse metrics: %w", err)
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return 0, ErrNoLowestTimestamp
		}
		if err != nil {
			return 0, fmt.Errorf("parse metrics: %w", err)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		if series, _, v := p.Series(); string(series) == name {
			return v, nil
		}
	}
}

// millis turns seconds into ms and stays at the ends of the scale instead of wrapping.
func millis(seconds float64) int64 {
	ms := seconds * 1000
	switch {
	case math.IsNaN(ms) || ms >= math.MaxInt64:
		return math.MaxInt64
	case ms <= math.MinInt64:
		return math.MinInt64
	}
	return int64(math.Round(ms))
}

// TSDBStatus is what Prometheus says about the cardinality of its head.
type TSDBStatus struct {
	HeadStats                   HeadStats  `json:"headStats"`
	SeriesCountByMetricName     []TSDBStat `json:"seriesCountByMetricName"`
	LabelValueCountByLabelName  []TSDBStat `json:"labelValueCountByLabelName"`
	MemoryInBytesByLabelName    []TSDBStat `json:"memoryInBytesByLabelName"`
	SeriesCountByLabelValuePair []TSDBStat `json:"seriesCountByLabelValuePair"`
}

// HeadStats are numbers of the head; times in ms.
type HeadStats struct {
	NumSeries     uint64 `json:"numSeries"`
	NumLabelPairs int64  `json:"numLabelPairs"`
	ChunkCount    int64  `json:"chunkCount"`
	MinTime       int64  `json:"minTime"`
	MaxTime       int64  `json:"maxTime"`
}

// TSDBStat is one line of a list of the greatest.
type TSDBStat struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// TSDBStatus returns the statistics of the head, each list cut to limit; 0 or less is Prometheus's default.
func (c *Client) TSDBStatus(ctx context.Context, limit int) (*TSDBStatus, error) {
	params := url.Values{}
	if limit > 0 {
		params.Set("limit", strconv.Itoa(limit))
	}
	var st TSDBStatus
	if _, err := c.get(ctx, call{what: "read TSDB status", path: "api/v1/status/tsdb", params: params}, maxLargeBytes, &st); err != nil {
		return nil, err
	}
	return &st, nil
}
