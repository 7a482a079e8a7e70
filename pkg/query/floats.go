package query

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
)

// floats is a dedup.Source: the chunks of one replica of a series, all of floats, decoded into arrays only where
// somebody asks for them. What it holds slides along with the times asked for.
type floats struct {
	reading *reading
	all     []store.Chunk
	chunks  []int32 // those of the replica, in order

	from  int64       // everything from this time on that is decoded at all is held
	next  int         // of chunks, the first that is not decoded
	held  xor.Samples // in order, without staleness markers
	marks []int64
	count xor.Samples // reused
	other xor.Samples // reused
}

func (f *floats) reset(r *reading, all []store.Chunk, chunks []int32) {
	f.reading, f.all, f.chunks = r, all, chunks
	f.start(0)
}

func (f *floats) chunk(i int) *store.Chunk { return &f.all[f.chunks[i]] }

// start forgets everything and begins at the i-th chunk.
func (f *floats) start(i int) {
	f.held.Reset()
	f.marks = f.marks[:0]
	f.next, f.from = i, math.MinInt64
	for k := range i {
		f.from = max(f.from, dedup.Add(f.chunk(k).MaxTime, 1))
	}
}

// Around implements dedup.Source.
func (f *floats) Around(mint, maxt int64, context bool, beyond int64) (dedup.Window[float64], error) {
	if err := f.begin(mint, context, beyond); err != nil {
		return dedup.Window[float64]{}, err
	}
	for f.next < len(f.chunks) {
		if c := f.chunk(f.next); c.MinTime > maxt && (!context || c.MinTime > f.behind(maxt, beyond)) {
			break
		}
		if err := f.decode(); err != nil {
			return dedup.Window[float64]{}, err
		}
	}
	return dedup.Window[float64]{Times: f.held.Times, Values: f.held.Values, Marks: f.marks}, nil
}

// begin makes sure that everything from mint on, and what the context asks for before it, is held or will be
// decoded next.
func (f *floats) begin(mint int64, context bool, beyond int64) error {
	first, _ := slices.BinarySearch(f.held.Times, mint)
	least := mint
	if context {
		least = dedup.Add(mint, -beyond)
		if first >= dedup.Context {
			least = f.held.Times[first-dedup.Context]
		}
	}
	// The chunks that may hold something from mint on are those from i on.
	i := f.next
	if f.from <= least {
		for i < len(f.chunks) && f.chunk(i).MaxTime < least {
			i++
		}
		if i == f.next || first < len(f.held.Times) {
			f.drop(first)
			return nil
		}
	}
	for i = 0; i < len(f.chunks) && f.chunk(i).MaxTime < mint; i++ {
	}
	f.start(i)
	if !context {
		return nil
	}
	for {
		for f.next < len(f.chunks) && f.chunk(f.next).MinTime < mint {
			if err := f.decode(); err != nil {
				return err
			}
		}
		least = dedup.Add(mint, -beyond)
		if first, _ := slices.BinarySearch(f.held.Times, mint); first >= dedup.Context {
			least = f.held.Times[first-dedup.Context]
		}
		if f.from <= least {
			return nil
		}
		// One more of those before.
		for i--; i > 0 && f.chunk(i).MaxTime < least; i-- {
		}
		f.start(i)
	}
}

// drop lets go of what lies so far before the sample of the index that nobody asks for it, now and then.
func (f *floats) drop(first int) {
	if first -= dedup.Context; first <= f.held.Len()/2 {
		return
	}
	f.from = f.held.Times[first]
	n := copy(f.held.Times, f.held.Times[first:])
	copy(f.held.Values, f.held.Values[first:])
	f.held.Times, f.held.Values = f.held.Times[:n], f.held.Values[:n]
	m, _ := slices.BinarySearch(f.marks, f.from)
	f.marks = append(f.marks[:0], f.marks[m:]...)
}

// behind is until when chunks have to be decoded for what the context asks for after maxt.
func (f *floats) behind(maxt, beyond int64) int64 {
	i, _ := slices.BinarySearch(f.held.Times, dedup.Add(maxt, 1))
	if i+dedup.Context <= f.held.Len() {
		return f.held.Times[i+dedup.Context-1]
	}
	return dedup.Add(maxt, beyond)
}

// Ahead implements dedup.Source: the end of a chunk.
func (f *floats) Ahead(t int64) int64 {
	end := int64(math.MaxInt64)
	for i := f.next; i > 0 && f.chunk(i-1).MaxTime > t; i-- {
		end = min(end, f.chunk(i-1).MaxTime)
	}
	for i := f.next; i < len(f.chunks) && end == math.MaxInt64; i++ {
		if c := f.chunk(i); c.MaxTime > t {
			end = c.MaxTime
		}
	}
	return end
}

