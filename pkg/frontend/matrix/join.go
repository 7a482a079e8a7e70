package matrix

import (
	"container/heap"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Between returns the part of an answer from start to end in ms, both inclusive. Series without a point there are gone;
// what was said beside stays.
func (a *Answer) Between(start, end int64) *Answer {
	return a.each(func(to, from []Points) []Points {
		for _, p := range from {
			if p = p.Between(start, end); len(p) > 0 {
				to = append(to, p)
			}
		}
		return to
	})
}

// Every returns the points whose time is start plus a multiple of step, both in ms: the answer of the same query at a
// longer step.
func (a *Answer) Every(start, step int64) *Answer {
	return a.each(func(to, from []Points) []Points {
		for _, p := range from {
			to = p.Every(to, start, step)
		}
		return to
	})
}

func (a *Answer) each(f func(to, from []Points) []Points) *Answer {
	out := *a
	out.Series = make([]Series, 0, len(a.Series))
	for _, s := range a.Series {
		s.Floats, s.Histograms = f(nil, s.Floats), f(nil, s.Histograms)
		if len(s.Floats)+len(s.Histograms) > 0 {
			out.Series = append(out.Series, s)
		}
	}
	return &out
}

// Join puts together answers of one query. Points of one series must not be at the same time in two of them, as with parts
// of a range or shards of the series: where they are, the answer that is listed first wins. Warnings and infos are those of all,
// each once. Stats and analysis are left out: what they add up to is not a matter of text.
func Join(answers ...*Answer) *Answer {
	if len(answers) == 1 {
		return answers[0]
	}
	out := &Answer{}
	h := make(inputs, 0, len(answers))
	for i, a := range answers {
		out.Warnings, out.Infos = addNew(out.Warnings, a.Warnings), addNew(out.Infos, a.Infos)
		if len(a.Series) > 0 {
			h = append(h, input{series: a.Series, rank: i})
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		s := h[0].series[0]
		h.advance()
		if len(h) > 0 && labels.Equal(h[0].series[0].Labels, s.Labels) {
			// The lists may be those of an input, which must not change.
			s.Floats, s.Histograms = slices.Clone(s.Floats), slices.Clone(s.Histograms)
		}
		for len(h) > 0 && labels.Equal(h[0].series[0].Labels, s.Labels) {
			s.Floats = appendPieces(s.Floats, h[0].series[0].Floats)
			s.Histograms = appendPieces(s.Histograms, h[0].series[0].Histograms)
			h.advance()
		}
		out.Series = append(out.Series, s)
	}
	return out
}

// appendPieces joins two lists of pieces.
func appendPieces(a, b []Points) []Points {
	for _, p := range b {
		a = insert(a, p)
	}
	return a
}

// insert adds a piece to pieces in order of time: mostly at the end. Where times overlap, the new piece gives way.
func insert(pieces []Points, p Points) []Points {
	for i := 0; i < len(pieces) && len(p) > 0; i++ {
		first, last := pieces[i].First(), pieces[i].Last()
		if p.First() > last {
			continue
		}
		if before := p.Between(p.First(), first-1); len(before) > 0 {
			pieces = slices.Insert(pieces, i, before)
			i++
		}
		// What the other piece has no point for, between its first and its last, lies between two of its points.
		if p.First() < last && p.Last() > first {
			woven := weave(pieces[i], p.Between(first, last))
			pieces = slices.Replace(pieces, i, i+1, woven...)
			i += len(woven) - 1
		}
		p = p.Between(last+1, p.Last())
	}
	if len(p) > 0 {
		pieces = append(pieces, p)
	}
	return pieces
}

// weave merges two pieces point by point; of two points at one time the first piece's stays.
func weave(a, b Points) (out []Points) {
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		var ta, tb int64
		var na, nb int
		if i < len(a) {
			ta, na = timeAt(a, i), a.length(i)
		}
		if j < len(b) {
			tb, nb = timeAt(b, j), b.length(j)
		}
		switch {
		case j >= len(b) || i < len(a) && ta < tb:
			out = append(out, a[i:i+na])
			i += na + 1
		case i >= len(a) || tb < ta:
			out = append(out, b[j:j+nb])
			j += nb + 1
		default:
			j += nb + 1
		}
	}
	return out
}

func addNew(to, from []string) []string {
	for _, s := range from {
		if !slices.Contains(to, s) {
			to = append(to, s)
		}
	}
	return to
}

// inputs is a heap of answers by their next series, and of equal ones by their rank.
type inputs []input

type input struct {
	series []Series
	rank   int
}

func (h inputs) Len() int { return len(h) }
func (h inputs) Less(i, j int) bool {
	if c := labels.Compare(h[i].series[0].Labels, h[j].series[0].Labels); c != 0 {
		return c < 0
	}
	return h[i].rank < h[j].rank
}
func (h inputs) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is part of heap.Interface; inputs only leave.
func (h *inputs) Push(x any) { *h = append(*h, x.(input)) }

// Pop is part of heap.Interface.
func (h *inputs) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// advance moves the first input to its next series.
func (h *inputs) advance() {
	if (*h)[0].series = (*h)[0].series[1:]; len((*h)[0].series) == 0 {
		heap.Pop(h)
		return
	}
	heap.Fix(h, 0)
}
