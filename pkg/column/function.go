package column

import (
	"math"

	"github.com/prometheus/prometheus/model/value"
)

// Function is a PromQL function over a range vector with no other argument, or Latest.
type Function struct {
	// Name is PromQL's, empty for Latest.
	Name string
	eval func(e *Evaluator, times []int64, values []float64, out *Column)
}

// KeepsName tells whether the metric name stays on what the function makes.
func (f Function) KeepsName() bool {
	return f.Name == "" || f.Name == "last_over_time" || f.Name == "first_over_time"
}

// Latest is what an instant selector does: the latest sample, unless that is a staleness marker.
var Latest = Function{eval: latest}

func latest(e *Evaluator, times []int64, values []float64, out *Column) {
	span := e.span.Milliseconds()
	next := 0
	for i := range e.samples {
		at := e.steps.At(i)
		for next < len(times) && times[next] <= at {
			next++
		}
		if next == 0 || times[next-1] <= at-span {
			continue
		}
		if v := values[next-1]; !value.IsStaleNaN(v) {
			out.set(i, v)
			e.samples[i]++
		}
	}
}

// Range finds a range function by its PromQL name.
func Range(name string) (Function, bool) {
	f, ok := ranges[name]
	return Function{Name: name, eval: f}, ok
}

var ranges = map[string]func(e *Evaluator, times []int64, values []float64, out *Column){
	"rate":     growth{counter: true, perSecond: true}.eval,
	"increase": growth{counter: true}.eval,
	"delta":    growth{}.eval,
	"irate":    lastTwo{counter: true, perSecond: true}.eval,
	"idelta":   lastTwo{}.eval,

	"min_over_time":     extreme(func(kept, v float64) bool { return kept > v }),
	"max_over_time":     extreme(func(kept, v float64) bool { return kept < v }),
	"sum_over_time":     ofValues(sum),
	"avg_over_time":     ofValues(average),
	"stdvar_over_time":  ofValues(variance),
	"stddev_over_time":  ofValues(func(vs []float64) float64 { return math.Sqrt(variance(vs)) }),
	"count_over_time":   ofValues(func(vs []float64) float64 { return float64(len(vs)) }),
	"present_over_time": ofValues(func([]float64) float64 { return 1 }),
	"last_over_time":    ofValues(func(vs []float64) float64 { return vs[len(vs)-1] }),
	"first_over_time":   ofValues(func(vs []float64) float64 { return vs[0] }),
	"resets":            ofValues(resets),
	"changes":           ofValues(changes),
}

// ofValues makes an evaluation of a function of the values in a window, of which there is at least one.
func ofValues(f func(vs []float64) float64) func(*Evaluator, []int64, []float64, *Column) {
	return func(e *Evaluator, times []int64, values []float64, out *Column) {
		e.windows(times, func(step, lo, hi int) { out.set(step, f(values[lo:hi])) })
	}
}

func sum(vs []float64) float64 {
	var s, c float64
	for _, v := range vs {
		s, c = compensated(s, c, v)
	}
	if math.IsInf(s, 0) {
		return s
	}
	return s + c
}

func average(vs []float64) float64 {
	s, c := vs[0], 0.0
	for i := 1; i < len(vs); i++ {
		more, moreC := compensated(s, c, vs[i])
		if math.IsInf(more, 0) {
			m := mean{sum: s, c: c, n: float64(i)}
			for _, v := range vs[i:] {
				m.add(v)
			}
			return m.result()
		}
		s, c = more, moreC
	}
	return mean{sum: s, c: c, n: float64(len(vs))}.result()
}

// variance is that of the whole population.
func variance(vs []float64) float64 {
	var n, mean, meanC, squares, squaresC float64
	for _, v := range vs {
		n++
		off := v - (mean + meanC)
		mean, meanC = compensated(mean, meanC, off/n)
		squares, squaresC = compensated(squares, squaresC, off*(v-(mean+meanC)))
	}
	return (squares + squaresC) / n
}

func resets(vs []float64) float64 {
	n := 0
	for i := 1; i < len(vs); i++ {
		if vs[i] < vs[i-1] {
			n++
		}
	}
	return float64(n)
}

func changes(vs []float64) float64 {
	n := 0
	for i := 1; i < len(vs); i++ {
		if vs[i] != vs[i-1] && !(math.IsNaN(vs[i]) && math.IsNaN(vs[i-1])) {
			n++
		}
	}
	return float64(n)
}

// extreme evaluates the least or the greatest value in each window, in one pass over the series: the deque
// holds the positions whose values may still become the extreme. NaN is it only where there is
// nothing else.
func extreme(beaten func(kept, v float64) bool) func(*Evaluator, []int64, []float64, *Column) {
	return func(e *Evaluator, times []int64, values []float64, out *Column) {
		dq, head, seen := e.deque[:0], 0, 0
		e.windows(times, func(step, lo, hi int) {
			for ; seen < hi; seen++ {
				v := values[seen]
				if math.IsNaN(v) {
					continue
				}
				for len(dq) > head && beaten(values[dq[len(dq)-1]], v) {
					dq = dq[:len(dq)-1]
				}
				dq = append(dq, seen)
			}
			for head < len(dq) && dq[head] < lo {
				head++
			}
			if head < len(dq) {
				out.set(step, values[dq[head]])
			} else {
				out.set(step, values[hi-1])
			}
		})
		e.deque = dq[:0]
	}
}
