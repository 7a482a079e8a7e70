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
	maxResolution    int64 // of downsampled blocks, in ms
}

// target is a Store to be asked.
type target struct {
	store store.Store
	desc  store.Description
	// sets are the advertised label sets that can match; none of a Store that advertises none.
	sets []labels.Labels
	// matchers are those to ask this Store with.
	matchers []*labels.Matcher
	// needs are what the question wants of the Store's blocks, if it has nothing else.
	needs needs

	// Of a Store that is asked for each of its replicas (see perReplica): the replica of what comes, and the
	// target as it was. rest is true of what no advertised replica label matches, mostly nothing.
	replica string
	whole   *target
	rest    bool
}

// pick returns the Stores that can hold an answer.
//
// Under relabelling, a Store of which all is selected needs no more matchers. One that is selected in part
// is held to that part, and one that does not say what it holds to what the others hold.
func (s *Store) pick(all []store.Store, q question) []target {
	var targets []target
	unlabelled := false
	for _, st := range all {
		d := st.Describe()
		if !store.Overlaps(q.minTime, q.maxTime, d.MinTime, d.MaxTime) || !matchesAddress(d, q.storeMatchers) {
			continue
		}
		sel := s.selected(d.LabelSets)
		t := target{store: st, desc: d, sets: thatMatch(sel.kept, q.matchers), matchers: q.matchers}
		if len(t.sets) == 0 && len(d.LabelSets) > 0 {
			continue
		}
		if len(sel.holding) > 0 {
			t.matchers = slices.Concat(q.matchers, sel.holding)
		}
		unlabelled = unlabelled || len(d.LabelSets) == 0
		targets = append(targets, t)
	}
	if len(s.cfg.Relabel) == 0 || !unlabelled {
		return targets
	}
	var union []labels.Labels
	for _, st := range all {
		union = append(union, s.selected(st.Describe().LabelSets).kept...)
	}
	withUnion := slices.Concat(q.matchers, holding(union))
	for i := range targets {
		if len(targets[i].desc.LabelSets) == 0 {
			targets[i].matchers = withUnion
		}
	}
	return targets
}

// absent returns what the Stores that can't be asked now would have been asked for.
func (s *Store) absent(q question) (all []loss) {
	if s.cfg.Absent == nil {
		return nil
	}
	for _, l := range s.cfg.Absent() {
		d := l.Description
		sets, ok := s.SelectLabelSets(d.LabelSets)
		t := &target{desc: d, sets: thatMatch(sets, q.matchers)}
		if !ok || len(t.sets) == 0 && len(sets) > 0 || !store.Overlaps(q.minTime, q.maxTime, d.MinTime, d.MaxTime) || !matchesAddress(d, q.storeMatchers) {
			continue
		}
		if d.OnlyBlocks {
			t.needs = s.needsOf(&t.desc, &q)
		}
		all = append(all, loss{target: t, cause: l.Err, err: l.Err})
	}
	return all
}

// SelectLabelSets returns the advertised label sets of a Store that the relabelling keeps, and whether
// the Store is asked at all: without label sets it is. The result is shared.
func (s *Store) SelectLabelSets(sets []labels.Labels) (kept []labels.Labels, ok bool) {
	kept = s.selected(sets).kept
	return kept, len(kept) > 0 || len(sets) == 0
}

// selection is what the relabelling makes of a Store's label sets.
type selection struct {
	kept    []labels.Labels
	holding []*labels.Matcher // that hold the Store to them; none if all are kept
}

// selectionsMax bounds the selections kept for later: more than there are Stores of one querier.
const selectionsMax = 1024

// selected applies the relabelling. Stores describe themselves by the same slice until they have something
// new to say, so what came of it is kept by the slice's address.
func (s *Store) selected(sets []labels.Labels) selection {
	if len(s.cfg.Relabel) == 0 || len(sets) == 0 {
		return selection{kept: sets}
	}
	key := selectionKey{&sets[0], len(sets)}
	s.mu.RLock()
	sel, known := s.selections[key]
	s.mu.RUnlock()
	if known {
		return sel
	}
	for _, ls := range sets {
		if _, ok := s.relabel(ls); ok {
			sel.kept = append(sel.kept, ls)
		}
	}
	if len(sel.kept) < len(sets) {
		sel.holding = holding(sel.kept)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.selections) >= selectionsMax {
		clear(s.selections)
	}
	s.selections[key] = sel
	return sel
}

// selectionKey keeps the sets alive, so that no others can take their address.
type selectionKey struct {
	first *labels.Labels
	n     int
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
	first := slices.IndexFunc(sets, contradicted)
	if first < 0 {
		return sets
	}
	matching := slices.Clip(sets[:first]) // a copy is made by the first append
	for _, ls := range sets[first+1:] {
		if !contradicted(ls) {
			matching = append(matching, ls)
		}
	}
	return matching
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
