package merge

import (
	"slices"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
)

// samplesPerChunk is how many samples new chunks get, as Prometheus's do.
const samplesPerChunk = 120

// floatMerger joins chunks of floats to one stream in order of time; of equal times the first chunk's sample counts.
type floatMerger struct {
	all, one, joined xor.Samples
}

func (f *floatMerger) reset() { f.all.Reset() }

// add joins a chunk, without what was deleted.
func (f *floatMerger) add(w *worker, e *entry) error {
	from := f.all.Len()
	if from == 0 || e.MinTime > f.all.Times[from-1] {
		if err := xor.Decode(&f.all, e.Data); err != nil {
			return err
		}
		w.drop(&f.all, from, e)
		if from == 0 || f.all.Len() == from || f.all.Times[from] > f.all.Times[from-1] {
			return nil
		}
		// The chunk begins before its index says.
		f.one = xor.Samples{Times: slices.Clone(f.all.Times[from:]), Values: slices.Clone(f.all.Values[from:])}
		f.all.Times, f.all.Values = f.all.Times[:from], f.all.Values[:from]
	} else {
		f.one.Reset()
		if err := xor.Decode(&f.one, e.Data); err != nil {
			return err
		}
		w.drop(&f.one, 0, e)
	}
	f.join(w)
	return nil
}

// join merges one into all.
func (f *floatMerger) join(w *worker) {
	if f.one.Len() == 0 {
		return
	}
	// What lies before stays where it is.
	at, _ := slices.BinarySearch(f.all.Times, f.one.Times[0])
	f.joined.Reset()
	a := xor.Samples{Times: f.all.Times[at:], Values: f.all.Values[at:]}
	b := f.one
	i, k := 0, 0
	for i < a.Len() || k < b.Len() {
		if k == b.Len() || i < a.Len() && a.Times[i] <= b.Times[k] {
			if k < b.Len() && a.Times[i] == b.Times[k] {
				w.duplicates++
				k++
			}
			f.joined.Times, f.joined.Values = append(f.joined.Times, a.Times[i]), append(f.joined.Values, a.Values[i])
			i++
			continue
		}
		f.joined.Times, f.joined.Values = append(f.joined.Times, b.Times[k]), append(f.joined.Values, b.Values[k])
		k++
	}
	f.all.Times = append(f.all.Times[:at], f.joined.Times...)
	f.all.Values = append(f.all.Values[:at], f.joined.Values...)
}

// wanted tells whether a sample of a chunk at t is neither deleted nor, of replicas that are alone, out of bounds.
func (e *entry) wanted(t int64) bool {
	for _, d := range e.deleted {
		if d.Mint <= t && t <= d.Maxt {
			return false
		}
	}
	return true
}

// drop takes the samples that are not wanted from those of a chunk, which begin at from. A time that is there
// twice is dropped as well.
func (w *worker) drop(s *xor.Samples, from int, e *entry) {
	n := from
	check := len(e.deleted) > 0
	for i := from; i < s.Len(); i++ {
		t := s.Times[i]
		if n > from && t <= s.Times[n-1] {
			w.duplicates++
			continue
		}
		if check && !e.wanted(t) {
			continue
		}
		s.Times[n], s.Values[n] = t, s.Values[i]
		n++
	}
	s.Times, s.Values = s.Times[:n], s.Values[:n]
}

// emitFloats makes chunks of those samples that are within the bounds of the output.
func (w *worker) emitFloats(s xor.Samples) {
	from, _ := slices.BinarySearch(s.Times, w.cfg.MinTime)
	to, _ := slices.BinarySearch(s.Times, w.cfg.MaxTime)
	w.emitSamples(s.Times[from:to], s.Values[from:to])
}
