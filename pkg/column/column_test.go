package column

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

var nan, inf = math.NaN(), math.Inf(1)

// near tells whether values are equal to the last but one bit, or both NaN.
func near(a, b float64) bool {
	return same(a, b) || math.Abs(a-b) <= 4e-16*math.Abs(a)
}

// same tells whether values are equal to the last bit, or both NaN.
func same(a, b float64) bool {
	return math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b)
}

// Shows what each function makes of one window, (0s, 60s], with samples at its open start, inside and at
// its end.
func TestRangeFunctions(t *testing.T) {
	f := func(name string, times []int64, values []float64, want float64, wantOK bool) {
		t.Helper()
		fn, ok := Range(name)
		if !ok {
			t.Fatalf("no function %s", name)
		}
		e := NewEvaluator(fn, Steps{First: 60_000, N: 1}, time.Minute)
		var c Column
		e.Eval(times, values, &c)
		if v, ok := c.At(0); ok != wantOK || ok && !near(v, want) {
			t.Errorf("%s of %v: got %v, %v, want %v, %v", name, values, v, ok, want, wantOK)
		}
	}
	at := []int64{0, 15_000, 30_000, 45_000, 60_000, 75_000}
	five := []float64{100, 1, 2, 4, 8, 1000} // the first and the last lie outside
	f("delta", at, five, 7*60./45, true)
	// The counter was zero 45 s / 7 before its first sample.
	f("increase", at, five, 7*(45+45./7)/45, true)
	f("rate", at, five, 7*((45+45./7)/45/60), true)
	f("rate", at, []float64{100, 8, 9, 3, 4, 1000}, (4-8+9)*((45.+15)/45/60), true)
	f("rate", at[:2], five, 0, false)
	f("rate", nil, nil, 0, false)
	f("irate", at, five, 4./15, true)
	f("irate", at, []float64{0, 0, 0, 9, 6, 0}, 6./15, true)
	f("idelta", at, []float64{0, 0, 0, 9, 6, 0}, -3, true)
	f("sum_over_time", at, five, 15, true)
	f("sum_over_time", at, []float64{0, 1e100, 1, -1e100, 1, 0}, 2, true)
	f("sum_over_time", at, []float64{0, inf, 1, 1, 1, 0}, inf, true)
	f("avg_over_time", at, five, 3.75, true)
	f("avg_over_time", at, []float64{0, math.MaxFloat64, math.MaxFloat64, math.MaxFloat64, math.MaxFloat64, 0}, math.MaxFloat64, true)
	f("min_over_time", at, five, 1, true)
	f("max_over_time", at, five, 8, true)
	f("max_over_time", at, []float64{0, nan, nan, -3, nan, 0}, -3, true)
	f("max_over_time", at, []float64{0, nan, nan, nan, nan, 0}, nan, true)
	f("count_over_time", at, five, 4, true)
	f("count_over_time", at[:1], five, 0, false)
	f("present_over_time", at, five, 1, true)
	f("first_over_time", at, five, 1, true)
	f("last_over_time", at, five, 8, true)
	f("stdvar_over_time", at, []float64{0, 1, 3, 1, 3, 0}, 1, true)
	f("stddev_over_time", at, []float64{0, 1, 5, 1, 5, 0}, 2, true)
	f("resets", at, []float64{100, 8, 9, 3, 2, 1}, 2, true)
	f("changes", at, []float64{100, nan, nan, 3, 3, 1}, 1, true)
	if _, ok := Range("histogram_quantile"); ok {
		t.Error("histogram_quantile is no range function")
	}
}

// Shows that an instant takes the latest sample that is not too old and not stale, and that samples are
// counted by step.
func TestLatest(t *testing.T) {
	stale := math.Float64frombits(value.StaleNaN)
	e := NewEvaluator(Latest, Steps{First: 0, Step: 10_000, N: 7}, 20*time.Second)
	var c Column
	e.Eval([]int64{5_000, 10_000, 41_000, 52_000}, []float64{1, 2, stale, 3}, &c)
	for i, want := range []float64{-1, 2, 2, -1, -1, -1, 3} { // at 30 s the sample is exactly 20 s old
		v, ok := c.At(i)
		if ok != (want != -1) || ok && v != want {
			t.Errorf("step %d: got %v, %v, want %v", i, v, ok, want)
		}
		if n := e.Samples()[i]; (n == 1) != ok {
			t.Errorf("step %d: %d samples", i, n)
		}
	}
	if c.Count() != 3 {
		t.Errorf("%d values", c.Count())
	}
}

// Shows that the extremes of sliding windows are those that looking at each window by itself finds,
// whatever the order of values and the distance of steps.
func FuzzExtremes(f *testing.F) {
	f.Add(uint64(1), uint16(50), int64(7), int64(20))
	f.Add(uint64(2), uint16(300), int64(100), int64(3))
	f.Add(uint64(3), uint16(1), int64(0), int64(1))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, step, span int64) {
		step, span = (step&0xffff)%1000, 1+(span&0xffff)%1000
		r := rand.New(rand.NewPCG(seed, 1))
		var times []int64
		var values []float64
		at := int64(0)
		for range n % 1000 {
			at += 1 + r.Int64N(20)
			times = append(times, at)
			values = append(values, []float64{nan, inf, -inf, 0, math.Copysign(0, -1), r.NormFloat64(), float64(r.IntN(4))}[r.IntN(7)])
		}
		steps := Steps{First: r.Int64N(50), Step: step, N: 70}
		for _, most := range []bool{false, true} {
			fn, _ := Range(map[bool]string{false: "min_over_time", true: "max_over_time"}[most])
			e := NewEvaluator(fn, steps, time.Duration(span)*time.Millisecond)
			var c Column
			e.Eval(times, values, &c)
			for i := range steps.N {
				want, found := nan, false
				for j, v := range values {
					if times[j] <= steps.At(i)-span || times[j] > steps.At(i) {
						continue
					}
					if !found || math.IsNaN(want) || most && v > want || !most && v < want {
						want = v
					}
					found = true
				}
				if v, ok := c.At(i); ok != found || ok && !same(v, want) {
					t.Fatalf("most %v, step %d: got %v, %v, want %v, %v", most, i, v, ok, want, found)
				}
			}
		}
	})
}

