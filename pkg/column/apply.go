package column

import "math/bits"

// Apply replaces each value by what f makes of it, and removes those for which f says false.
func (c *Column) Apply(f func(v float64) (float64, bool)) {
	for w, word := range c.present {
		for rest := word; rest != 0; rest &= rest - 1 {
			bit := bits.TrailingZeros64(rest)
			v, ok := f(c.values[w*64+bit])
			if !ok {
				c.present[w] &^= 1 << bit
				continue
			}
			c.values[w*64+bit] = v
		}
	}
}
