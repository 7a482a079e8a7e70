package federate

import (
	"encoding/json"
	"math/rand"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/koios-metrics/koios/proto/exemplarspb"
	"github.com/koios-metrics/koios/proto/labelpb"
	"github.com/koios-metrics/koios/proto/metadatapb"
	"github.com/koios-metrics/koios/proto/rulespb"
	"github.com/koios-metrics/koios/proto/statuspb"
	"github.com/koios-metrics/koios/proto/targetspb"
)

var replicas = []string{"replica"}

func set(ss ...string) *labelpb.ZLabelSet { return encodeLabels(labels.FromStrings(ss...)) }

func at(seconds int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: seconds} }

func group(file, name string, evaluated int64, rules ...*rulespb.Rule) *rulespb.RuleGroup {
	return &rulespb.RuleGroup{File: file, Name: name, Interval: float64(evaluated), LastEvaluation: at(evaluated), Rules: rules}
}

func alert(name string, state rulespb.AlertState, evaluated int64, ls ...string) *rulespb.Rule {
	return &rulespb.Rule{Result: &rulespb.Rule_Alert{Alert: &rulespb.Alert{
		Name: name, Query: "up", State: state, LastEvaluation: at(evaluated), Labels: set(ls...), Annotations: set(),
		Alerts: []*rulespb.AlertInstance{{Labels: set("replica", "kept", "at", at(evaluated).String()), Annotations: set(), State: state}},
	}}}
}

func recording(name string, evaluated int64, ls ...string) *rulespb.Rule {
	return &rulespb.Rule{Result: &rulespb.Rule_Recording{Recording: &rulespb.RecordingRule{Name: name, Query: "up", LastEvaluation: at(evaluated), Labels: set(ls...)}}}
}