// naive aggregates one step's values by the definitions.
func naive(op Op, vs []float64) float64 {
	mean, squares := 0.0, 0.0
	for _, v := range vs {
		mean += v / float64(len(vs))
	}
	for _, v := range vs {
		squares += (v - mean) * (v - mean) / float64(len(vs))
	}
	least, greatest := vs[0], vs[0]
	for _, v := range vs {
		least, greatest = math.Min(least, v), math.Max(greatest, v)
	}
	return map[Op]float64{
		Sum: mean * float64(len(vs)), Avg: mean, Count: float64(len(vs)), Min: least, Max: greatest, Group: 1,
		Stdvar: squares, Stddev: math.Sqrt(squares),
	}[op]
}

// Shows that each aggregation gives what its definition says, for columns full and with holes, and that
// a step without any value has no result.
func TestGroups(t *testing.T) {
	const steps = 200
	r := rand.New(rand.NewPCG(7, 8))
	for name, op := range opNames {
		g := NewGroups(op, steps, func(labels.Labels) error { return nil })
		values := map[string][][]float64{}
		for i := range 60 {
			key := fmt.Sprint(i % 3)
			if values[key] == nil {
				values[key] = make([][]float64, steps)
			}
			var c Column
			c.Reset(steps)
			for s := range steps {
				// One group has full columns, one has holes, one has nothing in its second half.
				if i%3 == 0 || i%3 == 1 && r.IntN(3) > 0 || i%3 == 2 && s < 100 && r.IntN(2) > 0 {
					v := r.NormFloat64() * 100
					c.set(s, v)
					values[key][s] = append(values[key][s], v)
				}
			}
			if err := g.Add([]byte(key), &c, func() labels.Labels { return labels.FromStrings("key", key) }); err != nil {
				t.Fatal(err)
			}
		}
		g.Finish()
		if g.Len() != 3 {
			t.Fatalf("%s: %d groups", name, g.Len())
		}
		for i := range g.Len() {
			for s, vs := range values[g.Labels(i).Get("key")] {
				got, ok := g.At(i, s)
				if ok != (len(vs) > 0) {
					t.Fatalf("%s, group %d, step %d: got %v of %v", name, i, s, ok, vs)
				}
				if ok && math.Abs(got-naive(op, vs)) > 1e-9*(1+math.Abs(got)) {
					t.Fatalf("%s, group %d, step %d: got %v of %v", name, i, s, got, vs)
				}
			}
		}
	}
}

// Shows what aggregations make of values that are special.
func TestSpecialValues(t *testing.T) {
	f := func(op Op, want float64, vs ...float64) {
		t.Helper()
		g := NewGroups(op, 1, func(labels.Labels) error { return nil })
		for _, v := range vs {
			var c Column
			c.Reset(1)
			c.set(0, v)
			if err := g.Add(nil, &c, labels.EmptyLabels); err != nil {
				t.Fatal(err)
			}
		}
		g.Finish()
		if got, ok := g.At(0, 0); !ok || !near(got, want) {
			t.Errorf("%v of %v: got %v, want %v", op, vs, got, want)
		}
	}
	f(Sum, 2, 1, 1e100, 1, -1e100)
	f(Sum, inf, inf, 1)
	f(Sum, nan, inf, -inf)
	f(Avg, math.MaxFloat64, math.MaxFloat64, math.MaxFloat64, math.MaxFloat64)
	f(Avg, nan, nan, 1)
	f(Min, 1, nan, 1)
	f(Max, 1, nan, 1)
	f(Max, nan, nan, nan)
	f(Stddev, 0, 5)
	f(Stdvar, nan, inf, 1)
	f(Group, 1, nan)
	f(Count, 2, nan, nan)
}

// Shows that a group that is refused is not made, and that the error is handed on.
func TestRefusal(t *testing.T) {
	full := errors.New("full")
	left := 1
	g := NewGroups(Sum, 1, func(labels.Labels) error {
		if left--; left < 0 {
			return full
		}
		return nil
	})
	var c Column
	c.Reset(1)
	c.set(0, 1)
	for i, want := range []error{nil, nil, full} {
		if err := g.Add([]byte{byte(i / 2)}, &c, labels.EmptyLabels); !errors.Is(err, want) {
			t.Errorf("%d: got %v, want %v", i, err, want)
		}
	}
	if g.Len() != 1 {
		t.Errorf("%d groups", g.Len())
	}
}

// A day of a counter, scraped each 15 seconds, looked at each minute.
func BenchmarkEval(b *testing.B) {
	var times []int64
	var values []float64
	for i := range 5760 {
		times, values = append(times, int64(i)*15_000), append(values, float64(i*7))
	}
	for _, name := range []string{"rate", "max_over_time", "avg_over_time", "count_over_time"} {
		b.Run(name, func(b *testing.B) {
			fn, _ := Range(name)
			e := NewEvaluator(fn, Steps{Step: 60_000, N: 1441}, 5*time.Minute)
			var c Column
			for b.Loop() {
				e.Eval(times, values, &c)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(times)), "ns/sample")
		})
	}
}
