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
