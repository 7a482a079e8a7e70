package fanout

import (
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

// Thanos does not tell of a chunk which replica it comes from once the replica labels are removed. But its
// components advertise the label sets that they hold, so they are asked once for each replica that these name,
// with matchers on the replica labels, and what comes is in that replica's name. What no advertised replica label
// matches is asked for too: labels may be stored, or newer than the advertisement. So the requests of a Store
// together get each series once, as a single one would.

// replicaRequestsMax bounds the requests that a Store's replicas take. One with more is asked once, and whose
// its chunks are stays unknown.
const replicaRequestsMax = 16

// perReplica divides the targets that do not name replicas themselves.
func perReplica(targets []target, req *store.SeriesRequest) []target {
	if req.SkipChunks || len(req.WithoutReplicaLabels) == 0 {
		return targets
	}
	divided := func(t *target) bool { return !t.desc.Replicas && !t.desc.OnlyBlocks }
	if !slices.ContainsFunc(targets, func(t target) bool { return divided(&t) }) {
		return targets
	}
	names := slices.Clone(req.WithoutReplicaLabels)
	slices.Sort(names)
	names = slices.Compact(names)
	out := make([]target, 0, 2*len(targets))
	for i := range targets {
		if t := &targets[i]; divided(t) {
			out = append(out, t.perReplica(names)...)
		} else {
			out = append(out, *t)
		}
	}
	return out
}

// perReplica returns the target's parts. names are the replica labels, sorted.
func (t *target) perReplica(names []string) []target {
	if !slices.ContainsFunc(t.sets, func(ls labels.Labels) bool { return store.HasAny(ls, names) }) {
		return []target{*t}
	}
	if replica, one := oneReplica(t.sets, names); one && t.desc.Labelled {
		whole := *t
		whole.replica = replica
		return []target{whole}
	}
	d := division{names: names}
	d.divide(portion{sets: t.sets})
	if d.failed || len(d.portions) > replicaRequestsMax {
		return []target{*t}
	}
	whole := *t
	out := make([]target, len(d.portions))
	for i, p := range d.portions {
		out[i] = *t
		to := &out[i]
		to.matchers = slices.Concat(t.matchers, p.matchers)
		to.sets, to.replica, to.rest, to.whole = p.sets, store.ReplicaOf(labels.New(p.replica...), names), p.rest, &whole
	}
	return out
}

// oneReplica tells whether all sets are of one replica, and of which.
func oneReplica(sets []labels.Labels, names []string) (replica string, one bool) {
	replica = store.ReplicaOf(sets[0], names)
	return replica, !slices.ContainsFunc(sets[1:], func(ls labels.Labels) bool { return store.ReplicaOf(ls, names) != replica })
}

// portion is what one of a Store's requests asks for.
type portion struct {
	decided  int // replica labels that there are matchers on
	matchers []*labels.Matcher
	replica  []labels.Label
	sets     []labels.Labels // the advertised ones among it
	rest     bool            // what the advertised ones leave out
}

// division cuts what a Store may hold into portions: everything is in one, and nothing in two.
type division struct {
	names    []string // of the replica labels
	portions []portion
	failed   bool
}

// divide cuts a portion by the values of the next replica label that any of its sets has.
func (d *division) divide(p portion) {
	if len(d.portions) > replicaRequestsMax {
		return // too many already
	}
	n := p.decided
	for n < len(d.names) && !slices.ContainsFunc(p.sets, func(ls labels.Labels) bool { return ls.Get(d.names[n]) != "" }) {
		n++
	}
	if n == len(d.names) {
		d.portions = append(d.portions, p)
		return
	}
	name := d.names[n]
	of := map[string][]labels.Labels{}
	var values []string
	for _, ls := range p.sets {
		v := ls.Get(name)
		if of[v] == nil {
			values = append(values, v)
		}
		of[v] = append(of[v], ls)
	}
	slices.Sort(values)
	without := of[""]
	if len(without) > 0 && !slices.ContainsFunc(without, func(ls labels.Labels) bool { return store.HasAny(ls, d.names[n+1:]) }) {
		values = values[1:] // they have no replica label left, so they go with the rest
	} else {
		without = nil
	}
	for _, v := range values {
		next := portion{decided: n + 1, matchers: slices.Concat(p.matchers, d.matcher(labels.MatchEqual, name, v)), replica: slices.Clip(p.replica), sets: of[v]}
		if v != "" {
			next.replica = append(next.replica, labels.Label{Name: name, Value: v})
		}
		d.divide(next)
	}
	d.portions = append(d.portions, portion{matchers: slices.Concat(p.matchers, d.otherThan(name, values)), replica: p.replica, sets: without, rest: true})
}

// otherThan matches every value but these.
func (d *division) otherThan(name string, values []string) []*labels.Matcher {
	if len(values) == 1 {
		return d.matcher(labels.MatchNotEqual, name, values[0])
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return d.matcher(labels.MatchNotRegexp, name, strings.Join(quoted, "|"))
}

// matcher makes a list of one. A value that is no UTF-8 fails the division.
func (d *division) matcher(typ labels.MatchType, name, value string) []*labels.Matcher {
	m, err := labels.NewMatcher(typ, name, value)
	if err != nil {
		d.failed = true
		return nil
	}
	return []*labels.Matcher{m}
}

// whole puts together what was lost of one Store, which is told once.
func whole(losses []loss) []loss {
	out := losses[:0:0]
	for _, l := range losses {
		i := -1
		if l.target.whole != nil {
			i = slices.IndexFunc(out, func(o loss) bool { return o.target.whole == l.target.whole })
		}
		if i < 0 {
			out = append(out, l)
			continue
		}
		both := *out[i].target
		both.sets = slices.Concat(both.sets, l.target.sets)
		slices.SortFunc(both.sets, labels.Compare)
		out[i].target = &both
	}
	return out
}
