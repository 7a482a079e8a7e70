package xor

import (
	"slices"
	"sort"
)

// Samples are samples in order of time: the i-th was taken at Times[i] and has the value Values[i]. The
// arrays are as long as one another. They belong to whoever made the struct; copies of it share them.
type Samples struct {
	Times  []int64 // ms since the epoch
	Values []float64
}

// Len is the number of samples.
func (s *Samples) Len() int { return len(s.Times) }

// Reset forgets the samples and keeps the arrays.
func (s *Samples) Reset() { s.Times, s.Values = s.Times[:0], s.Values[:0] }

// Between returns the samples from mint to maxt, both included, within the same arrays. Appending to
// the result never overwrites those that follow.
func (s Samples) Between(mint, maxt int64) Samples {
	from := sort.Search(len(s.Times), func(i int) bool { return s.Times[i] >= mint })
	n := sort.Search(len(s.Times)-from, func(i int) bool { return s.Times[from+i] > maxt })
	return Samples{
		Times:  s.Times[from : from+n : from+n],
		Values: s.Values[from : from+n : from+n],
	}
}

// extend makes the arrays n longer and returns the new part. What it holds is arbitrary.
func (s *Samples) extend(n int) (times []int64, values []float64) {
	end := len(s.Times) + n
	s.Times = slices.Grow(s.Times, n)[:end]
	s.Values = slices.Grow(s.Values, n)[:end]
	return s.Times[end-n:], s.Values[end-n:]
}

// drop takes back the last n samples.
func (s *Samples) drop(n int) {
	end := len(s.Times) - n
	s.Times, s.Values = s.Times[:end], s.Values[:end]
}
