package downsample

import (
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/chunk/xor"
)

// again is the memory of downsampling what was downsampled before.
type again struct {
	in, sub xor.Samples
	out     floats
	chunks  []stream.Chunk
}

// aggregates downsamples the aggregate chunks of a series, whose windows are as long as from, and appends what
// it makes to out. Chunks are never cut: each of those made is of some whole ones, all of floats or all of histograms.
func (m *maker) aggregates(chunks []stream.Chunk, from int64) error {
	chunks, err := m.onlyAggregates(chunks, from)
	if err != nil {
		return err
	}
	for len(chunks) > 0 {
		kind, err := kindOf(&chunks[0])
		if err != nil {
			return err
		}
		n, samples := 0, 0
		for n < len(chunks) {
			k, err := kindOf(&chunks[n])
			if err != nil {
				return err
			}
			if k != kind {
				break
			}
			samples += stream.SamplesOf(&chunks[n])
			n++
		}
		part := chunks[:n]
		chunks = chunks[n:]
		pieces := chunksOf(part[0].MinTime, part[n-1].MaxTime, from, m.resolution, samples)
		batch := max(1, n/pieces)
		for len(part) > 0 {
			j := min(batch, len(part))
			if kind == chunkenc.EncXOR {
				err = m.floatsAgain(part[:j])
			} else {
				err = m.histogramsAgain(part[:j])
			}
			if err != nil {
				return err
			}
			part = part[j:]
		}
	}
	return nil
}

// onlyAggregates makes aggregate chunks of the raw chunks that have got among them.
func (m *maker) onlyAggregates(chunks []stream.Chunk, from int64) ([]stream.Chunk, error) {
	m.again.chunks = m.again.chunks[:0]
	for i := range chunks {
		c := &chunks[i]
		if c.Encoding == aggr.Encoding {
			m.again.chunks = append(m.again.chunks, *c)
			continue
		}
		if stream.SamplesOf(c) == 0 {
			continue
		}
		resolution, made := m.resolution, len(m.out)
		m.resolution = from
		err := m.raw(chunks[i : i+1])
		m.resolution = resolution
		if err != nil {
			return nil, err
		}
		m.again.chunks = append(m.again.chunks, m.out[made:]...)
		m.out = m.out[:made]
	}
	return m.again.chunks, nil
}

