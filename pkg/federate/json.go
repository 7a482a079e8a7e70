package federate

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koios-metrics/koios/proto/exemplarspb"
	"github.com/koios-metrics/koios/proto/metadatapb"
	"github.com/koios-metrics/koios/proto/rulespb"
	"github.com/koios-metrics/koios/proto/statuspb"
	"github.com/koios-metrics/koios/proto/targetspb"
)

// The functions in this file turn merged answers into what encoding/json writes as the data of the HTTP API.

type jsonGroup struct {
	Name                    string    `json:"name"`
	File                    string    `json:"file"`
	Rules                   []any     `json:"rules"`
	Interval                float64   `json:"interval"`
	EvaluationTime          float64   `json:"evaluationTime"`
	LastEvaluation          time.Time `json:"lastEvaluation"`
	Limit                   int64     `json:"limit"`
	PartialResponseStrategy string    `json:"partialResponseStrategy"`
}

type jsonAlertingRule struct {
	State          string        `json:"state"`
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Duration       float64       `json:"duration"`
	KeepFiringFor  float64       `json:"keepFiringFor"`
	Labels         labels.Labels `json:"labels"`
	Annotations    labels.Labels `json:"annotations"`
	Alerts         []jsonAlert   `json:"alerts"`
	Health         string        `json:"health"`
	LastError      string        `json:"lastError,omitempty"`
	EvaluationTime float64       `json:"evaluationTime"`
	LastEvaluation time.Time     `json:"lastEvaluation"`
	Type           string        `json:"type"`
}

type jsonRecordingRule struct {
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Labels         labels.Labels `json:"labels"`
	Health         string        `json:"health"`
	LastError      string        `json:"lastError,omitempty"`
	EvaluationTime float64       `json:"evaluationTime"`
	LastEvaluation time.Time     `json:"lastEvaluation"`
	Type           string        `json:"type"`
}

type jsonAlert struct {
	Labels                  labels.Labels `json:"labels"`
	Annotations             labels.Labels `json:"annotations"`
	State                   string        `json:"state"`
	ActiveAt                *time.Time    `json:"activeAt,omitempty"`
	Value                   string        `json:"value"`
	PartialResponseStrategy string        `json:"partialResponseStrategy"`
}

// RulesJSON is the data of /api/v1/rules.
func RulesJSON(groups []*rulespb.RuleGroup) any {
	out := make([]jsonGroup, 0, len(groups))
	for _, g := range groups {
		j := jsonGroup{
			Name: g.GetName(), File: g.GetFile(), Rules: make([]any, 0, len(g.GetRules())),
			Interval: finite(g.GetInterval()), EvaluationTime: finite(g.GetEvaluationDurationSeconds()), LastEvaluation: timeOf(g.GetLastEvaluation()),
			Limit: g.GetLimit(), PartialResponseStrategy: g.GetPartialResponseStrategy().String(),
		}
		for _, r := range g.GetRules() {
			if a := r.GetAlert(); a != nil {
				j.Rules = append(j.Rules, alertingRule(a))
			} else if rec := r.GetRecording(); rec != nil {
				j.Rules = append(j.Rules, recordingRule(rec))
			}
		}
		out = append(out, j)
	}
	return map[string]any{"groups": out}
}

func alertingRule(a *rulespb.Alert) jsonAlertingRule {
	return jsonAlertingRule{
		State: alertState(a.GetState()), Name: a.GetName(), Query: a.GetQuery(),
		Duration: finite(a.GetDurationSeconds()), KeepFiringFor: finite(a.GetKeepFiringForSeconds()),
		Labels: labelsOf(a.GetLabels()), Annotations: labelsOf(a.GetAnnotations()),
		Alerts: alerts(make([]jsonAlert, 0, len(a.GetAlerts())), a),
		Health: a.GetHealth(), LastError: a.GetLastError(),
		EvaluationTime: finite(a.GetEvaluationDurationSeconds()), LastEvaluation: timeOf(a.GetLastEvaluation()),
		Type: "alerting",
	}
}

func recordingRule(r *rulespb.RecordingRule) jsonRecordingRule {
	return jsonRecordingRule{
		Name: r.GetName(), Query: r.GetQuery(), Labels: labelsOf(r.GetLabels()),
		Health: r.GetHealth(), LastError: r.GetLastError(),
		EvaluationTime: finite(r.GetEvaluationDurationSeconds()), LastEvaluation: timeOf(r.GetLastEvaluation()),
		Type: "recording",
	}
}

// AlertsJSON is the data of /api/v1/alerts: the active alerts of all rules. Without any its list is null.
func AlertsJSON(groups []*rulespb.RuleGroup) any {
	var out []jsonAlert
	for _, g := range groups {
		for _, r := range g.GetRules() {
			out = alerts(out, r.GetAlert())
		}
	}
	return map[string]any{"alerts": out}
}

func alerts(to []jsonAlert, rule *rulespb.Alert) []jsonAlert {
	for _, a := range rule.GetAlerts() {
		j := jsonAlert{
			Labels: labelsOf(a.GetLabels()), Annotations: labelsOf(a.GetAnnotations()),
			State: alertState(a.GetState()), Value: a.GetValue(), PartialResponseStrategy: a.GetPartialResponseStrategy().String(),
		}
		if a.GetActiveAt() != nil {
			t := timeOf(a.GetActiveAt())
			j.ActiveAt = &t
		}
		to = append(to, j)
	}
	return to
}

func alertState(s rulespb.AlertState) string { return strings.ToLower(s.String()) }

