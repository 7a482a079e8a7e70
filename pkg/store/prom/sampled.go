package prom

import (
	"fmt"
	"io"
	"slices"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
)

// chunkSamplesMax is the number of samples in a chunk made of a sampled answer, the one that Prometheus aims
// at.
const chunkSamplesMax = 120

// sampled walks over a sampled answer, which is in memory as a whole, and encodes one series at a time.
type sampled struct {
	*answer
	series   []*prompb.TimeSeries
	labels   []labels.Labels // of series, in the order of stored labels
	reserved int64

	at     int
	out    store.Series
	err    error
	closed bool
}

// newSampled reads the answer and closes its body. The budget is charged with it until the cursor is closed.
func newSampled(a *answer) (*sampled, error) {
	defer a.close()
	s := &sampled{answer: a, at: -1}
	if err := s.read(); err != nil {
		a.store.cfg.Budget.Release(s.reserved)
		return nil, a.wrap(err)
	}
	s.sort()
	return s, nil
}

func (s *sampled) read() error {
	limit := s.store.cfg.SampledBytesMax
	b, err := io.ReadAll(io.LimitReader(s.body, int64(snappy.MaxEncodedLen(limit))+1))
	if err != nil {
		return store.Errorf(store.KindUnavailable, "%w", err)
	}
	n, err := snappy.DecodedLen(b)
	if err != nil {
		return store.Errorf(store.KindInternal, "the sampled answer is not compressed with snappy: %w", err)
	}
	if n > limit {
		return store.Errorf(store.KindLimit, "the sampled answer has %d bytes, more than the %d allowed; ask for fewer series or a shorter time", n, limit)
	}
	// Decoded, a sample takes about as much memory as encoded; both are there for a while.
	if err := s.store.cfg.Budget.Reserve(2 * int64(n)); err != nil {
		return err
	}
	s.reserved = 2 * int64(n)
	if b, err = snappy.Decode(nil, b); err != nil {
		return store.Errorf(store.KindInternal, "decompress the sampled answer: %w", err)
	}
	var resp prompb.ReadResponse
	if err := resp.Unmarshal(b); err != nil {
		return store.Errorf(store.KindInternal, "decode the sampled answer: %w", err)
	}
	if len(resp.Results) != 1 || resp.Results[0] == nil {
		return store.Errorf(store.KindInternal, "the sampled answer has %d results, want 1", len(resp.Results))
	}
	s.series = resp.Results[0].Timeseries
	return nil
}

// sort puts the series in the order of stored labels: a sampled answer has none.
func (s *sampled) sort() {
	s.labels = make([]labels.Labels, len(s.series))
	order := make([]int, len(s.series))
	b := labels.NewScratchBuilder(16)
	for i, ts := range s.series {
		order[i] = i
		b.Reset()
		for _, l := range ts.Labels {
			if l.Value != "" && (s.mayClash || s.query.external.Get(l.Name) != l.Value) {
				b.Add(l.Name, l.Value)
			}
		}
		b.Sort()
		s.labels[i] = b.Labels()
	}
	slices.SortStableFunc(order, func(i, j int) int { return labels.Compare(s.labels[i], s.labels[j]) })
	series, ls := make([]*prompb.TimeSeries, len(order)), make([]labels.Labels, len(order))
	for i, o := range order {
		series[i], ls[i] = s.series[o], s.labels[o]
	}
	s.series, s.labels = series, ls
}

// Next implements store.Cursor.
func (s *sampled) Next() bool {
	for s.err == nil && !s.closed && s.at+1 < len(s.series) {
		if err := s.ctx.Err(); err != nil {
			s.err = s.wrap(err)
			return false
		}
		s.at++
		chunks, err := encode(s.series[s.at])
		s.series[s.at] = nil
		if err != nil {
			s.err = s.wrap(store.Errorf(store.KindInternal, "encode series %s: %w", s.labels[s.at], err))
			return false
		}
		if len(chunks) > 0 {
			s.out = store.Series{Labels: s.labels[s.at], Chunks: chunks}
			return true
		}
	}
	return false
}

// At implements store.Cursor.
func (s *sampled) At() *store.Series { return &s.out }

