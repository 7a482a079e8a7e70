package merge

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/chunk/xor"
)

// fewSamples are too few for a chunk of their own where one beside them can take them.
const fewSamples = samplesPerChunk / 4

// piece is a part of merged samples: a chunk that holds just these, or none yet.
type piece struct {
	from, to int
	chunk    *stream.Chunk
}

// emitBeside makes chunks of merged samples. Where they are a chunk of the first replica, sample by sample, that chunk is
// passed: encoding them anew would give no fewer bytes.
func (w *worker) emitBeside(s xor.Samples, first *lane) {
	w.pieces = w.pieces[:0]
	at := 0
	add := func(to int, c *stream.Chunk) {
		if to == at {
			return
		}
		// A few samples behind a chunk are put into it.
		if n := len(w.pieces); c == nil && to-at < fewSamples && n > 0 && w.pieces[n-1].chunk != nil {
			w.pieces[n-1] = piece{from: w.pieces[n-1].from, to: to}
		} else {
			w.pieces = append(w.pieces, piece{at, to, c})
		}
		at = to
	}
	for _, e := range first.entries {
		if e.neighbour || !w.whole(e) {
			continue
		}
		from, to, ok := match(s, at, &e.Chunk, &first.all)
		if !ok || to-from < 2*fewSamples {
			continue
		}
		add(from, nil)
		add(to, &e.Chunk)
	}
	add(s.Len(), nil)
	for _, p := range w.pieces {
		if p.chunk != nil {
			w.out = append(w.out, *p.chunk)
			w.passed++
			continue
		}
		w.emitSamples(s.Times[p.from:p.to], s.Values[p.from:p.to])
	}
}

// match finds the samples of a chunk, of which own has them all, among those of s from an index on.
func match(s xor.Samples, at int, c *stream.Chunk, own *xor.Samples) (from, to int, ok bool) {
	n := xor.Count(c.Data)
	from, _ = slices.BinarySearch(s.Times[at:], c.MinTime)
	from += at
	to = from + n
	i, _ := slices.BinarySearch(own.Times, c.MinTime)
	if n == 0 || to > s.Len() || i+n > own.Len() || s.Times[to-1] != c.MaxTime || own.Times[i+n-1] != c.MaxTime {
		return 0, 0, false
	}
	if !slices.Equal(s.Times[from:to], own.Times[i:i+n]) {
		return 0, 0, false
	}
	for k, v := range s.Values[from:to] {
		if math.Float64bits(v) != math.Float64bits(own.Values[i+k]) {
			return 0, 0, false
		}
	}
	return from, to, true
}

// emitSamples makes chunks of samples: of 120 each, and the last of up to a quarter more.
func (w *worker) emitSamples(times []int64, values []float64) {
	for len(times) > 0 {
		n := len(times)
		if n >= samplesPerChunk+fewSamples {
			n = samplesPerChunk
		}
		at := len(w.arena)
		w.arena = xor.Encode(w.arena, times[:n], values[:n])
		w.out = append(w.out, stream.Chunk{
			MinTime: times[0], MaxTime: times[n-1], Encoding: chunkenc.EncXOR, Data: w.arena[at:len(w.arena):len(w.arena)],
		})
		w.made++
		times, values = times[n:], values[n:]
	}
}
