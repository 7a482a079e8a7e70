package column

import "math/bits"

// Steps are the times at which a selector is evaluated, in ms: those of the query with the selector's offset
// taken off. With an @ modifier they are all the same, and Step is 0.
type Steps struct {
	First, Step int64
	N           int
}

// At is the time of the i-th step.
func (s Steps) At(i int) int64 { return s.First + int64(i)*s.Step }

// Column holds a value for some of the steps. The zero value is a column of no steps.
type Column struct {
	values  []float64
	present []uint64 // a bit a step
}

// Reset makes it an empty column of n steps. Its arrays are reused.
func (c *Column) Reset(n int) {
	if cap(c.values) < n {
		c.values = make([]float64, n)
		c.present = make([]uint64, words(n))
	}
	c.values = c.values[:n]
	c.present = c.present[:words(n)]
	clear(c.present)
}

func words(n int) int { return (n + 63) / 64 }

func (c *Column) set(i int, v float64) {
	c.values[i] = v
	c.present[i/64] |= 1 << (i % 64)
}

// At returns the value of the i-th step, if there is one.
func (c *Column) At(i int) (v float64, ok bool) {
	return c.values[i], c.present[i/64]&(1<<(i%64)) != 0
}

// Count is the number of steps that have a value.
func (c *Column) Count() int {
	n := 0
	for _, w := range c.present {
		n += bits.OnesCount64(w)
	}
	return n
}

// Bytes is the memory that a column of n steps takes.
func Bytes(n int) int64 { return int64(n)*8 + int64(words(n))*8 }
