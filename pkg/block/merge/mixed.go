package merge

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/dedup"
)

// point is a sample of any kind, as Prometheus's encoder takes it.
type point struct {
	t  int64
	f  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

func (p point) T() int64                      { return p.t }
func (p point) F() float64                    { return p.f }
func (p point) H() *histogram.Histogram       { return p.h }
func (p point) FH() *histogram.FloatHistogram { return p.fh }
func (p point) Copy() chunks.Sample           { return p }

func (p point) Type() chunkenc.ValueType {
	switch {
	case p.h != nil:
		return chunkenc.ValHistogram
	case p.fh != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// drain appends the samples of an iterator.
func drain(dst []point, it chunkenc.Iterator) ([]point, error) {
	for {
		var p point
		switch it.Next() {
		case chunkenc.ValFloat:
			p.t, p.f = it.At()
		case chunkenc.ValHistogram:
			p.t, p.h = it.AtHistogram(nil)
			p.f = p.h.Sum
		case chunkenc.ValFloatHistogram:
			p.t, p.fh = it.AtFloatHistogram(nil)
			p.f = p.fh.Sum
		case chunkenc.ValNone:
			return dst, it.Err()
		}
		dst = append(dst, p)
	}
}

// points reads the samples of chunks, in order of time; of equal times the first chunk's counts.
func (w *worker) points(es []entry, take func(*entry) bool) ([]point, error) {
	var all []point
	for i := range es {
		e := &es[i]
		if !take(e) {
			continue
		}
		c, err := chunkenc.FromData(e.Encoding, e.Data)
		if err != nil {
			return nil, w.fault(e, err)
		}
		from := len(all)
		if all, err = drain(all, c.Iterator(nil)); err != nil {
			return nil, w.fault(e, err)
		}
		if len(e.deleted) > 0 {
			all = append(all[:from], slices.DeleteFunc(all[from:], func(p point) bool { return !e.wanted(p.t) })...)
		}
	}
	slices.SortStableFunc(all, func(a, b point) int { return cmp.Compare(a.t, b.t) })
	n := len(all)
	all = slices.CompactFunc(all, func(a, b point) bool { return a.t == b.t })
	w.duplicates += uint64(n - len(all))
	return all, nil
}

// mixed makes one stream of chunks of histograms, and of floats among them.
func (w *worker) mixed(es []entry) error {
	all, err := w.points(es, func(e *entry) bool { return !e.neighbour })
	if err != nil {
		return err
	}
	return w.emitPoints(all)
}

// mixedReplicas merges replicas of such.
func (w *worker) mixedReplicas() error {
	var names []string
	for i := range w.entries {
		names = append(names, w.entries[i].replica)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var its []chunkenc.Iterator
	had := 0
	for _, name := range names {
		all, err := w.points(w.entries, func(e *entry) bool { return e.replica == name })
		if err != nil {
			return err
		}
		had += len(all)
		its = append(its, storage.NewListSeriesIterator(pointList(all)))
	}
	all, err := drain(nil, dedup.Merge(nil, its, dedup.Options{Reach: w.reach}))
	if err != nil {
		return err
	}
	w.duplicates += uint64(had - len(all))
	return w.emitPoints(all)
}

// pointList is samples as Prometheus lists them.
type pointList []point

func (l pointList) Get(i int) chunks.Sample { return l[i] }
func (l pointList) Len() int                { return len(l) }

// emitPoints makes chunks of those samples that are within the bounds of the output.
func (w *worker) emitPoints(all []point) error {
	all = slices.DeleteFunc(all, func(p point) bool { return p.t < w.cfg.MinTime || p.t >= w.cfg.MaxTime })
	samples := make([]chunks.Sample, len(all))
	for i := range all {
		samples[i] = all[i]
	}
	it := storage.NewSeriesToChunkEncoder(storage.NewListSeries(labels.EmptyLabels(), samples)).Iterator(nil)
	for it.Next() {
		c := it.At()
		w.out = append(w.out, stream.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Chunk.Encoding(), Data: c.Chunk.Bytes()})
		w.made++
	}
	return it.Err()
}