// Keep implements store.Keeper: every series has memory of its own.
func (s *sampled) Keep() *store.Series {
	kept := s.out
	return &kept
}

// Err implements store.Cursor.
func (s *sampled) Err() error { return s.err }

// Warnings implements store.Cursor.
func (s *sampled) Warnings() store.Warnings { return nil }

// Close implements store.Cursor.
func (s *sampled) Close() error {
	if !s.closed {
		s.closed = true
		s.series = nil
		s.store.cfg.Budget.Release(s.reserved)
	}
	return nil
}

// encode cuts the samples of a series into chunks, in the order of their times. Floats and histograms
// come in two lists.
func encode(ts *prompb.TimeSeries) ([]store.Chunk, error) {
	var e encoder
	fs, hs := ts.Samples, ts.Histograms
	for len(fs) > 0 || len(hs) > 0 {
		var err error
		switch {
		case len(hs) == 0 || len(fs) > 0 && fs[0].Timestamp <= hs[0].Timestamp:
			err = e.float(fs[0].Timestamp, fs[0].Value)
			fs = fs[1:]
		case hs[0].IsFloatHistogram():
			err = e.floatHistogram(hs[0].Timestamp, hs[0].ToFloatHistogram())
			hs = hs[1:]
		default:
			err = e.histogram(hs[0].Timestamp, hs[0].ToIntHistogram())
			hs = hs[1:]
		}
		if err != nil {
			return nil, err
		}
	}
	e.flush()
	return e.chunks, nil
}

// encoder appends samples to chunks and starts a new chunk where one is full or of another kind.
type encoder struct {
	chunks []store.Chunk
	open   chunkenc.Chunk
	app    chunkenc.Appender
	min    int64
	max    int64
}

// begin makes sure that a chunk of the encoding is open.
func (e *encoder) begin(enc chunkenc.Encoding, t int64) (err error) {
	if t <= e.max && (e.open != nil || len(e.chunks) > 0) {
		return fmt.Errorf("sample at %d comes after one at %d", t, e.max)
	}
	if e.open != nil && e.open.Encoding() == enc && e.open.NumSamples() < chunkSamplesMax {
		e.max = t
		return nil
	}
	e.flush()
	if e.open, err = chunkenc.NewEmptyChunk(enc); err != nil {
		return err
	}
	e.min, e.max = t, t
	e.app, err = e.open.Appender()
	return err
}

func (e *encoder) flush() {
	if e.open == nil {
		return
	}
	e.chunks = append(e.chunks, store.Chunk{
		MinTime: e.min,
		MaxTime: e.max,
		Raw:     store.Payload{Encoding: e.open.Encoding(), Data: e.open.Bytes()},
	})
	e.open = nil
}

func (e *encoder) float(t int64, v float64) error {
	if err := e.begin(chunkenc.EncXOR, t); err != nil {
		return err
	}
	e.app.Append(t, v)
	return nil
}

func (e *encoder) histogram(t int64, h *histogram.Histogram) error {
	if err := h.Validate(); err != nil {
		return err
	}
	last := e.max
	if err := e.begin(chunkenc.EncHistogram, t); err != nil {
		return err
	}
	next, recoded, app, err := e.app.AppendHistogram(nil, t, h, false)
	e.take(next, recoded, app, last, t)
	return err
}

func (e *encoder) floatHistogram(t int64, h *histogram.FloatHistogram) error {
	if err := h.Validate(); err != nil {
		return err
	}
	last := e.max
	if err := e.begin(chunkenc.EncFloatHistogram, t); err != nil {
		return err
	}
	next, recoded, app, err := e.app.AppendFloatHistogram(nil, t, h, false)
	e.take(next, recoded, app, last, t)
	return err
}

// take goes on with the chunk that appending a histogram may have made: the open one in a wider layout
// (recoded), or a new one, when a counter was reset or the layout does not fit.
func (e *encoder) take(next chunkenc.Chunk, recoded bool, app chunkenc.Appender, last, t int64) {
	if next != nil {
		if !recoded {
			e.max = last
			e.flush()
			e.min, e.max = t, t
		}
		e.open = next
	}
	e.app = app
}
