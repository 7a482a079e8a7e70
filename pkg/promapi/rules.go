package promapi

import (
	"context"
	"net/url"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// RuleGroup is a group of rules. Times named duration, interval or evaluation are seconds.
type RuleGroup struct {
	Name           string    `json:"name"`
	File           string    `json:"file"`
	Rules          []Rule    `json:"rules"`
	Interval       float64   `json:"interval"`
	Limit          int64     `json:"limit"`
	EvaluationTime float64   `json:"evaluationTime"`
	LastEvaluation time.Time `json:"lastEvaluation"`
}

// The types of rules.
const (
	RuleAlerting  = "alerting"
	RuleRecording = "recording"
)

// Rule is an alerting or a recording rule, as Type says.
type Rule struct {
	Type           string        `json:"type"`
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Labels         labels.Labels `json:"labels"`
	Health         string        `json:"health"`
	LastError      string        `json:"lastError"`
	EvaluationTime float64       `json:"evaluationTime"`
	LastEvaluation time.Time     `json:"lastEvaluation"`

	// What follows is of alerting rules only. State is inactive, pending or firing.
	State         string        `json:"state"`
	Duration      float64       `json:"duration"`
	KeepFiringFor float64       `json:"keepFiringFor"`
	Annotations   labels.Labels `json:"annotations"`
	Alerts        []Alert       `json:"alerts"`
}

// Alert is one instance of an alerting rule.
type Alert struct {
	Labels      labels.Labels `json:"labels"`
	Annotations labels.Labels `json:"annotations"`
	State       string        `json:"state"`
	// ActiveAt is nil if the alert is not active.
	ActiveAt        *time.Time `json:"activeAt"`
	KeepFiringSince *time.Time `json:"keepFiringSince"`
	// Value is written like 1e+00.
	Value string `json:"value"`
}

// Rules returns the groups of rules; typ is "alert", "record" or empty for both.
func (c *Client) Rules(ctx context.Context, typ string) (groups []RuleGroup, warnings []string, err error) {
	params := url.Values{}
	if typ != "" {
		params.Set("type", typ)
	}
	var data struct {
		Groups []RuleGroup `json:"groups"`
	}
	warnings, err = c.get(ctx, call{what: "read rules", path: "api/v1/rules", params: params}, maxLargeBytes, &data)
	return data.Groups, warnings, err
}
