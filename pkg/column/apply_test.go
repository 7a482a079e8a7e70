package column

import "testing"

// Shows that values are replaced and removed where there are any, and nowhere else.
func TestApply(t *testing.T) {
	var c Column
	c.Reset(200)
	for i := 0; i < 200; i += 3 {
		c.set(i, float64(i))
	}
	c.Apply(func(v float64) (float64, bool) { return -v, int(v)%2 == 0 })
	for i := range 200 {
		v, ok := c.At(i)
		if want := i%6 == 0; ok != want || ok && v != float64(-i) {
			t.Errorf("step %d: %v, %v", i, v, ok)
		}
	}
	if got := c.Count(); got != 34 {
		t.Errorf("%d values, want 34", got)
	}
}
