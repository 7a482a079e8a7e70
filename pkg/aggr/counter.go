package aggr

import (
	"math"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
)

// CounterReader joins the counters of chunk after chunk to one running total. The zero CounterReader is ready.
//
// It takes raw samples as well, so a series may turn from raw data to aggregates and back.
type CounterReader struct {
	begun bool
	t     int64
	last  float64
	total float64
}

// Read appends the totals of the next chunk's samples to dst. A sample at the time of the one before is the
// last raw value of its chunk: what the next chunk's first is compared with. NaNs, and samples that go back in
// time, are passed over.
func (r *CounterReader) Read(dst *xor.Samples, chunk xor.Samples) {
	values := chunk.Values[:len(chunk.Times)]
	for i, t := range chunk.Times {
		v := values[i]
		switch {
		case math.IsNaN(v) || r.begun && t < r.t:
			continue
		case !r.begun:
			r.begun, r.total = true, v
		case t == r.t:
			r.last = v
			continue
		case v < r.last:
			r.total += v
		default:
			r.total += v - r.last
		}
		r.t, r.last = t, v
		dst.Times, dst.Values = append(dst.Times, t), append(dst.Values, r.total)
	}
}

// Last is the last raw value read.
func (r *CounterReader) Last() float64 { return r.last }

// CutCounter returns the samples of a counter's chunk that belong to the windows from mint to maxt, with one in front
// that the first window grew from, and the last one once more, as a chunk of its own has them. The arrays are new.
func CutCounter(s xor.Samples, mint, maxt int64) xor.Samples {
	n := s.Len()
	if n < 3 {
		return xor.Samples{}
	}
	var out xor.Samples
	last := s.Values[n-1]
	for i := 1; i < n-1; i++ {
		if s.Times[i] < mint || s.Times[i] > maxt {
			continue
		}
		if out.Len() == 0 {
			// What the window grew by before its end is not known apart unless it is the chunk's first.
			from := i
			if i == 1 {
				from = 0
			}
			out.Times, out.Values = append(out.Times, s.Times[from]), append(out.Values, s.Values[from])
		}
		if n := out.Len(); n > 1 || out.Times[0] != s.Times[i] {
			out.Times, out.Values = append(out.Times, s.Times[i]), append(out.Values, s.Values[i])
		}
	}
	if k := out.Len(); k > 0 {
		if out.Times[k-1] != s.Times[n-2] {
			last = out.Values[k-1]
		}
		out.Times, out.Values = append(out.Times, out.Times[k-1]), append(out.Values, last)
	}
	return out
}
