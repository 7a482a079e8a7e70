package fanout

import (
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/koios-metrics/koios/pkg/store"
)

// addressLabel is the one label that store matchers can ask for.
const addressLabel = "__address__"

// question is what decides which Stores are asked.
type question struct {
	minTime, maxTime int64
	matchers         []*labels.Matcher // without those on selector labels
	storeMatchers    [][]*labels.Matcher
}

// target is a Store to be asked.
type target struct {
	store store.Store
	desc  store.Description
	// sets are the advertised label sets that can match; none of a Store that advertises none.
	sets []labels.Labels
	// matchers are those to ask this Store with.
	matchers []*labels.Matcher
}

// pick returns the Stores that can hold an answer.
func (s *Store) pick(all []store.Store, q question) []target {
	var targets []target
	var union []labels.Labels // what the relabelling leaves of all Stores
	var partly []int          // targets of which it leaves a part
	var unlabelled []int      // targets without label sets
	for _, st := range all {
		d := st.Describe()
		sets, ok := s.SelectLabelSets(d.LabelSets)
		if !ok {
			continue
		}
		if len(s.cfg.Relabel) > 0 {
			union = append(union, sets...)
		}
		if !store.Overlaps(q.minTime, q.maxTime, d.MinTime, d.MaxTime) || !matchesAddress(d, q.storeMatchers) {
			continue
		}
		kept := len(sets)
		matching := thatMatch(sets, q.matchers)
		if len(matching) == 0 && kept > 0 {
			continue
		}
		switch {
		case kept == 0:
			unlabelled = append(unlabelled, len(targets))
		case kept < len(d.LabelSets):
			partly = append(partly, len(targets))
		}
		targets = append(targets, target{store: st, desc: d, sets: matching, matchers: q.matchers})
	}
	if len(s.cfg.Relabel) == 0 {
		return targets
	}
	// A Store of which all is selected needs no more matchers. One that is selected in part is held to
	// that part, and one that does not say what it holds to what the others hold.
	for _, i := range partly {
		sets, _ := s.SelectLabelSets(targets[i].desc.LabelSets)
		targets[i].matchers = append(slices.Clip(q.matchers), holding(sets)...)
	}
	if len(unlabelled) > 0 {
		extra := holding(union)
		for _, i := range unlabelled {
			targets[i].matchers = append(slices.Clip(q.matchers), extra...)
		}
	}
	return targets
}

// absent returns the gaps that the Stores which can't be asked leave in the answer.
func (s *Store) absent(q question, pr store.PartialResponse) store.Warnings {
	if s.cfg.Absent == nil || pr == store.Abort {
		return nil
	}
	var gaps store.Warnings
	for _, g := range s.cfg.Absent() {
		sets, ok := s.SelectLabelSets(g.LabelSets)
		matching := thatMatch(sets, q.matchers)
		if !ok || len(matching) == 0 && len(sets) > 0 || !store.Overlaps(q.minTime, q.maxTime, g.MinTime, g.MaxTime) ||
			!matchesAddress(store.Description{Name: g.Store}, q.storeMatchers) {
			continue
		}
		gaps = append(gaps, &store.Gap{
			Store: g.Store, LabelSets: matching, Err: g.Err,
			MinTime: max(q.minTime, g.MinTime), MaxTime: min(q.maxTime, g.MaxTime),
		})
	}
	return gaps
}

// SelectLabelSets returns the advertised label sets of a Store that the relabelling keeps, and whether
// the Store is asked at all: without label sets it is. The result may share sets.
func (s *Store) SelectLabelSets(sets []labels.Labels) (kept []labels.Labels, ok bool) {
	if len(s.cfg.Relabel) == 0 || len(sets) == 0 {
		return sets, true
	}
	for _, ls := range sets {
		if _, ok := s.relabel(ls); ok {
			kept = append(kept, ls)
		}
	}
	return kept, len(kept) > 0
}

func (s *Store) relabel(ls labels.Labels) (labels.Labels, bool) {
	if len(s.cfg.Relabel) == 0 {
		return ls, true
	}
	return relabel.Process(ls, s.cfg.Relabel...)
}

// matchesAddress tells whether one of the lists matches the Store's name. A list without a matcher on
// __address__ matches every Store but those in this process, which have no address.
func matchesAddress(d store.Description, lists [][]*labels.Matcher) bool {
	if len(lists) == 0 {
		return true
	}
	if d.Local {
		return false
	}
	return slices.ContainsFunc(lists, func(ms []*labels.Matcher) bool {
		return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return m.Name == addressLabel && !m.Matches(d.Name) })
	})
}

// thatMatch returns the external label sets that no matcher contradicts. It may share sets.
func thatMatch(sets []labels.Labels, ms []*labels.Matcher) []labels.Labels {
	contradicted := func(external labels.Labels) bool {
		return slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
			v := external.Get(m.Name)
			return v != "" && !m.Matches(v)
		})
	}
	if !slices.ContainsFunc(sets, contradicted) {
		return sets
	}
	return slices.DeleteFunc(slices.Clone(sets), contradicted)
}

// holding makes the matchers that hold a Store to some of its external label sets: for each label, one of
// its values in the sets, or its absence where a set is without it. They admit every series of the sets;
// a mixture of values from different sets passes too.
func holding(sets []labels.Labels) []*labels.Matcher {
	values := map[string][]string{}
	for _, ls := range sets {
		ls.Range(func(l labels.Label) { values[l.Name] = append(values[l.Name], l.Value) })
	}
	names := make([]string, 0, len(values))
	for n := range values {
		names = append(names, n)
	}
	slices.Sort(names)
	ms := make([]*labels.Matcher, 0, len(names))
	for _, n := range names {
		vs := values[n]
		absent := len(vs) < len(sets)
		slices.Sort(vs)
		vs = slices.Compact(vs)
		for i := range vs {
			vs[i] = regexp.QuoteMeta(vs[i])
		}
		if absent {
			vs = append(vs, "^$")
		}
		ms = append(ms, labels.MustNewMatcher(labels.MatchRegexp, n, strings.Join(vs, "|")))
	}
	return ms
}
