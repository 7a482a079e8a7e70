package sidecar

import (
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koios-metrics/koios/pkg/promapi"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/proto/rulespb"
	"github.com/koios-metrics/koios/proto/storepb"
)

// rules serves the rules that Prometheus evaluates, with its external labels on each rule. Alerts have
// none: Prometheus adds them when it sends an alert.
type rules struct {
	rulespb.UnimplementedRulesServer
	leaf
}

// Rules implements rulespb.RulesServer. Only the type is filtered by; queriers filter the rest.
func (r *rules) Rules(req *rulespb.RulesRequest, stream grpc.ServerStreamingServer[rulespb.RulesResponse]) error {
	warn := func(text string) error { return stream.Send(rulesWarning(text)) }
	return answer(stream.Context(), r.send(req, stream), req.GetPartialResponseStrategy(), warn)
}

func (r *rules) send(req *rulespb.RulesRequest, stream grpc.ServerStreamingServer[rulespb.RulesResponse]) error {
	external, err := r.known.available()
	if err != nil {
		return err
	}
	typ := map[rulespb.RulesRequest_Type]string{rulespb.RulesRequest_ALERT: "alert", rulespb.RulesRequest_RECORD: "record"}[req.GetType()]
	groups, warnings, err := r.prometheus.Rules(stream.Context(), typ)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		if err := stream.Send(rulesWarning(w)); err != nil {
			return err
		}
	}
	for i := range groups {
		g := &rulespb.RulesResponse_Group{Group: ruleGroup(&groups[i], external)}
		if err := stream.Send(&rulespb.RulesResponse{Result: g}); err != nil {
			return err
		}
	}
	return nil
}

func rulesWarning(text string) *rulespb.RulesResponse {
	return &rulespb.RulesResponse{Result: &rulespb.RulesResponse_Warning{Warning: text}}
}

func ruleGroup(g *promapi.RuleGroup, external labels.Labels) *rulespb.RuleGroup {
	out := &rulespb.RuleGroup{
		Name:                      g.Name,
		File:                      g.File,
		Interval:                  g.Interval,
		Limit:                     g.Limit,
		EvaluationDurationSeconds: g.EvaluationTime,
		LastEvaluation:            timestamppb.New(g.LastEvaluation),
		// Prometheus evaluates over its own data: all of it or none.
		PartialResponseStrategy: storepb.PartialResponseStrategy_ABORT,
	}
	for i := range g.Rules {
		out.Rules = append(out.Rules, rule(&g.Rules[i], external))
	}
	return out
}

func rule(r *promapi.Rule, external labels.Labels) *rulespb.Rule {
	if r.Type == promapi.RuleRecording {
		return &rulespb.Rule{Result: &rulespb.Rule_Recording{Recording: &rulespb.RecordingRule{
			Name:                      r.Name,
			Query:                     r.Query,
			Labels:                    withExternal(r.Labels, external),
			Health:                    r.Health,
			LastError:                 r.LastError,
			EvaluationDurationSeconds: r.EvaluationTime,
			LastEvaluation:            timestamppb.New(r.LastEvaluation),
		}}}
	}
	a := &rulespb.Alert{
		State:                     alertState(r.State),
		Name:                      r.Name,
		Query:                     r.Query,
		DurationSeconds:           r.Duration,
		KeepFiringForSeconds:      r.KeepFiringFor,
		Labels:                    withExternal(r.Labels, external),
		Annotations:               wire.EncodeLabelSet(r.Annotations),
		Health:                    r.Health,
		LastError:                 r.LastError,
		EvaluationDurationSeconds: r.EvaluationTime,
		LastEvaluation:            timestamppb.New(r.LastEvaluation),
	}
	for i := range r.Alerts {
		a.Alerts = append(a.Alerts, alertInstance(&r.Alerts[i]))
	}
	return &rulespb.Rule{Result: &rulespb.Rule_Alert{Alert: a}}
}

func alertInstance(a *promapi.Alert) *rulespb.AlertInstance {
	out := &rulespb.AlertInstance{
		Labels:      wire.EncodeLabelSet(a.Labels),
		Annotations: wire.EncodeLabelSet(a.Annotations),
		State:       alertState(a.State),
		Value:       a.Value,
	}
	if a.ActiveAt != nil {
		out.ActiveAt = timestamppb.New(*a.ActiveAt)
	}
	return out
}

func alertState(s string) rulespb.AlertState {
	switch s {
	case "inactive":
		return rulespb.AlertState_INACTIVE
	case "pending":
		return rulespb.AlertState_PENDING
	case "firing":
		return rulespb.AlertState_FIRING
	}
	return rulespb.AlertState_UNKNOWN
}