// kindOf tells whether a chunk aggregates floats (XOR) or histograms (float histogram).
func kindOf(c *stream.Chunk) (chunkenc.Encoding, error) {
	enc, _, err := aggr.Chunk(c.Data).Get(aggr.Sum)
	if errors.Is(err, aggr.ErrAbsent) {
		return chunkenc.EncXOR, nil
	}
	if err != nil {
		return 0, fmt.Errorf("chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
	}
	if enc == chunkenc.EncHistogram {
		enc = chunkenc.EncFloatHistogram
	}
	return enc, nil
}

// gather reads one aggregate of several chunks into m.again.in.
func (m *maker) gather(chunks []stream.Chunk, t aggr.Type) error {
	in := &m.again.in
	in.Reset()
	for i := range chunks {
		enc, data, err := aggr.Chunk(chunks[i].Data).Get(t)
		if errors.Is(err, aggr.ErrAbsent) {
			continue
		}
		if err != nil {
			return err
		}
		if enc != chunkenc.EncXOR {
			return fmt.Errorf("%s has the encoding %d", t, enc)
		}
		if err := xor.Decode(in, data); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
	}
	dropDisorder(in)
	return nil
}

// dropDisorder drops windows that are not after those before: chunks that overlap, which sound blocks have none
// of. A sum that is not a number, since it is of infinities, stays.
func dropDisorder(s *xor.Samples) {
	n := 0
	for i, t := range s.Times {
		if n > 0 && t <= s.Times[n-1] {
			continue
		}
		s.Times[n], s.Values[n] = t, s.Values[i]
		n++
	}
	s.Times, s.Values = s.Times[:n], s.Values[:n]
}

// floatsAgain makes one chunk of several.
func (m *maker) floatsAgain(chunks []stream.Chunk) error {
	m.scratch = m.scratch[:0]
	m.parts = [aggr.Types]aggr.Part{}
	out := &m.again.out
	mint, maxt := int64(math.MaxInt64), int64(math.MinInt64)
	for _, a := range []struct {
		t    aggr.Type
		fold func(acc, v float64) float64
	}{
		{aggr.Count, func(acc, v float64) float64 { return acc + v }},
		{aggr.Sum, func(acc, v float64) float64 { return acc + v }},
		{aggr.Min, func(acc, v float64) float64 {
			if v < acc {
				return v
			}
			return acc
		}},
		{aggr.Max, func(acc, v float64) float64 {
			if v > acc {
				return v
			}
			return acc
		}},
	} {
		if err := m.gather(chunks, a.t); err != nil {
			return err
		}
		out.reset()
		in := &m.again.in
		for i := 0; i < in.Len(); {
			end := windowEnd(in.Times[i], m.resolution)
			acc := in.Values[i]
			for i++; i < in.Len() && in.Times[i] <= end; i++ {
				acc = a.fold(acc, in.Values[i])
			}
			out.times, out.sum = append(out.times, min(end, in.Times[in.Len()-1])), append(out.sum, acc)
		}
		m.part(a.t, out.times, out.sum)
		if n := len(out.times); n > 0 {
			mint, maxt = min(mint, out.times[0]), max(maxt, out.times[n-1])
		}
	}
	if err := m.counterAgain(chunks); err != nil {
		return err
	}
	if mint <= maxt {
		m.emit(mint, maxt)
	}
	return nil
}

// counterAgain makes the counter of a chunk from those of several.
func (m *maker) counterAgain(chunks []stream.Chunk) error {
	in, out := &m.again.in, &m.again.out
	in.Reset()
	var r aggr.CounterReader
	for i := range chunks {
		enc, data, err := aggr.Chunk(chunks[i].Data).Get(aggr.Counter)
		if errors.Is(err, aggr.ErrAbsent) {
			continue
		}
		if err != nil {
			return err
		}
		if enc != chunkenc.EncXOR {
			return fmt.Errorf("counter has the encoding %d", enc)
		}
		m.again.sub.Reset()
		if err := xor.Decode(&m.again.sub, data); err != nil {
			return fmt.Errorf("counter: %w", err)
		}
		r.Read(in, m.again.sub)
	}
	if in.Len() == 0 {
		return nil
	}
	out.reset()
	out.counterTimes, out.counter = append(out.counterTimes, in.Times[0]), append(out.counter, in.Values[0])
	last := in.Times[in.Len()-1]
	// Totals never fall unless values are negative, as only those of gauges are. Even these make what Thanos makes.
	total, before := in.Values[0], in.Values[0]
	for i := 0; i < in.Len(); {
		end := windowEnd(in.Times[i], m.resolution)
		for ; i < in.Len() && in.Times[i] <= end; i++ {
			v := in.Values[i]
			if v < before {
				total += v
			} else {
				total += v - before
			}
			before = v
		}
		out.counterTimes, out.counter = append(out.counterTimes, min(end, last)), append(out.counter, total)
	}
	out.counterTimes = append(out.counterTimes, out.counterTimes[len(out.counterTimes)-1])
	out.counter = append(out.counter, r.Last())
	m.part(aggr.Counter, out.counterTimes, out.counter)
	return nil
}

// histogramsAgain makes one chunk of several.
func (m *maker) histogramsAgain(chunks []stream.Chunk) error {
	if err := m.gather(chunks, aggr.Count); err != nil {
		return err
	}
	counts := xor.Samples{Times: append([]int64(nil), m.again.in.Times...), Values: append([]float64(nil), m.again.in.Values...)}
	var both [2][]histSample
	for i, t := range []aggr.Type{aggr.Sum, aggr.Counter} {
		for j := range chunks {
			enc, data, err := aggr.Chunk(chunks[j].Data).Get(t)
			if errors.Is(err, aggr.ErrAbsent) {
				continue
			}
			if err == nil {
				both[i], err = readHistograms(both[i], enc, data, &m.dropped)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", t, err)
			}
		}
		both[i] = orderHistograms(both[i], &m.dropped)
	}
	return m.histogramWindows(counts, both[0], both[1])
}

// histogramWindows aggregates aggregates of histograms.
func (m *maker) histogramWindows(counts xor.Samples, sums, totals []histSample) error {
	if len(sums) == 0 || len(totals) == 0 {
		return nil
	}
	gauge := totals[0].h.CounterResetHint == histogram.GaugeType
	a, err := aggregateHistograms(sums, m.resolution)
	if err != nil {
		return err
	}
	b, err := aggregateHistograms(totals, m.resolution)
	if err != nil {
		return err
	}
	w := histograms{times: a.times, sum: a.sum, totals: b.totals}
	for _, c := range w.totals {
		c.CounterResetHint = histogram.UnknownCounterReset
		if gauge {
			c.CounterResetHint = histogram.GaugeType
		}
	}
	for i := 0; i < counts.Len(); {
		end := windowEnd(counts.Times[i], m.resolution)
		n := 0.0
		for ; i < counts.Len() && counts.Times[i] <= end; i++ {
			n += counts.Values[i]
		}
		w.count = append(w.count, n)
	}
	if len(w.count) != len(w.times) || len(b.times) != len(w.times) {
		return fmt.Errorf("%d counts, %d sums and %d totals of histograms", len(w.count), len(w.times), len(b.times))
	}
	return m.emitHistograms(w)
}
