package merge

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/pkg/dedup"
)

// lane is what one replica has of a series.
type lane struct {
	replica string
	floatMerger
	it xor.Iterator
}

// lanes keeps lanes for reuse.
type lanes struct {
	all    []*lane
	n      int
	inputs []chunkenc.Iterator
	merged chunkenc.Iterator
	out    xor.Samples
}

// of returns the lane of a replica; lanes are few.
func (l *lanes) of(replica string) *lane {
	for _, x := range l.all[:l.n] {
		if x.replica == replica {
			return x
		}
	}
	if l.n == len(l.all) {
		l.all = append(l.all, &lane{})
	}
	x := l.all[l.n]
	l.n++
	x.replica = replica
	x.floatMerger.reset()
	return x
}

// replicas merges what several replicas have, as queries would.
func (w *worker) replicas() error {
	switch kindOf(w.entries) {
	case kindAggregates:
		return w.oneStream()
	case kindMixed:
		return w.mixedReplicas()
	}
	l := &w.lanes
	l.n = 0
	had := 0
	for i := range w.entries {
		e := &w.entries[i]
		if err := l.of(e.replica).add(w, e); err != nil {
			return fmt.Errorf("chunk from %d to %d: %w", e.MinTime, e.MaxTime, err)
		}
	}
	slices.SortFunc(l.all[:l.n], func(a, b *lane) int {
		if a.replica < b.replica {
			return -1
		}
		return 1
	})
	l.inputs = l.inputs[:0]
	for _, x := range l.all[:l.n] {
		had += x.floatMerger.all.Len()
		x.it.Reset(x.floatMerger.all, nil)
		l.inputs = append(l.inputs, &x.it)
	}
	l.merged = dedup.Merge(l.merged, l.inputs, dedup.Options{})
	l.out.Reset()
	for l.merged.Next() != chunkenc.ValNone {
		t, v := l.merged.At()
		l.out.Times, l.out.Values = append(l.out.Times, t), append(l.out.Values, v)
	}
	if err := l.merged.Err(); err != nil {
		return err
	}
	w.duplicates += uint64(had - l.out.Len())
	w.emitFloats(l.out)
	return nil
}
