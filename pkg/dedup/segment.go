package dedup

import (
	"cmp"
	"math"
)

const (
	// enough samples of one replica make a cell that can be learned from: six distances, so that a hole and
	// an odd sample are outvoted. Cells are powers of two long, so they hold 7 to 14 samples of regular scrapes.
	enough = 7
	// windowMax bounds the samples of a replica that are looked at before the half of the cell at hand.
	windowMax = 16
	// cellBitsMax is the longest cell: 2^24 ms are 4.7 h.
	cellBitsMax = 24
)

// Cells is the multiple of the distance between samples within which they matter to one another: two cells,
// each of which holds at most 14 samples of a replica that misses none, and 32 of one that misses half.
const Cells = 64

// Reach returns how far in ms samples matter to one another that are as far apart as resolution, in ms, or
// scraped every two and a half minutes or more often.
func Reach(resolution int64) int64 {
	return min(max(1<<22, Cells*resolution), 1<<cellBitsMax)
}

// segment is a stretch of time with what was learned for it (see DESIGN.md, "Cells").
type segment struct {
	until    int64 // exclusive
	start    int64 // of the cell
	interval int64 // in ms, 0 if nothing could be learned
	half     int64 // half an interval, rounded up
	late     int64 // one and a half
	order    []int // the replicas, the best first
	copies   []bool
}

// segmentAt learns what holds at t, where some replica has a sample. It looks at nothing but the samples
// in the cell around t; bits, where the search for its size begins, makes no difference.
func (s *stay) segmentAt(t int64) {
	before := s.bits
	for s.bits > 0 && s.isEnough(t, s.bits-1) {
		s.bits--
	}
	for s.bits < cellBitsMax && !s.isEnough(t, s.bits) {
		s.bits++
	}
	length := int64(1) << s.bits
	start := t &^ (length - 1)
	// The half of the cell around t is not enough, nor is then any part of it: so all of it learns the same.
	half := t &^ (length/2 - 1)
	s.seg.until = add(half, max(1, length/2))
	if s.learned && before == s.bits && s.seg.start == start {
		return // The first half learned the same.
	}
	s.learned, s.seg.start = true, start
	for i := range s.replicas {
		r := &s.replicas[i]
		r.readTo(add(start, length))
		r.hi = r.at(add(start, length), r.next)
		r.lo = max(r.at(start, r.next), r.at(half, r.next)-windowMax)
	}
	s.learn()
	s.rank()
}

// isEnough tells whether the cell of 2^bits ms around t holds enough samples of one replica.
func (s *stay) isEnough(t int64, bits uint) bool {
	length := int64(1) << bits
	start := t &^ (length - 1)
	end := add(start, length)
	for i := range s.replicas {
		r := &s.replicas[i]
		r.readTo(end)
		if hi := r.at(end, r.next); hi >= enough && r.times[hi-enough] >= start {
			return true
		}
	}
	return false
}

// learn takes the second smallest distance between neighbours of the replica that has the shortest: holes
// are longer, and one odd sample is outvoted.
func (s *stay) learn() {
	best, least := int64(math.MaxInt64), int64(math.MaxInt64)
	for i := range s.replicas {
		r := &s.replicas[i]
		if r.hi-r.lo < 2 {
			continue
		}
		first, second := int64(math.MaxInt64), int64(math.MaxInt64)
		times := r.times[r.lo:r.hi]
		for j := 1; j < len(times); j++ {
			if d := times[j] - times[j-1]; d < first {
				first, second = d, first
			} else if d < second {
				second = d
			}
		}
		least = min(least, first)
		if len(times) >= enough {
			best = min(best, second)
		}
	}
	if best == math.MaxInt64 {
		best = least
	}
	if best == math.MaxInt64 {
		best = 0
	}
	s.seg.interval = best
	s.seg.half = best/2 + best%2
	s.seg.late = add(best, best/2)
}

// score is what replicas are ordered by.
type score struct {
	missed int64
	lead   int64 // of an interval's 1024 parts
}

