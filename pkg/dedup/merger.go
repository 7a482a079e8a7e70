package dedup

import (
	"math"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/model/value"
)

// Window is a stretch of what one replica recorded: samples in order of time, no two of one time, and apart from
// them the times of its staleness markers, also in order. The arrays are lent.
type Window[V any] struct {
	Times  []int64 // ms
	Values []V
	Marks  []int64
}

// Source hands out what one replica recorded.
type Source[V any] interface {
	// Around returns the samples and markers from mint to maxt. With context it also returns those before and
	// after that say where the samples lie relative to their neighbours: on either side Context samples, or all
	// within beyond ms where there are fewer. More does no harm. What was returned is valid until the next call.
	Around(mint, maxt int64, context bool, beyond int64) (Window[V], error)
	// Ahead returns until when it is good to read at once from t on: a time later than t, MaxInt64 when the
	// replica has nothing from t on. Nothing depends on it but memory.
	Ahead(t int64) int64
}

// Merger merges the replicas of one series, whatever kind of samples they hold. The rules that its comments cite
// are those of DESIGN.md. It is for one goroutine; Reset makes it ready for the next series.
type Merger[V any] struct {
	sources []Source[V] // in order of their names
	stale   V           // what a staleness marker is handed out as
	isStale func(V) bool
	reach   int64 // see Reach
	times   []int64
	values  []V
	marked  int // markers among them
}

// NewMerger makes a merger of samples of a kind, with the value that stands for a staleness marker.
func NewMerger[V any](stale V, isStale func(V) bool) *Merger[V] {
	return &Merger[V]{stale: stale, isStale: isStale}
}

// NewFloats makes a merger of floats.
func NewFloats() *Merger[float64] {
	return NewMerger(math.Float64frombits(value.StaleNaN), value.IsStaleNaN)
}

// Reset sets the sources, in order of the names of their replicas, and the reach (see Reach). The slice is copied.
func (m *Merger[V]) Reset(sources []Source[V], reach int64) {
	m.sources, m.reach = append(m.sources[:0], sources...), reach
}

// Between returns the merged samples from mint to maxt, staleness markers among them. They are valid until the
// next call.
func (m *Merger[V]) Between(mint, maxt int64) (times []int64, values []V, err error) {
	if len(m.sources) == 0 {
		return nil, nil, nil
	}
	m.times, m.values, m.marked = m.times[:0], m.values[:0], 0
	w, err := m.window(0, mint, maxt)
	if err != nil {
		return nil, nil, err
	}
	if i, j, whole := m.complete(&w, mint, maxt); whole {
		return w.Times[i:j:j], w.Values[i:j:j], nil
	}
	if err := m.merge(0, &w, mint, maxt); err != nil {
		return nil, nil, err
	}
	return m.times, m.values, nil
}

// Ahead returns until when it is good to merge at once what comes after t, MaxInt64 when nothing does.
func (m *Merger[V]) Ahead(t int64) int64 {
	end := int64(math.MaxInt64)
	for _, s := range m.sources {
		end = min(end, s.Ahead(t))
		if end != math.MaxInt64 && end <= Add(t, m.near()) {
			break // There is something soon, and the others may stay as they are.
		}
	}
	return end
}

// Held is for how many samples the merger keeps memory of its own.
func (m *Merger[V]) Held() int { return cap(m.times) }

func (m *Merger[V]) window(level int, mint, maxt int64) (Window[V], error) {
	return m.sources[level].Around(mint, maxt, level < len(m.sources)-1, m.reach)
}

// near is how far apart samples of one replica may be and still tell anything about one another.
func (m *Merger[V]) near() int64 { return m.reach / 3 }

// complete tells whether the first replica has everything from mint to maxt, and where in the window.
func (m *Merger[V]) complete(w *Window[V], mint, maxt int64) (i, j int, whole bool) {
	i, j = span(w.Times, mint, maxt)
	if len(w.Marks) > 0 || len(m.sources) > 1 && (i == 0 || j == len(w.Times)) {
		return i, j, false
	}
	return i, j, len(m.sources) == 1 || m.nextOpen(w, i-1, j) == j
}

// merge appends what the replica of a level has, and in its holes what those after it have (1, 2).
func (m *Merger[V]) merge(level int, w *Window[V], mint, maxt int64) error {
	i, j := span(w.Times, mint, maxt)
	if level == len(m.sources)-1 {
		m.take(w, i, j, mint, maxt)
		return nil
	}
	from := i
	for g := m.nextOpen(w, i-1, j); g < j; g = m.nextOpen(w, g+1, j) {
		if g >= from {
			m.times, m.values = append(m.times, w.Times[from:g+1]...), append(m.values, w.Values[from:g+1]...)
			from = g + 1
		}
		if err := m.fill(level, w, g, mint, maxt); err != nil {
			return err
		}
	}
	m.times, m.values = append(m.times, w.Times[from:j]...), append(m.values, w.Values[from:j]...)
	return nil
}

