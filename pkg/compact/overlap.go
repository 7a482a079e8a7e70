package compact

// overlap is why blocks of one group overlap in time. Two more reasons never get here: a block that holds another one,
// and one that has the same bytes, are seen before, and the other is collected.
type overlap string

const (
	// overlapShared is that blocks were made of the same source: merged, its samples are there once.
	overlapShared overlap = "the same source twice"
	// overlapReal is that the blocks come from different sources: replicas, or two writers under one name.
	overlapReal overlap = "different sources"
)

// clusters finds the blocks that overlap, directly or by others between them: runs of two or more, where each begins
// before the end of those before. Blocks are sorted by time.
func clusters(blocks []*Block) (cs [][]*Block) {
	for i := 0; i < len(blocks); {
		maxt := blocks[i].Meta.MaxTime
		j := i + 1
		for ; j < len(blocks) && blocks[j].Meta.MinTime < maxt; j++ {
			maxt = max(maxt, blocks[j].Meta.MaxTime)
		}
		if j-i > 1 {
			cs = append(cs, blocks[i:j:j])
		}
		i = j
	}
	return cs
}

func overlapping(blocks []*Block) bool { return len(clusters(blocks)) > 0 }

// classify tells why the blocks of a cluster overlap. One pair without a common source makes it real.
func classify(cluster []*Block) overlap {
	for i, a := range cluster {
		for _, b := range cluster[i+1:] {
			if b.Meta.MinTime >= a.Meta.MaxTime {
				break
			}
			if !share(a.ids, b.ids) {
				return overlapReal
			}
		}
	}
	return overlapShared
}
