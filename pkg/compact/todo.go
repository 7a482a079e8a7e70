package compact

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// Todo is what there is to do until nothing is left, as far as it can be seen now.
type Todo struct {
	// Merges is the number of merges, MergedBlocks that of the blocks they take.
	Merges, MergedBlocks int
	Downsamples          int
	// Deletions is the number of blocks that will be marked because their retention is over.
	Deletions int
}

// Count carries out plans on paper until none has a step. It bounds its rounds: a plan makes fewer blocks of more, or
// coarser ones, and neither goes on for long.
func Count(blocks []*Block, s Settings, now time.Time) (t Todo) {
	blocks = slices.Clone(blocks)
	for n := range uint64(2*len(blocks) + 8) {
		p := Plan(blocks, s, now, nil)
		if len(p.Steps) == 0 {
			return t
		}
		for _, st := range p.Steps {
			switch st.Kind {
			case KindMerge:
				t.Merges++
				t.MergedBlocks += len(st.Inputs)
			case KindDownsample:
				t.Downsamples++
			case KindExpire:
				t.Deletions++
			}
		}
		blocks = apply(blocks, p.Steps, func(i int) ulid.ULID { return paperID(n<<16 + uint64(i)) })
	}
	return t
}

// paperID is an id that no block has.
func paperID(n uint64) (id ulid.ULID) {
	binary.BigEndian.PutUint64(id[8:], n+1)
	return id
}

// apply returns the blocks as they are after steps of one plan, whose outputs get ids. The blocks given are not changed.
func apply(blocks []*Block, steps []Step, id func(step int) ulid.ULID) []*Block {
	of := make(map[ulid.ULID]int, len(steps))
	for i, st := range steps {
		for _, in := range st.Inputs {
			if j, ok := of[in]; !ok || steps[j].Kind == KindNoCompact { // a block that was marked may be downsampled too
				of[in] = i
			}
		}
	}
	inputs := make([][]*Block, len(steps))
	after := make([]*Block, 0, len(blocks)+len(steps))
	for _, b := range blocks {
		if i, ok := of[b.Meta.ULID]; ok {
			inputs[i] = append(inputs[i], b)
		} else {
			after = append(after, b)
		}
	}
	for i, st := range steps {
		if len(inputs[i]) > 0 {
			after = append(after, outcomes(st, inputs[i], id(i))...)
		}
	}
	return after
}

// outcomes are the blocks that a step leaves of its inputs.
func outcomes(st Step, inputs []*Block, id ulid.ULID) []*Block {
	slices.SortFunc(inputs, byTime)
	switch st.Kind {
	case KindNoCompact:
		marked := *inputs[0]
		marked.NoCompact = true
		return []*Block{&marked}
	case KindMerge:
		return []*Block{{Meta: mergedMeta(inputs, id), IndexBytes: totalIndexBytes(inputs)}}
	case KindDownsample:
		m := inputs[0].Meta.Clone()
		m.ULID = id
		m.Thanos.Downsample.Resolution = st.Target()
		return []*Block{inputs[0], {Meta: m, IndexBytes: inputs[0].IndexBytes}}
	}
	return nil
}

func totalIndexBytes(blocks []*Block) (n int64) {
	for _, b := range blocks {
		n += b.indexBytes()
	}
	return n
}

// mergedMeta is the metadata of a merge of blocks, as far as the inputs tell: its time, level, sources and labels.
func mergedMeta(inputs []*Block, id ulid.ULID) *block.Meta {
	m := &block.Meta{Thanos: block.Thanos{Version: 1, Source: block.SourceCompactor}}
	m.ULID, m.Version = id, 1
	m.MinTime, m.MaxTime = inputs[0].Meta.MinTime, inputs[0].Meta.MaxTime
	m.Thanos.Labels = inputs[0].Meta.Thanos.Labels
	m.Thanos.Downsample = inputs[0].Meta.Thanos.Downsample
	for _, b := range inputs {
		m.MinTime, m.MaxTime = min(m.MinTime, b.Meta.MinTime), max(m.MaxTime, b.Meta.MaxTime)
		m.Compaction.Level = max(m.Compaction.Level, b.Meta.Compaction.Level)
		m.Compaction.Sources = append(m.Compaction.Sources, b.sources()...)
		m.Stats.NumSeries = max(m.Stats.NumSeries, b.Meta.Stats.NumSeries)
	}
	m.Compaction.Level++
	slices.SortFunc(m.Compaction.Sources, ulid.ULID.Compare)
	m.Compaction.Sources = slices.Compact(m.Compaction.Sources)
	return m
}