// inAnyOrder merges clones of the parts in many orders; all answers must be want, written as JSON.
func inAnyOrder[M proto.Message](t *testing.T, parts []M, merge func([]M) any, want any) {
	t.Helper()
	w := text(t, want)
	r := rand.New(rand.NewSource(1)) //nolint:gosec // reproducible
	for range 50 {
		in := make([]M, len(parts))
		for i, j := range r.Perm(len(parts)) {
			in[i] = proto.CloneOf(parts[j])
		}
		if d := cmp.Diff(w, text(t, merge(in))); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Each rule of the merge of rules, with the groups of several peers in any order. The mutants it was seen to
// kill: mergeRules without the order of evaluation times (groups of one name then differ), rank without its
// minus.
func TestMergeRules(t *testing.T) {
	const firing, pending, inactive, unknown = rulespb.AlertState_FIRING, rulespb.AlertState_PENDING, rulespb.AlertState_INACTIVE, rulespb.AlertState_UNKNOWN
	other := alert("A", firing, 1)
	other.GetAlert().Query = "up == 0"
	longer := alert("A", firing, 1)
	longer.GetAlert().DurationSeconds = 60
	sick := recording("r", 5)
	sick.GetRecording().Health = "err"
	well := recording("r", 5)
	well.GetRecording().Health = "ok"
	for _, c := range []struct {
		name     string
		in, want []*rulespb.RuleGroup
	}{
		{"nothing", nil, nil},
		{"groups of other files or names stay apart, sorted",
			[]*rulespb.RuleGroup{group("b", "g", 1), group("a", "h", 2), group("a", "g", 3)},
			[]*rulespb.RuleGroup{group("a", "g", 3), group("a", "h", 2), group("b", "g", 1)}},
		{"a group is as the last evaluated one says",
			[]*rulespb.RuleGroup{group("a", "g", 1, recording("r", 1)), group("a", "g", 2, recording("s", 2))},
			[]*rulespb.RuleGroup{group("a", "g", 2, recording("r", 1), recording("s", 2))}},
		{"replica labels of rules go, those of alerts stay",
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", firing, 1, "replica", "1", "x", "y")), group("a", "g", 1, alert("A", firing, 2, "replica", "2", "x", "y"))},
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", firing, 2, "x", "y"))}},
		{"alerts come before recordings, then by name and labels",
			[]*rulespb.RuleGroup{group("a", "g", 1, recording("a", 1), alert("z", firing, 1, "x", "2"), alert("z", firing, 1, "x", "1"), alert("y", firing, 1))},
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("y", firing, 1), alert("z", firing, 1, "x", "1"), alert("z", firing, 1, "x", "2"), recording("a", 1))}},
		{"another query or duration is another rule",
			[]*rulespb.RuleGroup{group("a", "g", 1, longer, other), group("a", "g", 1, alert("A", firing, 1))},
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", firing, 1), longer, other)}},
		{"firing wins over what was evaluated later",
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", firing, 1)), group("a", "g", 1, alert("A", pending, 9)), group("a", "g", 1, alert("A", inactive, 8))},
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", firing, 1))}},
		{"pending wins over inactive",
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", pending, 1)), group("a", "g", 1, alert("A", inactive, 9))},
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", pending, 1))}},
		{"inactive wins over unknown",
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", inactive, 1)), group("a", "g", 1, alert("A", unknown, 9))},
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", inactive, 1))}},
		{"of equal states the later evaluation wins",
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", firing, 1)), group("a", "g", 1, alert("A", firing, 2))},
			[]*rulespb.RuleGroup{group("a", "g", 1, alert("A", firing, 2))}},
		{"of recordings the later evaluation wins",
			[]*rulespb.RuleGroup{group("a", "g", 1, recording("r", 7)), group("a", "g", 1, recording("r", 8))},
			[]*rulespb.RuleGroup{group("a", "g", 1, recording("r", 8))}},
		{"what is equal in all of that still has one winner",
			[]*rulespb.RuleGroup{group("a", "g", 1, well), group("a", "g", 1, sick)},
			[]*rulespb.RuleGroup{group("a", "g", 1, well)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inAnyOrder(t, c.in, func(in []*rulespb.RuleGroup) any { return RulesJSON(mergeRules(in, replicas)) }, RulesJSON(c.want))
		})
	}
}

func target(url string, health targetspb.TargetHealth, scraped int64, ls ...string) *targetspb.ActiveTarget {
	return &targetspb.ActiveTarget{ScrapeUrl: url, ScrapePool: "p", Health: health, LastScrape: at(scraped), Labels: set(ls...), DiscoveredLabels: set(ls...)}
}

func found(ts ...*targetspb.ActiveTarget) *targetspb.TargetDiscovery {
	return &targetspb.TargetDiscovery{ActiveTargets: ts}
}

func droppedOf(ss ...string) *targetspb.TargetDiscovery {
	return &targetspb.TargetDiscovery{DroppedTargets: []*targetspb.DroppedTarget{{DiscoveredLabels: set(ss...)}}}
}

// Each rule of the merge of targets, in any order. The mutant it was seen to kill: rank without its minus.
func TestMergeTargets(t *testing.T) {
	const down, up, unknown = targetspb.TargetHealth_DOWN, targetspb.TargetHealth_UP, targetspb.TargetHealth_TARGET_UNKNOWN
	pool := target("u", up, 1)
	pool.ScrapePool = "a"
	for _, c := range []struct {
		name string
		in   []*targetspb.TargetDiscovery
		want *targetspb.TargetDiscovery
	}{
		{"nothing", nil, nil},
		{"sorted by address, pool and labels", []*targetspb.TargetDiscovery{found(target("v", up, 1), target("u", up, 1, "x", "2"), target("u", up, 1, "x", "1"), pool)},
			found(pool, target("u", up, 1, "x", "1"), target("u", up, 1, "x", "2"), target("v", up, 1))},
		{"replicas are one, the later scrape wins", []*targetspb.TargetDiscovery{found(target("u", up, 1, "replica", "1")), found(target("u", up, 2, "replica", "2")), found(target("u", up, 1, "replica", "3"))},
			found(target("u", up, 2))},
		{"down wins over up", []*targetspb.TargetDiscovery{found(target("u", up, 9)), found(target("u", down, 1))}, found(target("u", down, 1))},
		{"up wins over unknown", []*targetspb.TargetDiscovery{found(target("u", up, 1)), found(target("u", unknown, 9))}, found(target("u", up, 1))},
		{"dropped targets are one by labels, sorted", []*targetspb.TargetDiscovery{droppedOf("a", "2"), droppedOf("a", "1", "replica", "1"), droppedOf("a", "1", "replica", "2")},
			&targetspb.TargetDiscovery{DroppedTargets: []*targetspb.DroppedTarget{{DiscoveredLabels: set("a", "1")}, {DiscoveredLabels: set("a", "2")}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inAnyOrder(t, c.in, func(in []*targetspb.TargetDiscovery) any { return TargetsJSON(mergeTargets(in, replicas)) }, TargetsJSON(c.want))
		})
	}
}

// Each rule of the merge of metadata, in any order.
func TestMergeMetadata(t *testing.T) {
	of := func(name string, helps ...string) *metadatapb.MetricMetadata {
		e := &metadatapb.MetricMetadataEntry{}
		for _, h := range helps {
			e.Metas = append(e.Metas, &metadatapb.Meta{Type: "counter", Help: h})
		}
		return &metadatapb.MetricMetadata{Metadata: map[string]*metadatapb.MetricMetadataEntry{name: e}}
	}
	in := []*metadatapb.MetricMetadata{of("b", "y", "x"), of("b", "x", "z"), of("a", "x"), of("c", "x")}
	for limit, want := range map[int]map[string][]string{
		-1: {"a": {"x"}, "b": {"x", "y", "z"}, "c": {"x"}},
		3:  {"a": {"x"}, "b": {"x", "y", "z"}, "c": {"x"}},
		2:  {"a": {"x"}, "b": {"x", "y", "z"}},
		0:  {},
	} {
		inAnyOrder(t, in, func(in []*metadatapb.MetricMetadata) any {
			got := map[string][]string{}
			for name, metas := range mergeMetadata(in, limit) {
				for _, m := range metas {
					got[name] = append(got[name], m.GetHelp())
				}
			}
			return got
		}, want)
	}
}

// Each rule of the merge of exemplars, in any order: series are joined without replica labels and sorted,
// exemplars sorted and there once, empty series gone.
func TestMergeExemplars(t *testing.T) {
	x := func(ts int64, v float64, trace string) *exemplarspb.Exemplar {
		return &exemplarspb.Exemplar{Ts: ts, Value: v, Labels: set("trace", trace)}
	}
	series := func(ls *labelpb.ZLabelSet, xs ...*exemplarspb.Exemplar) *exemplarspb.ExemplarData {
		return &exemplarspb.ExemplarData{SeriesLabels: ls, Exemplars: xs}
	}
	in := []*exemplarspb.ExemplarData{
		series(set("job", "b", "replica", "1"), x(2, 1, "t"), x(1, 1, "t")),
		series(set("job", "b", "replica", "2"), x(2, 1, "t"), x(2, 1, "s"), x(2, 0, "t")),
		series(set("job", "a", "replica", "2"), x(3, 1.5, "u")),
		series(set("job", "c")),
	}
	want := []*exemplarspb.ExemplarData{
		series(set("job", "a"), x(3, 1.5, "u")),
		series(set("job", "b"), x(1, 1, "t"), x(2, 1, "s"), x(2, 0, "t"), x(2, 1, "t")),
	}
	inAnyOrder(t, in, func(in []*exemplarspb.ExemplarData) any { return ExemplarsJSON(mergeExemplars(in, replicas)) }, ExemplarsJSON(want))
}

// Each rule of the merge of statistics, in any order: sums, but the largest count of label values; the
// earliest time that was set and the latest; lists by falling value, then by name.
func TestMergeStatistics(t *testing.T) {
	list := func(pairs ...any) (out []*statuspb.Statistic) {
		for p := range slices.Chunk(pairs, 2) {
			out = append(out, &statuspb.Statistic{Name: p[0].(string), Value: uint64(p[1].(int))}) //nolint:gosec // small
		}
		return out
	}
	entry := func(series uint64, mint, maxt int64, all ...any) *statuspb.TSDBStatisticsEntry {
		return &statuspb.TSDBStatisticsEntry{
			HeadStatistics:              &statuspb.HeadStatistics{NumSeries: series, NumLabelPairs: 2, ChunkCount: 3, MinTime: mint, MaxTime: maxt},
			SeriesCountByMetricName:     list(all...),
			LabelValueCountByLabelName:  list(all...),
			MemoryInBytesByLabelName:    list(all...),
			SeriesCountByLabelValuePair: list(all...),
		}
	}
	want := entry(111, 5, 30, "a", 7, "b", 7, "c", 1)
	want.HeadStatistics.NumLabelPairs, want.HeadStatistics.ChunkCount = 6, 9
	want.LabelValueCountByLabelName = list("b", 7, "a", 4, "c", 1)
	inAnyOrder(t, []*statuspb.TSDBStatisticsEntry{
		entry(1, 0, 10, "a", 3), entry(10, 5, 20, "a", 4, "c", 1), entry(100, 7, 30, "b", 7),
	}, func(in []*statuspb.TSDBStatisticsEntry) any { return StatisticsJSON(MergeStatistics(in), 10) }, StatisticsJSON(want, 10))
	inAnyOrder(t, nil, func(in []*statuspb.TSDBStatisticsEntry) any { return StatisticsJSON(MergeStatistics(in), 10) }, StatisticsJSON(nil, 10))
}

// A request's filters leave out what they say, and groups that they empty.
func TestRuleFilter(t *testing.T) {
	in := func() []*rulespb.RuleGroup {
		return []*rulespb.RuleGroup{
			group("f", "g", 1, alert("A", rulespb.AlertState_FIRING, 1, "severity", "page", "team", "{{ $labels.team }}"), recording("r", 1, "team", "x")),
			group("h", "i", 1, recording("s", 1, "team", "y")),
			group("h", "empty", 1),
		}
	}
	for _, c := range []struct {
		req  *rulespb.RulesRequest
		want string // file/group/rule…
	}{
		{&rulespb.RulesRequest{}, "f/g/A/r h/i/s h/empty"},
		{&rulespb.RulesRequest{Type: rulespb.RulesRequest_ALERT}, "f/g/A h/empty"},
		{&rulespb.RulesRequest{Type: rulespb.RulesRequest_RECORD}, "f/g/r h/i/s h/empty"},
		{&rulespb.RulesRequest{RuleName: []string{"s", "A"}}, "f/g/A h/i/s"},
		{&rulespb.RulesRequest{RuleGroup: []string{"i"}}, "h/i/s"},
		{&rulespb.RulesRequest{File: []string{"f"}}, "f/g/A/r"},
		{&rulespb.RulesRequest{MatcherString: []string{`{team=~"x|y"}`}}, "f/g/r h/i/s"},
		{&rulespb.RulesRequest{MatcherString: []string{`{team=~"x|y"}`, `{team!="x"}`}}, "h/i/s"},
		{&rulespb.RulesRequest{MatcherString: []string{`{team=""}`}}, "f/g/A"},
		{&rulespb.RulesRequest{MatcherString: []string{`{severity="page"}`}}, "f/g/A"},
	} {
		f, err := newRuleFilter(c.req)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, g := range in() {
			if !f.keep(g) {
				continue
			}
			got += " " + g.GetFile() + "/" + g.GetName()
			for _, r := range g.GetRules() {
				got += "/" + r.GetAlert().GetName() + r.GetRecording().GetName()
			}
		}
		if got != " "+c.want {
			t.Errorf("%v: got%s, want %s", c.req, got, c.want)
		}
	}
	if _, err := newRuleFilter(&rulespb.RulesRequest{MatcherString: []string{"{"}}); err == nil {
		t.Error("a broken selector is taken")
	}
}
