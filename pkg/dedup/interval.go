package dedup

import (
	"math"
	"slices"
	"sort"
)

const (
	// Context is how many samples on either side of a stretch say what may lie in it: its neighbour, and as many
	// more as distances are learned from.
	Context = 1 + lengthsMax
	// lengthsMax is how many distances before and as many after a hole its interval is learned from: as few as
	// still outvote an odd one and some holes nearby.
	lengthsMax = 4
	// reachMin is what samples matter to one another that are scraped every five minutes or more often: four
	// intervals before and after a hole, and one as long as four, with a fifth to spare.
	reachMin = 3 * 24 * 60 * 1000
	// reachMax is enough for two intervals of an hour before and after.
	reachMax = 3 * 150 * 60 * 1000
)

// Reach returns how far in ms samples matter to one another in data of a resolution in ms, 0 being scraped: what
// is merged for a range depends on nothing further away from it than this.
func Reach(resolution int64) int64 { return min(max(reachMin, 3*6*resolution), reachMax) }

// lengths keeps the two shortest distances that it is shown.
type lengths struct {
	n           int
	first, next int64
}

func (l *lengths) add(d int64) {
	switch {
	case l.n == 0 || d < l.first:
		l.first, l.next = d, l.first
	case l.n == 1 || d < l.next:
		l.next = d
	}
	l.n++
}

// second is the second shortest: an odd sample makes one that is too short, and holes make them longer. It is the
// shortest if that is all there is, and 0 without any.
func (l *lengths) second() int64 {
	if l.n < 2 {
		return l.first
	}
	return l.next
}

// before shows it the distances before the i-th of times, as far as near.
func (l *lengths) before(times []int64, i int, near int64) {
	for k := i; k > 0 && k > i-lengthsMax && times[i]-times[k-1] <= near; k-- {
		l.add(times[k] - times[k-1])
	}
}

// after shows it the distances after the i-th of times, as far as near.
func (l *lengths) after(times []int64, i int, near int64) {
	for k := i; k+1 < len(times) && k < i+lengthsMax && times[k+1]-times[i] <= near; k++ {
		l.add(times[k+1] - times[k])
	}
}

// span returns which of times, which are in order, lie from mint to maxt, both included.
func span(times []int64, mint, maxt int64) (i, j int) {
	i = sort.Search(len(times), func(k int) bool { return times[k] >= mint })
	j = i + sort.Search(len(times)-i, func(k int) bool { return times[i+k] > maxt })
	return i, j
}

// marksWithin tells whether one of marks lies between a and b, both excluded.
func marksWithin(marks []int64, a, b int64) bool {
	i, _ := slices.BinarySearch(marks, a+1)
	return i < len(marks) && marks[i] < b
}

// Add returns the time t in ms moved by d ms, which may be negative, no further than the ends of time.
func Add(t, d int64) int64 {
	if d > 0 && t > math.MaxInt64-d {
		return math.MaxInt64
	}
	if d < 0 && t < math.MinInt64-d {
		return math.MinInt64
	}
	return t + d
}
