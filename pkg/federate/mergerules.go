package federate

import (
	"cmp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/rulespb"
)

// mergeRules makes one list of the groups of several peers. Groups of one file and name are one, whose own
// times and limits are those of the one evaluated last; replica labels come off the labels of rules, and
// rules that are the same then are one. It owns the groups.
func mergeRules(groups []*rulespb.RuleGroup, replicaLabels []string) []*rulespb.RuleGroup {
	slices.SortFunc(groups, func(a, b *rulespb.RuleGroup) int {
		return cmp.Or(strings.Compare(groupKey(a), groupKey(b)),
			-compareTimes(a.GetLastEvaluation(), b.GetLastEvaluation()), compareBytes(a, b))
	})
	merged := []*rulespb.RuleGroup{}
	for _, g := range groups {
		if n := len(merged); n > 0 && groupKey(merged[n-1]) == groupKey(g) {
			merged[n-1].Rules = append(merged[n-1].Rules, g.Rules...)
		} else {
			merged = append(merged, g)
		}
	}
	for _, g := range merged {
		g.Rules = mergeGroup(g.Rules, replicaLabels)
	}
	return merged
}

func groupKey(g *rulespb.RuleGroup) string { return g.GetFile() + ";" + g.GetName() }

// mergeGroup merges and sorts the rules of one group.
func mergeGroup(rules []*rulespb.Rule, replicaLabels []string) []*rulespb.Rule {
	keyed := make([]keyedRule, 0, len(rules))
	for _, r := range rules {
		if k, ok := keyOf(r, replicaLabels); ok {
			keyed = append(keyed, k)
		}
	}
	slices.SortFunc(keyed, func(a, b keyedRule) int { return cmp.Or(a.compare(&b), a.rank(&b), compareBytes(a.rule, b.rule)) })
	keyed = slices.CompactFunc(keyed, func(a, b keyedRule) bool { return a.compare(&b) == 0 })
	out := make([]*rulespb.Rule, len(keyed))
	for i := range keyed {
		out[i] = keyed[i].rule
	}
	return out
}

// keyedRule is a rule with what makes it that rule.
type keyedRule struct {
	rule      *rulespb.Rule
	recording bool
	name      string
	labels    labels.Labels
	query     string
	duration  float64 // in seconds
}

// keyOf takes the replica labels off a rule. A rule that is of neither kind has no key.
func keyOf(r *rulespb.Rule, replicaLabels []string) (keyedRule, bool) {
	k := keyedRule{rule: r}
	var set **labelpb.ZLabelSet
	if a := r.GetAlert(); a != nil {
		k.name, k.query, k.duration, set = a.Name, a.Query, a.DurationSeconds, &a.Labels
	} else if rec := r.GetRecording(); rec != nil {
		k.recording, k.name, k.query, set = true, rec.Name, rec.Query, &rec.Labels
	} else {
		return k, false
	}
	k.labels = without(*set, replicaLabels)
	*set = encodeLabels(k.labels)
	return k, true
}

// compare orders rules that differ: alerts come first.
func (k *keyedRule) compare(o *keyedRule) int {
	if k.recording != o.recording {
		if k.recording {
			return 1
		}
		return -1
	}
	return cmp.Or(strings.Compare(k.name, o.name), labels.Compare(k.labels, o.labels),
		strings.Compare(k.query, o.query), cmp.Compare(k.duration, o.duration))
}

// rank orders the same rule as several peers have it: the more severe state, then the later evaluation, wins
// and comes first.
func (k *keyedRule) rank(o *keyedRule) int {
	if k.recording {
		return -compareTimes(k.rule.GetRecording().GetLastEvaluation(), o.rule.GetRecording().GetLastEvaluation())
	}
	a, b := k.rule.GetAlert(), o.rule.GetAlert()
	return -cmp.Or(cmp.Compare(a.GetState(), b.GetState()), compareTimes(a.GetLastEvaluation(), b.GetLastEvaluation()))
}
