package downsample

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/chunk/xor"
)

// maker makes aggregate chunks of the chunks of one series after the other. It is one goroutine's.
type maker struct {
	resolution int64
	samples    xor.Samples
	floats     floats
	hists      []histSample
	again      again
	// out are the chunks made, their bytes in arena.
	out     []stream.Chunk
	arena   []byte
	scratch []byte
	parts   [aggr.Types]aggr.Part
	// disorder is set when samples gathered are not in order of time, chunk by chunk.
	disorder bool
	dropped  uint64
}

// raw downsamples the chunks of a raw series and appends what it makes to out. Floats and histograms that take
// turns are cut where they do.
func (m *maker) raw(chunks []stream.Chunk) error {
	m.samples.Reset()
	for i := range chunks {
		c := &chunks[i]
		switch c.Encoding {
		case chunkenc.EncXOR:
			if err := m.flushHistograms(); err != nil {
				return err
			}
			if err := m.decode(c.Data); err != nil {
				return err
			}
		case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
			m.flushFloats()
			if err := m.decodeHistograms(c); err != nil {
				return err
			}
		default:
			return fmt.Errorf("raw chunk from %d to %d has the encoding %d", c.MinTime, c.MaxTime, c.Encoding)
		}
	}
	m.flushFloats()
	return m.flushHistograms()
}

// decode appends the samples of a chunk that are numbers.
func (m *maker) decode(data []byte) error {
	from := m.samples.Len()
	err := xor.Decode(&m.samples, data)
	if errors.Is(err, xor.ErrDisorder) {
		m.samples.Times, m.samples.Values = m.samples.Times[:from], m.samples.Values[:from]
		err = m.decodeDisorder(data)
	}
	if err != nil {
		return err
	}
	times, values := m.samples.Times[from:], m.samples.Values[from:]
	if len(times) == 0 {
		return nil
	}
	m.disorder = m.disorder || from > 0 && times[0] <= m.samples.Times[from-1]
	clean := times[0] >= 0
	for _, v := range values {
		clean = clean && !math.IsNaN(v)
	}
	if clean {
		return nil
	}
	n := 0
	for i, t := range times {
		if value.IsStaleNaN(values[i]) || t < 0 {
			m.dropped++
			continue
		}
		times[n], values[n] = t, values[i]
		n++
	}
	m.samples.Times, m.samples.Values = m.samples.Times[:from+n], m.samples.Values[:from+n]
	return nil
}

// decodeDisorder reads a chunk whose times go back somewhere; the samples there are dropped.
func (m *maker) decodeDisorder(data []byte) error {
	c, err := chunkenc.FromData(chunkenc.EncXOR, data)
	if err != nil {
		return err
	}
	it := c.Iterator(nil)
	last := int64(math.MinInt64)
	for it.Next() != chunkenc.ValNone {
		t, v := it.At()
		if t < last {
			m.dropped++
			continue
		}
		last = t
		m.samples.Times, m.samples.Values = append(m.samples.Times, t), append(m.samples.Values, v)
	}
	return it.Err()
}

// order sorts the floats gathered where chunks overlapped; of equal times the first chunk's counts.
func (m *maker) order() {
	if !m.disorder {
		return
	}
	m.disorder = false
	index := make([]int, m.samples.Len())
	for i := range index {
		index[i] = i
	}
	slices.SortStableFunc(index, func(a, b int) int { return cmp.Compare(m.samples.Times[a], m.samples.Times[b]) })
	var sorted xor.Samples
	for _, i := range index {
		t := m.samples.Times[i]
		if n := len(sorted.Times); n > 0 && sorted.Times[n-1] == t {
			m.dropped++
			continue
		}
		sorted.Times, sorted.Values = append(sorted.Times, t), append(sorted.Values, m.samples.Values[i])
	}
	m.samples = sorted
}

// flushFloats makes chunks of the floats gathered.
func (m *maker) flushFloats() {
	m.order()
	s := m.samples
	if s.Len() == 0 {
		return
	}
	n := chunksOf(s.Times[0], s.Times[s.Len()-1], rawInterval, m.resolution, s.Len())
	batch := s.Len()/n + 1
	for s.Len() > 0 {
		j := batchEnd(s.Times, batch, m.resolution)
		m.floats.aggregate(xor.Samples{Times: s.Times[:j], Values: s.Values[:j]}, m.resolution)
		m.emitFloats(&m.floats)
		s.Times, s.Values = s.Times[j:], s.Values[j:]
	}
	m.samples.Reset()
}

// batchEnd is where a batch of n samples ends: with a window.
func batchEnd(times []int64, n int, resolution int64) int {
	j := min(n, len(times))
	end := windowEnd(times[j-1], resolution)
	for j < len(times) && times[j] <= end {
		j++
	}
	return j
}

// emitFloats encodes the aggregates as a chunk.
func (m *maker) emitFloats(f *floats) {
	if len(f.times) == 0 {
		return
	}
	m.scratch = m.scratch[:0]
	m.parts = [aggr.Types]aggr.Part{}
	m.part(aggr.Count, f.times, f.count)
	m.part(aggr.Sum, f.times, f.sum)
	m.part(aggr.Min, f.times, f.min)
	m.part(aggr.Max, f.times, f.max)
	m.part(aggr.Counter, f.counterTimes, f.counter)
	m.emit(f.times[0], f.times[len(f.times)-1])
}

func (m *maker) part(t aggr.Type, times []int64, values []float64) {
	if len(times) == 0 {
		return
	}
	from := len(m.scratch)
	m.scratch = xor.Encode(m.scratch, times, values)
	m.parts[t] = aggr.Part{Encoding: chunkenc.EncXOR, Data: m.scratch[from:]}
}

// emit appends a chunk of the parts to out.
func (m *maker) emit(mint, maxt int64) {
	from := len(m.arena)
	m.arena = aggr.Append(m.arena, &m.parts)
	m.out = append(m.out, stream.Chunk{
		MinTime: mint, MaxTime: maxt, Encoding: aggr.Encoding, Data: m.arena[from:len(m.arena):len(m.arena)],
	})
}