// decode reads the next chunk.
func (f *floats) decode() error {
	c := f.chunk(f.next)
	f.next++
	into := &f.held
	if n := f.held.Len(); n > 0 && c.MinTime <= f.held.Times[n-1] {
		f.other.Reset()
		into = &f.other
	}
	n := into.Len()
	if err := f.append(into, c); err != nil {
		return err
	}
	f.tidy(into, n)
	if into == &f.other {
		f.join()
	} else if n > 0 && into.Len() > n && into.Times[n] <= into.Times[n-1] {
		// The chunk begins earlier than it says.
		f.other.Reset()
		f.other.Times, f.other.Values = append(f.other.Times, into.Times[n:]...), append(f.other.Values, into.Values[n:]...)
		into.Times, into.Values = into.Times[:n], into.Values[:n]
		f.join()
	}
	return nil
}

// append decodes what is wanted of a chunk.
func (f *floats) append(to *xor.Samples, c *store.Chunk) error {
	value, count, err := f.reading.pick(c)
	if err != nil {
		return err
	}
	n := to.Len()
	if err := xor.Decode(to, value.Data); err != nil || count == nil {
		return err
	}
	f.count.Reset()
	if err := xor.Decode(&f.count, count.Data); err != nil {
		return fmt.Errorf("read count: %w", err)
	}
	if !slices.Equal(to.Times[n:], f.count.Times) {
		return errMisaligned
	}
	for i, v := range f.count.Values {
		to.Values[n+i] /= v
	}
	return nil
}

var errMisaligned = errors.New("sum and count of a downsampled chunk have different timestamps")

// tidy takes staleness markers, and all but the first of samples of one time, out of what lies from the n-th on.
func (f *floats) tidy(s *xor.Samples, n int) {
	times, values := s.Times[n:], s.Values[n:]
	clean := true
	last := int64(math.MinInt64)
	for i, t := range times {
		if t == last || math.Float64bits(values[i]) == value.StaleNaN {
			clean = false
			break
		}
		last = t
	}
	if clean {
		return
	}
	kept, marks := 0, len(f.marks)
	for i, t := range times {
		switch {
		case value.IsStaleNaN(values[i]):
			f.marks = append(f.marks, t)
		case kept == 0 || times[kept-1] != t:
			times[kept], values[kept] = t, values[i]
			kept++
		}
	}
	s.Times, s.Values = s.Times[:n+kept], s.Values[:n+kept]
	if marks > 0 && marks < len(f.marks) && f.marks[marks] <= f.marks[marks-1] {
		slices.Sort(f.marks)
		f.marks = slices.Compact(f.marks)
	}
}

// join merges the samples of a chunk that overlaps what is held. Where both have a time, the greater value is
// taken, so that it does not matter how chunks are cut.
func (f *floats) join() {
	if f.other.Len() == 0 {
		return
	}
	at, _ := slices.BinarySearch(f.held.Times, f.other.Times[0])
	f.count.Reset()
	out := &f.count
	a, b := xor.Samples{Times: f.held.Times[at:], Values: f.held.Values[at:]}, f.other
	i, j := 0, 0
	for i < a.Len() && j < b.Len() {
		switch x, y := a.Times[i], b.Times[j]; {
		case x < y:
			out.Times, out.Values = append(out.Times, x), append(out.Values, a.Values[i])
			i++
		case x > y:
			out.Times, out.Values = append(out.Times, y), append(out.Values, b.Values[j])
			j++
		default:
			v := a.Values[i]
			if w := b.Values[j]; w > v || math.IsNaN(v) {
				v = w
			}
			out.Times, out.Values = append(out.Times, x), append(out.Values, v)
			i++
			j++
		}
	}
	out.Times, out.Values = append(append(out.Times, a.Times[i:]...), b.Times[j:]...), append(append(out.Values, a.Values[i:]...), b.Values[j:]...)
	f.held.Times, f.held.Values = append(f.held.Times[:at], out.Times...), append(f.held.Values[:at], out.Values...)
}

// areFloats tells whether all that is read of the chunks are floats, and no totals.
func (r *reading) areFloats(cs []store.Chunk) bool {
	if r.totals(cs) {
		return false
	}
	for i := range cs {
		value, count, err := r.pick(&cs[i])
		if err != nil || value.Encoding != chunkenc.EncXOR || count != nil && count.Encoding != chunkenc.EncXOR {
			return false
		}
	}
	return true
}
