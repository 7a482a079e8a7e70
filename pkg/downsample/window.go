package downsample

import (
	"math"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
)

const (
	// A chunk of aggregates holds about as many windows as Prometheus's chunks hold samples.
	windowsPerChunk = 140
	// Raw data is taken to be scraped once a minute when the number of chunks is guessed; from that on it makes no
	// difference.
	rawInterval = 60_000
)

// windowEnd is the last millisecond of the window that t is in.
func windowEnd(t, resolution int64) int64 { return t - t%resolution + resolution - 1 }

// chunksOf is the number of chunks that samples from mint to maxt are cut into, of which there are count, as
// far apart as interval if none is missing.
func chunksOf(mint, maxt, interval, resolution int64, count int) int {
	windows := int((maxt - mint) / resolution)
	if all := int((maxt - mint) / interval); all > count {
		windows = int(float64(windows) * (float64(count) / float64(all)))
	}
	windows++
	n := 1
	for windows/n > windowsPerChunk {
		n++
	}
	return n
}

// floats are the aggregates of the windows of one chunk.
type floats struct {
	times                []int64
	count, sum, min, max []float64
	// counter has the first sample in front and the last behind: see Counter.
	counterTimes []int64
	counter      []float64
}

func (f *floats) reset() {
	f.times, f.count, f.sum, f.min, f.max = f.times[:0], f.count[:0], f.sum[:0], f.min[:0], f.max[:0]
	f.counterTimes, f.counter = f.counterTimes[:0], f.counter[:0]
}

// aggregate fills f from samples, of which there is one at least, all numbers.
//
// The counter begins with the first sample as it is and ends with the last one once more, at the time of the last window: so
// whoever reads chunk after chunk sees every increase between them, and every restart.
func (f *floats) aggregate(s xor.Samples, resolution int64) {
	f.reset()
	times := s.Times
	values := s.Values[:len(times)]
	end := len(values)
	for end > 0 && math.IsNaN(values[end-1]) {
		end--
	}
	if end == 0 {
		return
	}
	times, values = times[:end], values[:end]
	last := times[end-1]
	total, before := 0.0, math.NaN()
	for i := 0; i < len(times); {
		end := windowEnd(times[i], resolution)
		sum, least, greatest := 0.0, math.Inf(1), math.Inf(-1)
		n := 0
		for ; i < len(times) && times[i] <= end; i++ {
			v := values[i]
			if v != v { //nolint:staticcheck // NaN is not itself
				continue
			}
			n++
			sum += v
			if v < least {
				least = v
			}
			if v > greatest {
				greatest = v
			}
			switch {
			case v >= before:
				total += v - before
			case v < before:
				total += v
			default: // the first
				f.counterTimes, f.counter = append(f.counterTimes, times[i]), append(f.counter, v)
				total = v
			}
			before = v
		}
		if n == 0 {
			continue
		}
		t := min(end, last)
		f.times = append(f.times, t)
		f.count, f.sum = append(f.count, float64(n)), append(f.sum, sum)
		f.min, f.max = append(f.min, least), append(f.max, greatest)
		f.counterTimes, f.counter = append(f.counterTimes, t), append(f.counter, total)
	}
	f.counterTimes = append(f.counterTimes, f.times[len(f.times)-1])
	f.counter = append(f.counter, before)
}
