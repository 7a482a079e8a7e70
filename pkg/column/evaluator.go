package column

import "time"

// Evaluator evaluates one function over many series, one after the other.
type Evaluator struct {
	function Function
	steps    Steps
	span     time.Duration // the range, or how far an instant selector looks back
	samples  []int64       // read per step, over all series so far

	resets []int // reused: where the current series falls
	deque  []int // reused: candidates for the greatest value
}

// NewEvaluator makes an evaluator of a function. The span is its range; for Latest it is how far back a
// sample may lie.
func NewEvaluator(f Function, steps Steps, span time.Duration) *Evaluator {
	return &Evaluator{function: f, steps: steps, span: span, samples: make([]int64, steps.N)}
}

// Eval makes the column of one series, whose samples are in order of time with no two of the same. Range
// functions take samples without staleness markers, Latest with them. The arrays are only read.
func (e *Evaluator) Eval(times []int64, values []float64, out *Column) {
	out.Reset(e.steps.N)
	e.function.eval(e, times, values[:len(times)], out)
}

// Samples are the numbers of samples that each step has read so far, as Prometheus counts them. They are
// the evaluator's own.
func (e *Evaluator) Samples() []int64 { return e.samples }

// windows calls f for each step whose window has samples: those later than the window's start and not
// later than the step, times[lo:hi].
func (e *Evaluator) windows(times []int64, f func(step, lo, hi int)) {
	span := e.span.Milliseconds()
	lo, hi := 0, 0
	for i := range e.samples {
		end := e.steps.At(i)
		for hi < len(times) && times[hi] <= end {
			hi++
		}
		for lo < hi && times[lo] <= end-span {
			lo++
		}
		if lo < hi {
			e.samples[i] += int64(hi - lo)
			f(i, lo, hi)
		}
	}
}