// rank orders the replicas: who missed the least in the window comes first. Of equals it is the one that
// scrapes first after the longest pause of the others: that is as stable as the phases of their scrapes.
func (s *stay) rank() {
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range s.replicas {
		if r := &s.replicas[i]; r.lo < r.hi {
			first, last = min(first, r.times[r.lo]), max(last, r.times[r.hi-1])
		}
	}
	for i := range s.replicas {
		s.scores[i] = score{missed: s.missed(&s.replicas[i], first, last), lead: 1024}
		s.seg.order[i] = i
	}
	for i := range s.replicas {
		for j := i + 1; j < len(s.replicas); j++ {
			a, b := &s.replicas[i], &s.replicas[j]
			x, y, equal := lead(a, b, s.seg.interval)
			s.scores[i].lead = min(s.scores[i].lead, x)
			s.scores[j].lead = min(s.scores[j].lead, y)
			s.equal[i*len(s.replicas)+j], s.equal[j*len(s.replicas)+i] = equal, equal
		}
	}
	// Insertion: there are few.
	for i := 1; i < len(s.seg.order); i++ {
		for j := i; j > 0 && s.better(s.seg.order[j], s.seg.order[j-1]); j-- {
			s.seg.order[j], s.seg.order[j-1] = s.seg.order[j-1], s.seg.order[j]
		}
	}
	base := s.seg.order[0]
	s.alone = true
	for i := range s.replicas {
		n := min(s.replicas[base].hi-s.replicas[base].lo, s.replicas[i].hi-s.replicas[i].lo)
		equal := s.equal[base*len(s.replicas)+i]
		s.seg.copies[i] = i == base || equal >= 2 && 2*equal >= n
		s.alone = s.alone && (i == base || !s.seg.copies[i])
	}
}

func (s *stay) better(i, j int) bool {
	a, b := s.scores[i], s.scores[j]
	if a.missed != b.missed {
		return a.missed < b.missed
	}
	if a.lead != b.lead {
		return a.lead > b.lead
	}
	// Exactly opposite phases: whoever comes first in an interval counted from the epoch.
	if x, y := &s.replicas[i], &s.replicas[j]; x.lo < x.hi && y.lo < y.hi && s.seg.interval > 0 {
		if c := cmp.Compare(x.times[x.lo]%s.seg.interval, y.times[y.lo]%s.seg.interval); c != 0 {
			return c < 0
		}
	}
	return content(&s.replicas[i], &s.replicas[j]) < 0
}

// missed counts the samples that a replica lacks between those that others have.
func (s *stay) missed(r *replica, first, last int64) (n int64) {
	if r.lo == r.hi {
		return math.MaxInt64
	}
	if s.seg.interval == 0 {
		return 0
	}
	times := r.times[r.lo:r.hi]
	count := func(d int64) {
		if d > s.seg.late {
			n += (d+s.seg.half)/s.seg.interval - 1
		}
	}
	count(times[0] - first)
	for j := 1; j < len(times); j++ {
		if d := times[j] - times[j-1]; d > s.seg.late {
			count(d)
		}
	}
	count(last - times[len(times)-1])
	return n
}

// lead measures how long after the other's last sample each of two replicas scrapes, on average and in
// 1024 parts of an interval, and counts their equal timestamps: none if others lie so close to one another
// that they are two scrapes of the same.
func lead(a, b *replica, interval int64) (leadA, leadB int64, equal int) {
	x, y := a.times[a.lo:a.hi], b.times[b.lo:b.hi]
	lastX, lastY := int64(math.MinInt64), int64(math.MinInt64)
	var nA, nB int64
	two := false
	for len(x) > 0 || len(y) > 0 {
		switch {
		case len(y) == 0 || len(x) > 0 && x[0] < y[0]:
			lastX, x = x[0], x[1:]
			if lastY != math.MinInt64 {
				leadA += min(lastX-lastY, interval)
				nA++
				two = two || lastX-lastY < interval/2
			}
		case len(x) == 0 || y[0] < x[0]:
			lastY, y = y[0], y[1:]
			if lastX != math.MinInt64 {
				leadB += min(lastY-lastX, interval)
				nB++
				two = two || lastY-lastX < interval/2
			}
		default:
			lastX, lastY, x, y = x[0], y[0], x[1:], y[1:]
			nA++
			nB++
			equal++
		}
	}
	if two {
		equal = 0
	}
	part := func(sum, n int64) int64 {
		if n == 0 || interval == 0 {
			return 1024
		}
		return int64(float64(sum) * 1024 / float64(n*interval))
	}
	return part(leadA, nA), part(leadB, nB), equal
}

// content compares what two replicas hold in the window and, if that is equal, what they held just before,
// so that nothing depends on the order in which they were given.
func content(a, b *replica) int {
	x, y := a.buf[a.lo:a.hi], b.buf[b.lo:b.hi]
	for i := range min(len(x), len(y)) {
		if c := before(&x[i].sample, &y[i].sample); c != 0 {
			return c
		}
	}
	if len(x) != len(y) {
		return len(y) - len(x)
	}
	for i := 1; i <= windowMax && i <= a.lo && i <= b.lo; i++ {
		if c := before(&a.buf[a.lo-i].sample, &b.buf[b.lo-i].sample); c != 0 {
			return c
		}
	}
	return min(b.lo, windowMax) - min(a.lo, windowMax)
}

// before orders by time, then the greater value first.
func before(a, b *sample) int { return cmp.Or(cmp.Compare(a.t, b.t), compare(b, a)) }