type jsonActiveTarget struct {
	DiscoveredLabels   labels.Labels `json:"discoveredLabels"`
	Labels             labels.Labels `json:"labels"`
	ScrapePool         string        `json:"scrapePool"`
	ScrapeURL          string        `json:"scrapeUrl"`
	GlobalURL          string        `json:"globalUrl"`
	LastError          string        `json:"lastError"`
	LastScrape         time.Time     `json:"lastScrape"`
	LastScrapeDuration float64       `json:"lastScrapeDuration"`
	Health             string        `json:"health"`
}

type jsonDroppedTarget struct {
	DiscoveredLabels labels.Labels `json:"discoveredLabels"`
}

// TargetsJSON is the data of /api/v1/targets.
func TargetsJSON(d *targetspb.TargetDiscovery) any {
	active := make([]jsonActiveTarget, 0, len(d.GetActiveTargets()))
	for _, t := range d.GetActiveTargets() {
		active = append(active, jsonActiveTarget{
			DiscoveredLabels: labelsOf(t.GetDiscoveredLabels()), Labels: labelsOf(t.GetLabels()),
			ScrapePool: t.GetScrapePool(), ScrapeURL: t.GetScrapeUrl(), GlobalURL: t.GetGlobalUrl(), LastError: t.GetLastError(),
			LastScrape: timeOf(t.GetLastScrape()), LastScrapeDuration: finite(t.GetLastScrapeDuration()), Health: targetHealth(t.GetHealth()),
		})
	}
	dropped := make([]jsonDroppedTarget, 0, len(d.GetDroppedTargets()))
	for _, t := range d.GetDroppedTargets() {
		dropped = append(dropped, jsonDroppedTarget{labelsOf(t.GetDiscoveredLabels())})
	}
	return map[string]any{"activeTargets": active, "droppedTargets": dropped}
}

func targetHealth(h targetspb.TargetHealth) string {
	switch h {
	case targetspb.TargetHealth_DOWN:
		return "down"
	case targetspb.TargetHealth_UP:
		return "up"
	}
	return "unknown"
}

// jsonMeta is one description of a metric.
type jsonMeta struct {
	Type string `json:"type"`
	Help string `json:"help"`
	Unit string `json:"unit"`
}

// MetadataJSON is the data of /api/v1/metadata.
func MetadataJSON(all map[string][]*metadatapb.Meta) any {
	out := make(map[string][]jsonMeta, len(all))
	for name, metas := range all {
		list := make([]jsonMeta, 0, len(metas))
		for _, m := range metas {
			list = append(list, jsonMeta{m.GetType(), m.GetHelp(), m.GetUnit()})
		}
		out[name] = list
	}
	return out
}

type jsonSeries struct {
	SeriesLabels labels.Labels  `json:"seriesLabels"`
	Exemplars    []jsonExemplar `json:"exemplars"`
}

type jsonExemplar struct {
	Labels    labels.Labels `json:"labels"`
	Timestamp float64       `json:"timestamp"` // in seconds
	Value     string        `json:"value"`
}

// ExemplarsJSON is the data of /api/v1/query_exemplars.
func ExemplarsJSON(all []*exemplarspb.ExemplarData) any {
	out := make([]jsonSeries, 0, len(all))
	for _, s := range all {
		j := jsonSeries{SeriesLabels: labelsOf(s.GetSeriesLabels()), Exemplars: make([]jsonExemplar, 0, len(s.GetExemplars()))}
		for _, x := range s.GetExemplars() {
			j.Exemplars = append(j.Exemplars, jsonExemplar{
				Labels: labelsOf(x.GetLabels()), Timestamp: float64(x.GetTs()) / 1000, Value: strconv.FormatFloat(x.GetValue(), 'f', -1, 64),
			})
		}
		out = append(out, j)
	}
	return out
}

type jsonHead struct {
	NumSeries     uint64 `json:"numSeries"`
	NumLabelPairs int64  `json:"numLabelPairs"`
	ChunkCount    int64  `json:"chunkCount"`
	MinTime       int64  `json:"minTime"`
	MaxTime       int64  `json:"maxTime"`
}

type jsonStatistic struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

type jsonStatistics struct {
	HeadStats                   jsonHead        `json:"headStats"`
	SeriesCountByMetricName     []jsonStatistic `json:"seriesCountByMetricName"`
	LabelValueCountByLabelName  []jsonStatistic `json:"labelValueCountByLabelName"`
	MemoryInBytesByLabelName    []jsonStatistic `json:"memoryInBytesByLabelName"`
	SeriesCountByLabelValuePair []jsonStatistic `json:"seriesCountByLabelValuePair"`
}

// StatisticsJSON is the data of /api/v1/status/tsdb, with so many entries in each list.
func StatisticsJSON(e *statuspb.TSDBStatisticsEntry, limit int) any {
	h := e.GetHeadStatistics()
	list := func(all []*statuspb.Statistic) []jsonStatistic {
		out := []jsonStatistic{}
		for _, s := range all[:min(limit, len(all))] {
			out = append(out, jsonStatistic{s.GetName(), s.GetValue()})
		}
		return out
	}
	return jsonStatistics{
		HeadStats:                   jsonHead{h.GetNumSeries(), h.GetNumLabelPairs(), h.GetChunkCount(), h.GetMinTime(), h.GetMaxTime()},
		SeriesCountByMetricName:     list(e.GetSeriesCountByMetricName()),
		LabelValueCountByLabelName:  list(e.GetLabelValueCountByLabelName()),
		MemoryInBytesByLabelName:    list(e.GetMemoryInBytesByLabelName()),
		SeriesCountByLabelValuePair: list(e.GetSeriesCountByLabelValuePair()),
	}
}

// timeOf reads a time that JSON can hold; the zero time stands for none.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil || !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

// finite keeps what JSON has no form for out of it.
func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}
