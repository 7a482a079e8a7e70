package query

import (
	"slices"

	"github.com/koios-metrics/koios/pkg/dedup"
	"github.com/koios-metrics/koios/pkg/store"
)

// replica is what one replica has of a series: chunks in order, as indices into those of the series. They may
// overlap: a bucket and a sidecar hold the same samples and cut them elsewhere.
type replica struct {
	name   string // empty if it is unknown
	chunks []int32
}

// replicas sorts the chunks of a series, which are in order, by replica, and the replicas by name. Chunks that do
// not tell whose they are come last, split into lanes. Without deduplication all are one replica's. The result
// depends on nothing but the chunks; the memory of before is reused.
type replicas struct {
	all     []replica
	unknown []int32
	lanes   []lane
}

func (rs *replicas) split(cs []store.Chunk, mode dedup.Mode) {
	for i := range rs.all {
		rs.all[i].chunks = rs.all[i].chunks[:0]
	}
	rs.all, rs.unknown = rs.all[:0], rs.unknown[:0]
	if mode == dedup.Chain {
		r := rs.add("")
		for i := range cs {
			r.chunks = append(r.chunks, int32(i))
		}
		return
	}
	for i := range cs {
		if cs[i].Replica == "" {
			rs.unknown = append(rs.unknown, int32(i))
			continue
		}
		r := rs.named(cs[i].Replica)
		r.chunks = append(r.chunks, int32(i))
	}
	slices.SortFunc(rs.all, func(a, b replica) int { return store.CompareReplicas(a.name, b.name) })
	if len(rs.unknown) == 0 {
		return
	}
	rs.lanes = split(cs, rs.unknown, rs.lanes)
	for i := range rs.lanes {
		r := rs.add("")
		r.chunks = append(r.chunks, rs.lanes[i].chunks...)
	}
}

func (rs *replicas) named(name string) *replica {
	for i := range rs.all {
		if rs.all[i].name == name {
			return &rs.all[i]
		}
	}
	return rs.add(name)
}

func (rs *replicas) add(name string) *replica {
	if n := len(rs.all); n < cap(rs.all) {
		rs.all = rs.all[:n+1]
		rs.all[n] = replica{name: name, chunks: rs.all[n].chunks[:0]}
	} else {
		rs.all = append(rs.all, replica{name: name})
	}
	return &rs.all[len(rs.all)-1]
}