// take appends the samples of a window from i to j, and its markers from mint to maxt.
func (m *Merger[V]) take(w *Window[V], i, j int, mint, maxt int64) {
	a, b := span(w.Marks, mint, maxt)
	for _, mark := range w.Marks[a:b] {
		k := i + sort.Search(j-i, func(k int) bool { return w.Times[i+k] > mark })
		m.times, m.values = append(m.times, w.Times[i:k]...), append(m.values, w.Values[i:k]...)
		i = k
		if k == 0 || w.Times[k-1] != mark {
			m.mark(mark)
		}
	}
	m.times, m.values = append(m.times, w.Times[i:j]...), append(m.values, w.Values[i:j]...)
}

func (m *Merger[V]) mark(t int64) {
	m.times, m.values = append(m.times, t), append(m.values, m.stale)
	m.marked++
}

// nextOpen returns the first g from on, below to, for which the others are to be looked at between the g-th
// sample of the window and the one after it; to when there is none. -1 and the last stand for what lies
// before and after all samples.
func (m *Merger[V]) nextOpen(w *Window[V], from, to int) int {
	if from < 0 || len(w.Times) == 0 {
		if from < to {
			return from
		}
		return to
	}
	last := min(to, len(w.Times)-1) // of the distances, the end of those that have two ends
	for g := from; g < last; {
		end := min(g+blockLen, last)
		usual := m.usual(w.Times, g, end)
		for ; g < end; g++ {
			if w.Times[g+1]-w.Times[g] > usual && m.isHole(w.Times, g) {
				return g
			}
			if len(w.Marks) > 0 && marksWithin(w.Marks, w.Times[g], w.Times[g+1]) {
				return g
			}
		}
	}
	return min(max(last, from), to)
}

// blockLen is how many distances are looked at together.
const blockLen = 128

// usual returns a distance that none of those from i to j, if it is no longer, can be a hole: one and a half
// times the shortest of them and of their neighbours. It is -1 if there are too few to tell.
func (m *Merger[V]) usual(times []int64, i, j int) int64 {
	lo, hi := max(i-Context+1, 0), min(j+Context-1, len(times)-1)
	if hi-lo < 3 {
		return -1
	}
	least, most := int64(math.MaxInt64), int64(0)
	before := times[lo]
	for _, t := range times[lo+1 : hi+1] {
		d := t - before
		before = t
		least, most = min(least, d), max(most, d)
	}
	if most > m.near()/2 {
		return -1 // Some may have no neighbours that are near enough to learn from.
	}
	return least + least/2
}

// isHole is the rule (2) itself for the g-th distance.
func (m *Merger[V]) isHole(times []int64, g int) bool {
	d := times[g+1] - times[g]
	if d > m.near() {
		return true
	}
	var l lengths
	l.before(times, g, m.near())
	l.after(times, g+1, m.near())
	if l.n < 2 {
		return true // The others know more.
	}
	return d > l.second()+l.second()/2
}

// hole is what lies between two samples of a replica, or before the first or after the last.
type hole struct {
	p, n         int64 // MinInt64 and MaxInt64 where there is no sample
	open         bool  // samples of others may be taken
	from, to     int64 // the times of those, both included
	lateP, lateN int64 // one and a half intervals as they are around p and n
	near         int64
}

// hole finds what there is to know about the g-th distance.
func (m *Merger[V]) hole(level int, times []int64, g int, mint, maxt int64) (h hole, err error) {
	h = hole{p: math.MinInt64, n: math.MaxInt64, open: true, from: math.MinInt64, to: math.MaxInt64, near: m.near()}
	if g >= 0 {
		h.p = times[g]
	}
	if g+1 < len(times) {
		h.n = times[g+1]
	}
	since := max(h.p, mint) // Nothing before is asked for any more.
	var left, right int64
	if h.p != math.MinInt64 && h.n != math.MaxInt64 && h.n-h.p <= m.near() {
		var l lengths
		l.before(times, g, m.near())
		l.after(times, g+1, m.near())
		if left, err = m.interval(level, l, since, h.p); err != nil {
			return h, err
		}
		if left == 0 {
			left = h.n - h.p // Nobody knows better.
		}
		right = left
		h.open = h.n-h.p > left+left/2
	} else {
		// An end that lies further away from the wanted times decides nothing.
		if h.p != math.MinInt64 && h.p >= Add(mint, -m.near()) {
			var l lengths
			l.before(times, g, m.near())
			if left, err = m.interval(level, l, since, h.p); err != nil {
				return h, err
			}
		}
		if h.n != math.MaxInt64 && h.n <= Add(maxt, m.near()) {
			var l lengths
			l.after(times, g+1, m.near())
			if right, err = m.interval(level, l, since, h.n); err != nil {
				return h, err
			}
		}
	}
	if h.p != math.MinInt64 {
		h.from = Add(h.p, max(1, m.half(left)))
	}
	if h.n != math.MaxInt64 {
		h.to = Add(h.n, -max(1, m.half(right)))
	}
	h.lateP, h.lateN = min(3*m.half(left), m.near()), min(3*m.half(right), m.near())
	if h.p == math.MinInt64 {
		h.lateP = h.lateN
	}
	if h.n == math.MaxInt64 {
		h.lateN = h.lateP
	}
	return h, nil
}

