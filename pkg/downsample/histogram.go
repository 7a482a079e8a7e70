package downsample

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// histSample is a native histogram at a time, as floats.
type histSample struct {
	t int64
	h *histogram.FloatHistogram
}

// decodeHistograms appends the histograms of a chunk, but for staleness markers.
func (m *maker) decodeHistograms(c *stream.Chunk) error {
	var err error
	m.hists, err = readHistograms(m.hists, c.Encoding, c.Data, &m.dropped)
	return err
}

// readHistograms appends the histograms of a chunk to dst.
func readHistograms(dst []histSample, enc chunkenc.Encoding, data []byte, dropped *uint64) ([]histSample, error) {
	chunk, err := chunkenc.FromData(enc, data)
	if err != nil {
		return dst, err
	}
	it := chunk.Iterator(nil)
	for {
		switch it.Next() {
		case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
			t, h := it.AtFloatHistogram(nil)
			if math.IsNaN(h.Sum) || t < 0 {
				*dropped++
				continue
			}
			dst = append(dst, histSample{t, h})
		case chunkenc.ValNone:
			return dst, it.Err()
		default:
			return dst, errors.New("a float in a chunk of histograms")
		}
	}
}

// flushHistograms makes chunks of the histograms gathered.
func (m *maker) flushHistograms() error {
	s := orderHistograms(m.hists, &m.dropped)
	if len(s) == 0 {
		return nil
	}
	n := chunksOf(s[0].t, s[len(s)-1].t, rawInterval, m.resolution, len(s))
	batch := len(s)/n + 1
	for len(s) > 0 {
		j := histogramsEnd(s, batch, m.resolution)
		if err := m.histogramBatch(s[:j]); err != nil {
			return err
		}
		s = s[j:]
	}
	clear(m.hists)
	m.hists = m.hists[:0]
	return nil
}

// orderHistograms sorts histograms where chunks overlapped; of equal times the first counts.
func orderHistograms(s []histSample, dropped *uint64) []histSample {
	if slices.IsSortedFunc(s, func(a, b histSample) int {
		if a.t == b.t {
			return 1
		}
		return cmp.Compare(a.t, b.t)
	}) {
		return s
	}
	slices.SortStableFunc(s, func(a, b histSample) int { return cmp.Compare(a.t, b.t) })
	n := len(s)
	s = slices.CompactFunc(s, func(a, b histSample) bool { return a.t == b.t })
	*dropped += uint64(n - len(s))
	return s
}

// histogramsEnd is where a batch of n histograms ends: with a window, or before buckets of another kind.
func histogramsEnd(s []histSample, n int, resolution int64) int {
	custom := histogram.IsCustomBucketsSchema(s[0].h.Schema)
	j := min(n, len(s))
	end := windowEnd(s[j-1].t, resolution)
	for j < len(s) && s[j].t <= end {
		j++
	}
	for i := range j {
		if histogram.IsCustomBucketsSchema(s[i].h.Schema) != custom {
			return i
		}
	}
	return j
}

// histogramBatch makes a chunk of histograms. What does not fit one chunk, such as a change of the zero
// bucket, becomes several.
func (m *maker) histogramBatch(s []histSample) error {
	w, err := aggregateHistograms(s, m.resolution)
	if err == nil {
		err = m.emitHistograms(w)
	}
	if err == nil {
		return nil
	}
	half := windowStart(s, len(s)/2, m.resolution)
	if half == 0 || half == len(s) {
		half = len(s) / 2
	}
	if half == 0 {
		return err
	}
	if err := m.histogramBatch(s[:half]); err != nil {
		return err
	}
	return m.histogramBatch(s[half:])
}

// windowStart is the first sample of the window that the i-th is in.
func windowStart(s []histSample, i int, resolution int64) int {
	end := windowEnd(s[i].t, resolution)
	for i > 0 && windowEnd(s[i-1].t, resolution) == end {
		i--
	}
	return i
}

// histograms are the aggregates of the windows of one chunk.
type histograms struct {
	times  []int64
	count  []float64
	sum    []*histogram.FloatHistogram
	totals []*histogram.FloatHistogram
}

