package merge

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/dedup"
)

func refOf(s *stream.Series) storage.SeriesRef { return storage.SeriesRef(s.Ref) }

// entry is a chunk of one of the inputs.
type entry struct {
	stream.Chunk
	source    int // in order of the inputs
	replica   string
	neighbour bool
	deleted   tombstones.Intervals
}

// worker merges the series of a batch, one after the other.
type worker struct {
	cfg   *Config
	reach int64

	entries []entry
	floats  floatMerger
	lanes   lanes
	pieces  []piece

	// out are the chunks of all series so far; ends are where each series' own end. Chunks that are passed through
	// share the bytes of their input, others lie in arena.
	out   []stream.Chunk
	ends  []int
	arena []byte

	passed, made, duplicates, disorder uint64
}

func newWorker(cfg *Config) worker {
	return worker{cfg: cfg, reach: dedup.Reach(cfg.Inputs[0].Meta.Resolution())}
}

func (w *worker) reset() {
	w.out, w.ends, w.arena = w.out[:0], w.ends[:0], w.arena[:0]
	w.passed, w.made, w.duplicates, w.disorder = 0, 0, 0, 0
}

// merge makes the chunks of one series.
func (w *worker) merge(j *job) error {
	replicas, err := w.gather(j)
	if err != nil {
		return err
	}
	if replicas > 1 && w.cfg.Dedup == Penalty && !w.apart() {
		err = w.replicas()
	} else {
		err = w.oneStream()
	}
	if err != nil {
		return err
	}
	w.ends = append(w.ends, len(w.out))
	return nil
}

// gather fills entries in order of time, without chunks that are there twice, and returns the number of replicas.
func (w *worker) gather(j *job) (replicas int, err error) {
	w.entries = w.entries[:0]
	several := false
	for i := range j.parts[:j.n] {
		p := &j.parts[i]
		s := p.source
		for k := range p.series.Chunks {
			c := &p.series.Chunks[k]
			if k > 0 && c.MinTime <= p.series.Chunks[k-1].MaxTime {
				if w.cfg.RefuseDisorder && !s.neighbour {
					return 0, &InputError{s.Meta.ULID, ErrDisorder}
				}
				w.disorder++
			}
			w.entries = append(w.entries, entry{Chunk: *c, source: s.index, replica: s.Replica, neighbour: s.neighbour, deleted: p.deleted})
		}
		several = several || s.Replica != j.parts[0].source.Replica
	}
	inOrder := slices.IsSortedFunc(w.entries, byTime)
	if !inOrder {
		slices.SortStableFunc(w.entries, byTime)
	}
	w.entries = slices.CompactFunc(w.entries, func(a, b entry) bool {
		same := a.MinTime == b.MinTime && a.MaxTime == b.MaxTime && a.Encoding == b.Encoding && a.neighbour == b.neighbour &&
			len(a.deleted) == 0 && len(b.deleted) == 0 && bytes.Equal(a.Data, b.Data)
		if same {
			w.duplicates += uint64(stream.SamplesOf(&a.Chunk))
		}
		return same
	})
	if !several {
		return 1, nil
	}
	return 2, nil
}

func byTime(a, b entry) int {
	if c := cmp.Compare(a.MinTime, b.MinTime); c != 0 {
		return c
	}
	if c := cmp.Compare(a.MaxTime, b.MaxTime); c != 0 {
		return c
	}
	return cmp.Compare(a.source, b.source)
}

// apart tells whether the replicas are so far from one another that they say nothing about each other.
func (w *worker) apart() bool {
	for i := 1; i < len(w.entries); i++ {
		a, b := &w.entries[i-1], &w.entries[i]
		if a.replica != b.replica && b.MinTime-a.MaxTime <= w.reach {
			return false
		}
	}
	// In order of MinTime a long chunk may reach over those behind it.
	end := int64(0)
	for i := range w.entries {
		if i > 0 && w.entries[i].MinTime <= end {
			return false
		}
		end = max(end, w.entries[i].MaxTime)
	}
	return true
}

// whole tells whether all of a chunk goes to the output.
func (w *worker) whole(e *entry) bool {
	if e.MinTime < w.cfg.MinTime || e.MaxTime >= w.cfg.MaxTime {
		return false
	}
	for _, d := range e.deleted {
		if e.OverlapsClosed(d.Mint, d.Maxt) {
			return false
		}
	}
	return true
}

// oneStream merges the chunks as one stream: those that overlap no other pass.
func (w *worker) oneStream() error {
	es := w.entries
	for len(es) > 0 {
		if es[0].neighbour {
			es = es[1:]
			continue
		}
		n, end := 1, es[0].MaxTime
		for n < len(es) && (es[n].neighbour || es[n].MinTime <= end) {
			if !es[n].neighbour {
				end = max(end, es[n].MaxTime)
			}
			n++
		}
		if n == 1 && w.whole(&es[0]) {
			w.pass(&es[0])
		} else if err := w.remake(es[:n]); err != nil {
			return err
		}
		es = es[n:]
	}
	return nil
}

func (w *worker) pass(e *entry) {
	w.out = append(w.out, e.Chunk)
	w.passed++
}

// remake makes new chunks of those that overlap one another, or of which a part is to go.
func (w *worker) remake(es []entry) error {
	switch kindOf(es) {
	case kindFloats:
		w.floats.reset()
		for i := range es {
			if es[i].neighbour {
				continue
			}
			if err := w.floats.add(w, &es[i]); err != nil {
				return w.fault(&es[i], err)
			}
		}
		w.emitFloats(w.floats.all)
		return nil
	case kindAggregates:
		return w.aggregates(es)
	}
	return w.mixed(es)
}

// The kinds of chunks that are merged together.
type kind int

const (
	kindFloats kind = iota
	kindMixed       // histograms, and floats among them
	kindAggregates
)

func kindOf(es []entry) kind {
	k := kindFloats
	for i := range es {
		switch es[i].Encoding {
		case chunkenc.EncXOR:
		case aggr.Encoding:
			return kindAggregates
		default:
			k = kindMixed
		}
	}
	return k
}

// fault says which input holds a chunk that has the right checksum and can't be decoded.
func (w *worker) fault(e *entry, err error) error {
	blocks := w.cfg.Inputs
	if e.neighbour {
		blocks = w.cfg.Neighbours
	}
	return &InputError{blocks[e.source].Meta.ULID, &stream.CorruptError{
		File: block.ChunksDirname, Part: "chunk", Fault: stream.FaultFormat,
		Detail: fmt.Sprintf("the chunk from %d to %d of a series: %v", e.MinTime, e.MaxTime, err),
	}}
}