// half is half an interval, rounded up, and no more than half of what is near.
func (m *Merger[V]) half(interval int64) int64 { return min(interval/2+interval%2, m.near()/2) }

// interval makes an interval of what a replica's distances around t say, or, where they are fewer than two,
// those of the first replica after it that has two there.
func (m *Merger[V]) interval(level int, l lengths, since, t int64) (int64, error) {
	known := l
	for l.n < 2 {
		if level++; level == len(m.sources) {
			return known.second(), nil
		}
		l = lengths{}
		w, err := m.sources[level].Around(min(since, Add(t, -m.near())), Add(t, m.near()), false, m.reach)
		if err != nil {
			return 0, err
		}
		i, j := span(w.Times, Add(t, -m.near()), Add(t, m.near()))
		near := w.Times[i:j]
		at, _ := span(near, t, t)
		l.before(near, at-1, m.near())
		l.after(near, at, m.near())
		if l.n > known.n {
			known = l
		}
	}
	return l.second(), nil
}

// fill appends what the other replicas have between the g-th sample of the window and the next (3), and the
// markers (4).
func (m *Merger[V]) fill(level int, w *Window[V], g int, mint, maxt int64) error {
	times, marks := w.Times, w.Marks
	h, err := m.hole(level, times, g, mint, maxt)
	if err != nil {
		return err
	}
	start, marked := len(m.times), m.marked
	from, to := max(h.from, mint), min(h.to, maxt)
	var outside []int64 // markers that may lie nearer to p and n than samples do
	if h.open {
		// Markers count wherever they lie in the hole.
		between, until := max(Add(h.p, 1), mint), min(Add(h.n, -1), maxt)
		if between > until {
			return nil
		}
		other, err := m.window(level+1, between, until)
		if err != nil {
			return err
		}
		i, j := span(other.Marks, between, until)
		if outside = slices.Clone(other.Marks[i:j]); i == j {
			between, until = from, to
		}
		if between <= until {
			if err := m.merge(level+1, &other, between, until); err != nil {
				return err
			}
		}
	}
	if len(marks) == 0 && marked == m.marked && len(outside) == 0 {
		return nil
	}
	return m.markHole(level, &h, marks, outside, start, mint, maxt)
}

// markHole decides on the markers in a hole: those of the replica itself, and those of the others, which lie
// among the samples from start on. It puts all in order.
func (m *Merger[V]) markHole(level int, h *hole, marks, outside []int64, start int, mint, maxt int64) error {
	i, j := span(marks, max(h.p, Add(mint, -m.near())), min(h.n, Add(maxt, m.near())))
	var own []int64
	for _, t := range marks[i:j] {
		late := h.late(t)
		if late == 0 || t <= h.p || t >= h.n {
			continue
		}
		alive, err := m.alive(level+1, min(t, max(h.p, mint)), t, Add(t, late))
		if err != nil {
			return err
		}
		if !alive {
			own = append(own, t)
		}
	}
	times, values := slices.Clone(m.times[start:]), slices.Clone(m.values[start:])
	m.times, m.values = m.times[:start], m.values[:start]
	next, b := span(own, mint, maxt)
	for i, t := range times {
		for ; next < b && own[next] < t; next++ {
			m.mark(own[next])
		}
		switch {
		case !m.isStale(values[i]):
			if next < b && own[next] == t {
				next++
			}
			if t < h.from || t > h.to {
				continue
			}
		case next < b && own[next] == t:
			next++
		case h.livesAfter(t) || near(own, t, h.late(t)):
			continue
		case (t < h.from || t > h.to) && !slices.Contains(outside, t):
			continue
		}
		m.times, m.values = append(m.times, t), append(m.values, values[i])
	}
	for ; next < b; next++ {
		m.mark(own[next])
	}
	return nil
}

// near tells whether one of times lies no further than d from t.
func near(times []int64, t, d int64) bool {
	i, j := span(times, Add(t, -d), Add(t, d))
	return i < j
}

// alive tells whether a replica from a level on has a sample from mint to maxt, and no marker at mint. Nothing
// before since is asked for any more.
func (m *Merger[V]) alive(level int, since, mint, maxt int64) (bool, error) {
	for ; level < len(m.sources); level++ {
		w, err := m.sources[level].Around(since, maxt, false, m.reach)
		if err != nil {
			return false, err
		}
		if i, j := span(w.Times, mint, maxt); i < j {
			if _, same := slices.BinarySearch(w.Marks, mint); !same {
				return true, nil
			}
		}
	}
	return false, nil
}

// late is one and a half intervals as they are around t, 0 where the replica has no sample near before t.
func (h *hole) late(t int64) int64 {
	if h.p == math.MinInt64 || t-h.p > h.near {
		return 0
	}
	return h.lateP
}

// livesAfter tells whether the replica whose hole it is has a sample less than one and a half intervals after t.
func (h *hole) livesAfter(t int64) bool { return h.n != math.MaxInt64 && h.n <= Add(t, h.lateN) }
