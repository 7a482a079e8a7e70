package column

// growth is rate, increase and delta: by how much a series grew in the window, extrapolated to its borders.
type growth struct{ counter, perSecond bool }

func (g growth) eval(e *Evaluator, times []int64, values []float64, out *Column) {
	e.resets = e.resets[:0]
	if g.counter {
		e.findResets(values)
	}
	span, seconds := e.span.Milliseconds(), e.span.Seconds()
	lo, hi, reset := 0, 0, 0
	for i := range e.samples {
		end := e.steps.At(i)
		start := end - span
		for hi < len(times) && times[hi] <= end {
			hi++
		}
		for lo < hi && times[lo] <= start {
			lo++
		}
		e.samples[i] += int64(hi - lo)
		if hi-lo < 2 {
			continue
		}
		first, last := lo, hi-1
		grown := values[last] - values[first]
		for reset < len(e.resets) && e.resets[reset] <= first {
			reset++
		}
		for _, at := range e.resets[reset:] {
			if at > last {
				break
			}
			grown += values[at-1]
		}
		factor := g.extrapolation(grown, values[first], start, times[first], times[last], end, last-first)
		if g.perSecond {
			factor /= seconds
		}
		out.set(i, grown*factor)
	}
}

// findResets notes the positions of the samples that are lower than the one before.
func (e *Evaluator) findResets(values []float64) {
	for i := 1; i < len(values); i++ {
		if values[i] < values[i-1] {
			e.resets = append(e.resets, i)
		}
	}
}

// extrapolation is by what the growth between the first and the last sample is multiplied to stand for the
// whole window from start to end, all in ms. A border that is not further from its sample than 1.1 times
// the average gap is reached; otherwise the series is taken to begin or end half a gap away. A
// counter begins no earlier than it would have been zero.
func (g growth) extrapolation(grown, value float64, start, first, last, end int64, gaps int) float64 {
	sampled := float64(last-first) / 1000
	gap := sampled / float64(gaps)
	near := gap * 1.1
	before, after := float64(first-start)/1000, float64(end-last)/1000
	if before >= near {
		before = gap / 2
	}
	if g.counter && grown > 0 && value >= 0 {
		if sinceZero := sampled * (value / grown); sinceZero < before {
			before = sinceZero
		}
	}
	if after >= near {
		after = gap / 2
	}
	return (sampled + before + after) / sampled
}

// lastTwo is irate and idelta: what lies between the last two samples of the window.
type lastTwo struct{ counter, perSecond bool }

func (l lastTwo) eval(e *Evaluator, times []int64, values []float64, out *Column) {
	e.windows(times, func(step, lo, hi int) {
		if hi-lo < 2 {
			return
		}
		v, before := values[hi-1], values[hi-2]
		if !l.counter || !(v < before) {
			v -= before
		}
		if l.perSecond {
			v /= float64(times[hi-1]-times[hi-2]) / 1000
		}
		out.set(step, v)
	})
}