// aggregateHistograms makes windows of histograms: their number, their sum, and the running total of what they grew by.
func aggregateHistograms(s []histSample, resolution int64) (w histograms, err error) {
	if err := reduce(s); err != nil {
		return w, err
	}
	var (
		last          = s[len(s)-1].t
		gauge         = s[0].h.CounterResetHint == histogram.GaugeType
		total, before *histogram.FloatHistogram
	)
	for i := 0; i < len(s); {
		end := windowEnd(s[i].t, resolution)
		var sum *histogram.FloatHistogram
		from := i
		for ; i < len(s) && s[i].t <= end; i++ {
			h := s[i].h
			if sum, err = plus(sum, h); err != nil {
				return w, err
			}
			if total, err = grow(total, before, h); err != nil {
				return w, err
			}
			before = h
		}
		w.times = append(w.times, min(end, last))
		w.count = append(w.count, float64(i-from))
		w.add(sum, total, gauge)
	}
	return w, nil
}

func (w *histograms) add(sum, total *histogram.FloatHistogram, gauge bool) {
	sum.CounterResetHint = histogram.GaugeType
	c := total.Copy()
	c.CounterResetHint = histogram.UnknownCounterReset
	if gauge {
		c.CounterResetHint = histogram.GaugeType
	}
	w.sum, w.totals = append(w.sum, sum), append(w.totals, c)
}

func (m *maker) emitHistograms(w histograms) error {
	sum, err := encodeHistograms(w.times, w.sum)
	if err != nil {
		return fmt.Errorf("sum: %w", err)
	}
	totals, err := encodeHistograms(w.times, w.totals)
	if err != nil {
		return fmt.Errorf("counter: %w", err)
	}
	m.scratch = m.scratch[:0]
	m.parts = [aggr.Types]aggr.Part{}
	m.part(aggr.Count, w.times, w.count)
	m.parts[aggr.Sum] = aggr.Part{Encoding: chunkenc.EncFloatHistogram, Data: sum}
	m.parts[aggr.Counter] = aggr.Part{Encoding: chunkenc.EncFloatHistogram, Data: totals}
	m.emit(w.times[0], w.times[len(w.times)-1])
	return nil
}

// plus adds h to sum, which is nil at first, and returns it.
func plus(sum, h *histogram.FloatHistogram) (*histogram.FloatHistogram, error) {
	if sum == nil {
		return h.Copy(), nil
	}
	sum, _, _, err := sum.Add(h)
	return sum, err
}

// grow adds what a histogram grew by since the one before, or all of it if it was reset. A gauge is never reset: its total
// goes up and down with it.
func grow(total, before, h *histogram.FloatHistogram) (*histogram.FloatHistogram, error) {
	if total == nil {
		return h.Copy(), nil
	}
	if before.Schema == h.Schema && (h.CounterResetHint == histogram.GaugeType || !h.DetectReset(before)) {
		d, _, _, err := h.Copy().Sub(before)
		if err != nil {
			return nil, err
		}
		h = d
	}
	return plus(total, h)
}

// reduce brings histograms to the smallest resolution among them.
func reduce(s []histSample) error {
	least := int32(math.MaxInt32)
	for _, x := range s {
		least = min(least, x.h.Schema)
	}
	for _, x := range s {
		if x.h.Schema == least {
			continue
		}
		if err := x.h.ReduceResolution(least); err != nil {
			return fmt.Errorf("reduce a histogram from schema %d to %d: %w", x.h.Schema, least, err)
		}
	}
	return nil
}

// encodeHistograms makes one chunk of histograms.
func encodeHistograms(times []int64, hs []*histogram.FloatHistogram) ([]byte, error) {
	var c chunkenc.Chunk = chunkenc.NewFloatHistogramChunk()
	app, err := c.Appender()
	if err != nil {
		return nil, err
	}
	// Beside an empty chunk before it, the first histogram of a counter is no reset. So Thanos has it.
	before, err := chunkenc.NewFloatHistogramChunk().Appender()
	if err != nil {
		return nil, err
	}
	prev, ok := before.(*chunkenc.FloatHistogramAppender)
	if !ok {
		return nil, fmt.Errorf("BUG: appender of float histograms is a %T", before)
	}
	for i, h := range hs {
		next, recoded, nextApp, err := app.AppendFloatHistogram(prev, times[i], h, false)
		if err != nil {
			return nil, err
		}
		if next != nil {
			if !recoded {
				return nil, fmt.Errorf("histogram %d of %d does not fit the chunk of those before", i+1, len(hs))
			}
			c = next
		}
		app = nextApp
	}
	return c.Bytes(), nil
}
