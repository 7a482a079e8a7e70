package store

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// RelabelOptions say how stored labels become final ones.
type RelabelOptions struct {
	// External labels are merged in and win over stored ones of the same name.
	External labels.Labels
	// Drop are the replica labels to remove, from stored labels as from External.
	Drop []string
	// MayClash is false when the caller has proof that no stored label is named like one of External
	// or Drop. Then series stream; otherwise all of them are held and sorted.
	MayClash bool
	// Budget is charged with what is held for sorting.
	Budget *Budget
}

// Relabel turns a cursor over stored series, sorted by stored labels, into one over final series, sorted
// by final labels. It closes the cursor that it is given.
//
// Inserting constant labels moves a series only behind those that extend it: where {a} comes before
// {a,b}, {a,r} comes after {a,b,r}. So a series is held while its successors extend it by a label that
// sorts before the greatest inserted one; what is held forms a stack, each element a prefix of the next,
// no deeper than a series has labels. Any other series passes through as it is lent, if the cursor can tell
// what comes next (see Looker).
//
// The chunks of a series that loses replica labels are named after them (see Chunk.Replica); an external one
// hides a stored one here too. What an inner Store has named keeps that as well.
//
// Where the proof of MayClash turns out wrong, the rest is held and sorted; if even that comes too late for
// what was handed out before, the cursor ends with an error.
func Relabel(cur Cursor, opt RelabelOptions) Cursor {
	ext := Without(opt.External, opt.Drop)
	if ext.IsEmpty() && len(opt.Drop) == 0 {
		return cur
	}
	r := &relabeler{in: cur, opt: opt, scratch: labels.NewScratchBuilder(16)}
	r.look, _ = cur.(Looker)
	ext.Range(func(l labels.Label) {
		if l.Value == "" {
			return
		}
		r.external = append(r.external, l)
		r.greatest = l.Name
	})
	opt.External.Range(func(l labels.Label) {
		r.clashing = append(r.clashing, l.Name)
		if l.Value != "" && slices.Contains(opt.Drop, l.Name) {
			r.dropped = append(r.dropped, l)
		}
	})
	r.replica = ReplicaOf(opt.External, opt.Drop)
	r.clashing = append(r.clashing, opt.Drop...)
	return r
}

type relabeler struct {
	in   Cursor
	look Looker // in, if it is one
	opt  RelabelOptions

	external []labels.Label // what is merged in, sorted by name
	greatest string         // the greatest name of external
	clashing []string       // stored labels of these names break the order
	dropped  []labels.Label // of the external labels, sorted by name
	replica  string         // that they make; all series' but for those with stored replica labels
	removed  []labels.Label // of the series looked at last: its stored replica labels
	name     []byte
	names    Interner
	joined   struct{ inner, own, both string } // the names joined last
	chunks   []Chunk                           // of out, once they are named
	scratch  labels.ScratchBuilder

	pending *Series   // the series that the input is at and that is not handed out yet; stored labels
	ended   bool      // the input has no more
	stack   []*Series // kept back, with stored labels; each extends the one below
	sorting bool      // the rest is in sorted

	sorted   []relabelled
	reserved int64

	out  Series
	last labels.Labels // of the series handed out last

	err    error
	closed bool
}

// relabelled is a series with final labels, and the replica that its chunks are still to be named after.
type relabelled struct {
	series  *Series
	replica string
}

func (r *relabeler) Next() bool {
	if r.err != nil || r.closed {
		return false
	}
	if r.opt.MayClash && !r.sorting {
		r.sortRest()
	}
	for !r.sorting {
		if r.pending == nil && !r.ended {
			if r.in.Next() {
				r.pending = r.in.At()
				if HasAny(r.pending.Labels, r.clashing) {
					r.sortRest()
					break
				}
			} else {
				r.ended = true
			}
		}
		if n := len(r.stack); n > 0 && (r.ended || !ExtendsBefore(r.stack[n-1].Labels, r.pending.Labels, r.greatest)) {
			top := r.stack[n-1]
			r.stack[n-1] = nil
			r.stack = r.stack[:n-1]
			return r.handOut(top)
		}
		if r.ended {
			r.err = r.in.Err()
			return false
		}
		if !r.mayBeExtended() {
			s := r.pending
			r.pending = nil
			return r.handOut(s)
		}
		r.stack = append(r.stack, Keep(r.in))
		r.pending = nil
	}
	return r.nextSorted()
}

// mayBeExtended tells whether a series with more labels than the pending one could come next, and before
// it in the final order.
func (r *relabeler) mayBeExtended() bool {
	last := ""
	r.pending.Labels.Range(func(l labels.Label) { last = l.Name })
	if last >= r.greatest {
		return false
	}
	return r.look == nil || r.look.Extended(r.greatest)
}

