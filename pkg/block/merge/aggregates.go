package merge

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/chunk/xor"
)

// aggregates merges overlapping chunks of aggregates, be they of one stream or of several. A window is taken from one
// chunk as a whole: its count and its sum belong together. The chunk with the most windows of those that overlap comes
// first, and passes as it is; the others fill in what lies before and behind it.
func (w *worker) aggregates(es []entry) error {
	order := make([]int, 0, len(es))
	for i := range es {
		if !es[i].neighbour {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return stream.SamplesOf(&es[b].Chunk) - stream.SamplesOf(&es[a].Chunk)
	})
	var taken []span
	for _, i := range order {
		e := &es[i]
		for _, free := range w.free(taken, e) {
			if free.from <= e.MinTime && free.to >= e.MaxTime && w.whole(e) {
				w.insert(e.Chunk)
				w.passed++
				continue
			}
			made, err := w.trim(e, free)
			if err != nil {
				return w.fault(e, err)
			}
			if made != nil {
				w.insert(*made)
				w.made++
			}
		}
		taken = append(taken, span{e.MinTime, e.MaxTime})
	}
	return nil
}

// span is a stretch of time in ms, both ends included.
type span struct{ from, to int64 }

// free returns the parts of a chunk's time that are not taken, in order.
func (w *worker) free(taken []span, e *entry) []span {
	rest := []span{{max(e.MinTime, w.cfg.MinTime), min(e.MaxTime, w.cfg.MaxTime-1)}}
	cut := func(t span) {
		var next []span
		for _, s := range rest {
			if t.to < s.from || s.to < t.from {
				next = append(next, s)
				continue
			}
			if s.from < t.from {
				next = append(next, span{s.from, t.from - 1})
			}
			if t.to < s.to {
				next = append(next, span{t.to + 1, s.to})
			}
		}
		rest = next
	}
	for _, t := range taken {
		cut(t)
	}
	for _, d := range e.deleted {
		cut(span{d.Mint, d.Maxt})
	}
	return slices.DeleteFunc(rest, func(s span) bool { return s.from > s.to })
}

// insert puts a chunk among those of its series, which may have been made behind it.
func (w *worker) insert(c stream.Chunk) {
	from := 0
	if n := len(w.ends); n > 0 {
		from = w.ends[n-1]
	}
	at := len(w.out)
	for at > from && w.out[at-1].MinTime > c.MinTime {
		at--
	}
	w.out = slices.Insert(w.out, at, c)
}

// trim makes a chunk of the windows of one that end within a stretch of time; nil if there are none.
func (w *worker) trim(e *entry, s span) (*stream.Chunk, error) {
	var parts [aggr.Types]aggr.Part
	out := &stream.Chunk{Encoding: aggr.Encoding}
	for t := range aggr.Type(aggr.Types) {
		enc, data, err := aggr.Chunk(e.Data).Get(t)
		if errors.Is(err, aggr.ErrAbsent) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if enc != chunkenc.EncXOR {
			return w.trimHistograms(e, s)
		}
		var in xor.Samples
		if err := xor.Decode(&in, data); err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		if t == aggr.Counter {
			in = aggr.CutCounter(in, s.from, s.to)
		} else {
			in = in.Between(s.from, s.to)
		}
		if in.Len() == 0 {
			continue
		}
		if t == aggr.Count {
			out.MinTime, out.MaxTime = in.Times[0], in.Times[in.Len()-1]
		}
		parts[t] = aggr.Part{Encoding: chunkenc.EncXOR, Data: xor.Encode(nil, in.Times, in.Values)}
	}
	if parts[aggr.Count].Data == nil {
		return nil, nil
	}
	out.Data = aggr.Append(nil, &parts)
	return out, nil
}

// trimHistograms does the same with aggregates of histograms.
func (w *worker) trimHistograms(e *entry, s span) (*stream.Chunk, error) {
	var parts [aggr.Types]aggr.Part
	out := &stream.Chunk{Encoding: aggr.Encoding}
	for t := range aggr.Type(aggr.Types) {
		enc, data, err := aggr.Chunk(e.Data).Get(t)
		if errors.Is(err, aggr.ErrAbsent) {
			continue
		}
		if err != nil {
			return nil, err
		}
		c, err := chunkenc.FromData(enc, data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		points, err := drain(nil, c.Iterator(nil))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		points = slices.DeleteFunc(points, func(p point) bool { return p.t < s.from || p.t > s.to })
		if len(points) == 0 {
			continue
		}
		if t == aggr.Count {
			out.MinTime, out.MaxTime = points[0].t, points[len(points)-1].t
		}
		one := newWorker(w.cfg)
		if err := one.emitPoints(points); err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		if len(one.out) != 1 {
			return nil, fmt.Errorf("%s: %d windows make %d chunks", t, len(points), len(one.out))
		}
		parts[t] = aggr.Part{Encoding: one.out[0].Encoding, Data: one.out[0].Data}
	}
	if parts[aggr.Count].Data == nil {
		return nil, nil
	}
	out.Data = aggr.Append(nil, &parts)
	return out, nil
}
