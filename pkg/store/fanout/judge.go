package fanout

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

// losses returns what the request did not get, as far as is known.
func (r *run) losses() (all []loss) {
	all = append(all, r.absent...)
	for _, p := range r.parts {
		if p.lost != nil && p.ended {
			all = append(all, *p.lost)
		}
	}
	return whole(all)
}

// certain is the error of a request that wants all or nothing, if even with the answers of all others a loss
// stays one. It looks at nothing that changes, so parts that are opened may call it.
func (r *run) certain(l *loss) error {
	j := jury{of: r.of, q: &r.q, without: r.req.WithoutReplicaLabels}
	for _, t := range r.all {
		if t != l.target {
			j.hear(t, t.needsFor(&r.q, r.of))
		}
	}
	gap, _ := j.judge(l)
	if gap == nil {
		return nil
	}
	return &store.Error{Kind: store.KindAborted, Err: gap}
}

// judge tells gaps from losses that others make up for, by who has answered. Before the end, those who still
// may answer count.
func (r *run) judge(losses []loss, end bool) (gaps, infos store.Warnings) {
	if len(losses) == 0 {
		return nil, nil
	}
	j := jury{of: r.of, q: &r.q, without: r.req.WithoutReplicaLabels}
	for _, p := range r.parts {
		switch {
		case p.ended && p.complete, !p.ended && !end, !p.ended && r.req.Limit > 0:
			list := p.target.needsFor(&r.q, r.of)
			for _, t := range p.used {
				list = within(list, t.needsFor(&r.q, r.of))
			}
			j.hear(p.target, list)
		}
	}
	return j.sentence(losses)
}

// needsFor returns the target's needs, found out now if its Store has more than blocks.
func (t *target) needsFor(q *question, s *Store) []need {
	if !t.desc.OnlyBlocks {
		return s.needsOf(&t.desc, q).list
	}
	return t.needs.list
}

// jury knows who has answered.
type jury struct {
	of      *Store
	q       *question
	without []string
	had     held
	heard   []*target
}

// hear takes in that a target has answered with all it has, and with these blocks.
func (j *jury) hear(t *target, list []need) {
	if j.had == nil {
		j.had = held{}
	}
	j.had.add(list)
	if !t.rest {
		j.heard = append(j.heard, t)
	}
}

// sentence judges all losses.
func (j *jury) sentence(losses []loss) (gaps, infos store.Warnings) {
	for i := range losses {
		gap, info := j.judge(&losses[i])
		switch {
		case gap != nil:
			gaps = append(gaps, gap)
		case info != nil:
			infos = append(infos, info)
		}
	}
	return gaps, infos
}

// judge returns a gap, or an info if a replica makes up for the loss, or neither if blocks prove that nothing
// is missing. Labels and times prove nothing: shards share them.
func (j *jury) judge(l *loss) (*store.Gap, *store.Info) {
	t := l.target
	gap := &store.Gap{
		Store: t.desc.Name, LabelSets: t.sets, Err: l.err,
		MinTime: max(j.q.minTime, t.desc.MinTime), MaxTime: min(j.q.maxTime, t.desc.MaxTime),
	}
	if t.desc.OnlyBlocks {
		missing := false
		gap.LabelSets = nil
		for i, n := range t.needs.list {
			if j.had.has(n) {
				continue
			}
			if !missing {
				missing, gap.MinTime, gap.MaxTime = true, n.mint, n.maxt
			}
			gap.MinTime, gap.MaxTime = min(gap.MinTime, n.mint), max(gap.MaxTime, n.maxt)
			if k := len(gap.LabelSets); k == 0 || !labels.Equal(gap.LabelSets[k-1], t.needs.sets[i]) {
				gap.LabelSets = append(gap.LabelSets, t.needs.sets[i])
			}
		}
		if !missing {
			return nil, nil
		}
		return gap, nil
	}
	if twin := j.twin(t); twin != nil {
		return nil, &store.Info{Text: fmt.Sprintf("the data of %s %v between %s and %s comes from its replica %s %v alone: %v",
			gap.Store, t.sets, store.FormatTime(gap.MinTime), store.FormatTime(gap.MaxTime), twin.desc.Name, twin.sets, l.err)}
	}
	return gap, nil
}