// handOut makes a stored series the current one.
func (r *relabeler) handOut(s *Series) bool {
	ls, replica := r.final(s.Labels)
	r.out = Series{Labels: ls, Chunks: r.named(s.Chunks, replica)}
	r.last = ls
	return true
}

// named returns the chunks in the replica's name. Those that came are lent, maybe to others as well.
func (r *relabeler) named(chunks []Chunk, replica string) []Chunk {
	if replica == "" {
		return chunks
	}
	r.chunks = append(r.chunks[:0], chunks...)
	for i := range r.chunks {
		c := &r.chunks[i]
		if c.Replica == "" {
			c.Replica = replica
			continue
		}
		if r.joined.inner != c.Replica || r.joined.own != replica {
			r.joined.inner, r.joined.own, r.joined.both = c.Replica, replica, JoinReplicas(c.Replica, replica)
		}
		c.Replica = r.joined.both
	}
	return r.chunks
}

// final merges the external labels into stored ones and removes the replica labels, which name the replica.
func (r *relabeler) final(stored labels.Labels) (ls labels.Labels, replica string) {
	r.scratch.Reset()
	r.removed = r.removed[:0]
	i := 0
	stored.Range(func(l labels.Label) {
		for i < len(r.external) && r.external[i].Name < l.Name {
			r.scratch.Add(r.external[i].Name, r.external[i].Value)
			i++
		}
		if i < len(r.external) && r.external[i].Name == l.Name {
			return // the external one wins and comes next
		}
		if slices.Contains(r.opt.Drop, l.Name) {
			if l.Value != "" && !slices.ContainsFunc(r.dropped, func(d labels.Label) bool { return d.Name == l.Name }) {
				r.removed = append(r.removed, l)
			}
			return
		}
		r.scratch.Add(l.Name, l.Value)
	})
	for ; i < len(r.external); i++ {
		r.scratch.Add(r.external[i].Name, r.external[i].Value)
	}
	return r.scratch.Labels(), r.replicaOf()
}

// replicaOf names the replica of the series looked at last: what ReplicaOf says of the labels before any are
// removed.
func (r *relabeler) replicaOf() string {
	if len(r.removed) == 0 {
		return r.replica
	}
	r.name = r.name[:0]
	i := 0
	for _, l := range r.removed {
		for ; i < len(r.dropped) && r.dropped[i].Name < l.Name; i++ {
			r.name = appendReplica(r.name, r.dropped[i].Name, r.dropped[i].Value)
		}
		r.name = appendReplica(r.name, l.Name, l.Value)
	}
	for ; i < len(r.dropped); i++ {
		r.name = appendReplica(r.name, r.dropped[i].Name, r.dropped[i].Value)
	}
	return r.names.String(r.name)
}

// sortRest takes everything that was not handed out yet and sorts it by final labels.
func (r *relabeler) sortRest() {
	r.sorting = true
	for _, s := range r.stack {
		r.take(s)
	}
	r.stack = nil
	if r.pending != nil {
		r.take(Keep(r.in))
		r.pending = nil
	}
	for r.err == nil && r.in.Next() {
		r.take(Keep(r.in))
	}
	if r.err == nil {
		r.err = r.in.Err()
	}
	slices.SortStableFunc(r.sorted, func(a, b relabelled) int { return labels.Compare(a.series.Labels, b.series.Labels) })
	if len(r.sorted) > 0 && labels.Compare(r.sorted[0].series.Labels, r.last) < 0 {
		r.err = Errorf(KindUnavailable, "series %s turned up after %s: a stored label is named like one of %v, and the labels known beforehand did not say so; ask again", r.sorted[0].series.Labels, r.last, r.clashing)
	}
}

func (r *relabeler) take(s *Series) {
	n := s.Size()
	if err := r.opt.Budget.Reserve(n); err != nil {
		r.err = err
		return
	}
	r.reserved += n
	ls, replica := r.final(s.Labels)
	r.sorted = append(r.sorted, relabelled{&Series{Labels: ls, Chunks: s.Chunks}, replica})
}

func (r *relabeler) nextSorted() bool {
	if r.err != nil || len(r.sorted) == 0 {
		return false
	}
	next := r.sorted[0]
	r.out = Series{Labels: next.series.Labels, Chunks: r.named(next.series.Chunks, next.replica)}
	r.sorted[0] = relabelled{}
	r.sorted = r.sorted[1:]
	return true
}

// Whole implements Whole: the same labels are added to all series, and none removed.
func (r *relabeler) Whole() bool { return !r.opt.MayClash && isWhole(r.in) }

func (r *relabeler) At() *Series        { return &r.out }
func (r *relabeler) Err() error         { return r.err }
func (r *relabeler) Warnings() Warnings { return r.in.Warnings() }

func (r *relabeler) Close() error {
	r.opt.Budget.Release(r.reserved)
	r.reserved, r.sorted, r.stack = 0, nil, nil
	r.closed = true
	return r.in.Close()
}
