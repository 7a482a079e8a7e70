package column

import "math"

// compensated adds v to a running sum whose lost low bits are kept in c (Neumaier's variant of Kahan's
// sum). A sum that overflows loses its compensation, which could only make it NaN.
func compensated(sum, c, v float64) (newSum, newC float64) {
	t := sum + v
	switch {
	case math.IsInf(t, 0):
		return t, 0
	case math.Abs(sum) >= math.Abs(v):
		return t, c + ((sum - t) + v)
	}
	return t, c + ((v - t) + sum)
}

// mean is a running arithmetic mean: a compensated sum for as long as that does not overflow, and from
// then on an incremental mean.
type mean struct {
	sum, c, n   float64 // sum holds the mean once incremental
	incremental bool
}

func (m *mean) add(v float64) {
	m.n++
	if m.n == 1 {
		m.sum, m.c = v, 0
		return
	}
	if !m.incremental {
		sum, c := compensated(m.sum, m.c, v)
		if !math.IsInf(sum, 0) {
			m.sum, m.c = sum, c
			return
		}
		m.incremental = true
		m.sum /= m.n - 1
		m.c /= m.n - 1
	}
	share := (m.n - 1) / m.n
	m.sum, m.c = compensated(share*m.sum, share*m.c, v/m.n)
}

func (m mean) result() float64 {
	if m.incremental {
		return m.sum + m.c
	}
	return m.sum/m.n + m.c/m.n
}
