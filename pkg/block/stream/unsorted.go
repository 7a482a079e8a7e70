package stream

import (
	"errors"
	"io"
	"slices"
)

// sortNames sorts pairs of ordinals by the first of each; false if a name is there twice.
func sortNames(pairs []uint32) bool {
	for i := 2; i+1 < len(pairs); i += 2 {
		for k := i; k > 0 && pairs[k-2] >= pairs[k]; k -= 2 {
			if pairs[k-2] == pairs[k] {
				return false
			}
			pairs[k-2], pairs[k-1], pairs[k], pairs[k+1] = pairs[k], pairs[k+1], pairs[k-2], pairs[k-1]
		}
	}
	return true
}

// arrange finds the order of series whose names are sorted only now. Mostly it is that in which they lie: a first walk
// tells, and only a second one keeps labels.
func (r *Reader) arrange() error {
	r.arranged = true
	inOrder := true
	var last []uint32
	err := r.walk(func(s *Series) {
		inOrder = inOrder && slices.Compare(last, s.Labels) < 0
		last = append(last[:0], s.Labels...)
	})
	if err != nil || inOrder {
		return err
	}
	type entry struct {
		ref    uint64
		labels []uint32
	}
	var all []entry
	if err := r.walk(func(s *Series) { all = append(all, entry{s.Ref, slices.Clone(s.Labels)}) }); err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b entry) int { return slices.Compare(a.labels, b.labels) })
	r.order = make([]uint64, len(all))
	for i, e := range all {
		r.order[i] = e.ref
	}
	return nil
}

// walk calls f with each entry of the index, in the order in which they lie, and goes back to where it was.
func (r *Reader) walk(f func(*Series)) error {
	pos := r.pos
	defer func() { r.pos, r.last = pos, r.last[:0] }()
	var s Series
	for {
		r.last = r.last[:0] // the order is what is being looked for
		ok, err := r.readEntry(&s)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if ok {
			f(&s)
		}
	}
}
