package federate

import (
	"context"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/pkg/endpoint"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/rulespb"
)

// Rules returns the groups of rules of all peers, merged. The strategy of the request is overwritten.
func (f *Federation) Rules(ctx context.Context, req *rulespb.RulesRequest) (*Answer[[]*rulespb.RuleGroup], error) {
	req = proto.CloneOf(req)
	req.PartialResponseStrategy = strategy(f.cfg.Rules)
	all, err := f.askRules(ctx, req)
	if err != nil {
		return nil, err
	}
	groups := make([]*rulespb.RuleGroup, len(all.frames))
	for i, m := range all.frames {
		groups[i] = m.GetGroup()
	}
	return &Answer[[]*rulespb.RuleGroup]{Data: mergeRules(groups, f.cfg.ReplicaLabels), Warnings: all.warnings, release: all.release}, nil
}

func (f *Federation) askRules(ctx context.Context, req *rulespb.RulesRequest) (*said[*rulespb.RulesResponse], error) {
	wanted, err := newRuleFilter(req)
	if err != nil {
		return nil, err
	}
	return ask(ctx, f, question[rulespb.RulesResponse, *rulespb.RulesResponse]{
		what: "rules", capability: endpoint.HasRules, strategy: req.GetPartialResponseStrategy(),
		open: func(ctx context.Context, p endpoint.Peer) (grpc.ServerStreamingClient[rulespb.RulesResponse], error) {
			return rulespb.NewRulesClient(p.Conn).Rules(ctx, req)
		},
		holds: func(m *rulespb.RulesResponse) bool { return m.GetGroup() != nil },
		keep:  func(_ endpoint.Peer, m *rulespb.RulesResponse) bool { return wanted.keep(m.GetGroup()) },
	})
}

// ruleFilter is what of a request leaves rules out. Peers filter by the type at most.
type ruleFilter struct {
	typ                 rulespb.RulesRequest_Type
	names, groups, file []string
	matchers            []*labels.Matcher // of all selectors: each of them must match
}

func newRuleFilter(req *rulespb.RulesRequest) (*ruleFilter, error) {
	f := &ruleFilter{typ: req.GetType(), names: req.GetRuleName(), groups: req.GetRuleGroup(), file: req.GetFile()}
	for _, s := range req.GetMatcherString() {
		ms, err := parser.ParseMetricSelector(s)
		if err != nil {
			return nil, store.Errorf(store.KindBadRequest, "parse selector %q: %w", s, err)
		}
		f.matchers = append(f.matchers, ms...)
	}
	return f, nil
}

// keep takes the rules that are not wanted off a group. It is false if that leaves none.
func (f *ruleFilter) keep(g *rulespb.RuleGroup) bool {
	if !among(f.groups, g.GetName()) || !among(f.file, g.GetFile()) {
		return false
	}
	before := len(g.Rules)
	g.Rules = slices.DeleteFunc(g.Rules, func(r *rulespb.Rule) bool { return !f.wants(r) })
	return len(g.Rules) > 0 || before == 0 && len(f.names) == 0 && len(f.matchers) == 0
}

func (f *ruleFilter) wants(r *rulespb.Rule) bool {
	alert, recording := r.GetAlert(), r.GetRecording()
	var (
		name string
		ls   *labelpb.ZLabelSet
	)
	switch {
	case alert != nil && f.typ != rulespb.RulesRequest_RECORD:
		name, ls = alert.GetName(), alert.GetLabels()
	case recording != nil && f.typ != rulespb.RulesRequest_ALERT:
		name, ls = recording.GetName(), recording.GetLabels()
	default:
		return false
	}
	return among(f.names, name) && f.matches(labelsOf(ls))
}

// matches leaves out labels whose value is a template: what they will be is not known here.
func (f *ruleFilter) matches(ls labels.Labels) bool {
	for _, m := range f.matchers {
		v := ls.Get(m.Name)
		if strings.Contains(v, "{{") {
			v = ""
		}
		if !m.Matches(v) {
			return false
		}
	}
	return true
}

// among tells whether a list that is empty or names s leaves s in.
func among(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
