package dedup

import (
	"cmp"
	"math"
	"slices"
)

// distances is how many of the last distances between neighbours the interval is learned from.
const distances = 8

// interval learns the scrape interval, in ms.
type interval struct {
	last   [distances]int64
	n      uint // how many were ever added
	length int64
}

// add notes the distance between two neighbours of one replica.
func (v *interval) add(d int64) {
	v.last[v.n%distances] = d
	v.n++
	// A running stream changes its rhythm seldom: looking at every fourth distance is soon enough.
	// The reader looks again before it calls a sample late.
	if v.n <= distances || v.n%4 == 0 {
		v.learn()
	}
}

// learn takes the second smallest of the last distances, the smallest while there are too few.
func (v *interval) learn() {
	known := v.last[:min(v.n, distances)]
	first, second := int64(math.MaxInt64), int64(math.MaxInt64)
	for _, d := range known {
		if d < first {
			first, second = d, first
		} else if d < second {
			second = d
		}
	}
	switch {
	case len(known) == 0:
		v.length = 0
	case len(known) < 3:
		v.length = first
	default:
		v.length = second
	}
}

// whole returns the interval as it was configured, most likely: whole seconds, but for very short ones.
func (v *interval) whole() int64 {
	const second = 1000
	if v.length < second {
		return v.length
	}
	return (v.length + second/2) / second * second
}

// less orders by length, then by what it was learned from, so that of several always the same is the least.
func (v *interval) less(w *interval) bool {
	return cmp.Or(cmp.Compare(v.length, w.length), cmp.Compare(v.n, w.n), slices.Compare(v.last[:], w.last[:])) < 0
}

// after returns t + num half intervals without overflow.
func (v *interval) after(t, num int64) int64 {
	d := v.length / 2 * num
	if v.length%2 == 1 {
		d += (num + 1) / 2
	}
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}
