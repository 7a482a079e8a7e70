package merge

import (
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/value"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/pkg/dedup"
)

// lane is what one replica has of a series of floats: a dedup.Source. Chunks are decoded when they are asked for, and of
// most replicas but the first only those at the ends and around holes ever are.
type lane struct {
	replica string
	w       *worker
	entries []*entry
	// What is decoded: everything from mint to maxt.
	mint, maxt int64
	floatMerger
	marks []int64
	read  int // samples decoded
}

func (l *lane) reset(w *worker, replica string) {
	l.w, l.replica, l.entries, l.read = w, replica, l.entries[:0], 0
	l.mint, l.maxt = math.MaxInt64, math.MinInt64
}

// Around implements dedup.Source.
func (l *lane) Around(mint, maxt int64, context bool, beyond int64) (dedup.Window[float64], error) {
	if context {
		mint, maxt = dedup.Add(mint, -beyond), dedup.Add(maxt, beyond)
	}
	if mint < l.mint || maxt > l.maxt {
		if err := l.decode(mint, maxt); err != nil {
			return dedup.Window[float64]{}, err
		}
	}
	return dedup.Window[float64]{Times: l.all.Times, Values: l.all.Values, Marks: l.marks}, nil
}

// Ahead implements dedup.Source. Everything is merged at once.
func (l *lane) Ahead(int64) int64 { return math.MaxInt64 }

func (l *lane) decode(mint, maxt int64) error {
	l.mint, l.maxt = mint, maxt
	l.floatMerger.reset()
	l.marks = l.marks[:0]
	for _, e := range l.entries {
		if e.MaxTime < mint || e.MinTime > maxt {
			continue
		}
		if err := l.add(l.w, e); err != nil {
			return l.w.fault(e, err)
		}
	}
	n := 0
	for i, v := range l.all.Values {
		if value.IsStaleNaN(v) {
			l.marks = append(l.marks, l.all.Times[i])
			continue
		}
		if n != i {
			l.all.Times[n], l.all.Values[n] = l.all.Times[i], v
		}
		n++
	}
	l.all.Times, l.all.Values = l.all.Times[:n], l.all.Values[:n]
	l.read += n
	return nil
}

// lanes keeps lanes for reuse.
type lanes struct {
	all     []*lane
	n       int
	sources []dedup.Source[float64]
	merger  *dedup.Merger[float64]
}

// of returns the lane of a replica; lanes are few.
func (l *lanes) of(w *worker, replica string) *lane {
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
	x.reset(w, replica)
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
	mint, maxt := int64(math.MaxInt64), int64(math.MinInt64)
	for i := range w.entries {
		e := &w.entries[i]
		x := l.of(w, e.replica)
		x.entries = append(x.entries, e)
		mint, maxt = min(mint, e.MinTime), max(maxt, e.MaxTime)
	}
	mint, maxt = max(mint, w.cfg.MinTime), min(maxt, w.cfg.MaxTime-1)
	if mint > maxt {
		return nil
	}
	slices.SortFunc(l.all[:l.n], func(a, b *lane) int { return strings.Compare(a.replica, b.replica) })
	l.sources = l.sources[:0]
	for _, x := range l.all[:l.n] {
		l.sources = append(l.sources, x)
	}
	if l.merger == nil {
		l.merger = dedup.NewFloats()
	}
	l.merger.Reset(l.sources, w.reach)
	times, values, err := l.merger.Between(mint, maxt)
	if err != nil {
		return err
	}
	had := 0
	for i := range w.entries {
		had += int(countOf(&w.entries[i]))
	}
	w.duplicates += uint64(max(0, had-len(times)))
	w.emitBeside(xor.Samples{Times: times, Values: values}, l.all[0])
	return nil
}

func countOf(e *entry) uint16 {
	if len(e.Data) < 2 || e.neighbour {
		return 0
	}
	return uint16(e.Data[0])<<8 | uint16(e.Data[1])
}
