package store

import (
	"cmp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// A replica is written down as the removed labels, sorted: name, separator, value, separator, and so on. Two
// Stores, or two tiers of queriers that remove one label each, come to the same text.

// replicaSeparator ends each name and each value. No label holds it.
const replicaSeparator = "\x00"

// ReplicaOf returns the name of the replica that a series with these labels belongs to once the named labels
// are removed; empty if it has none of them.
func ReplicaOf(ls labels.Labels, names []string) string {
	if !HasAny(ls, names) {
		return ""
	}
	var b []byte
	ls.Range(func(l labels.Label) {
		if l.Value != "" && slices.Contains(names, l.Name) {
			b = appendReplica(b, l.Name, l.Value)
		}
	})
	return string(b)
}

func appendReplica(b []byte, name, value string) []byte {
	b = append(append(b, name...), replicaSeparator...)
	return append(append(b, value...), replicaSeparator...)
}

// JoinReplicas returns the replica of which two Stores have told a part each, in whatever order they are given.
func JoinReplicas(a, b string) string {
	switch {
	case b == "" || a == b:
		return a
	case a == "":
		return b
	}
	all := append(replicaLabels(a), replicaLabels(b)...)
	slices.SortFunc(all, func(x, y labels.Label) int { return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Value, y.Value)) })
	all = slices.Compact(all)
	var out []byte
	for _, l := range all {
		out = appendReplica(out, l.Name, l.Value)
	}
	return string(out)
}

// replicaLabels takes a replica's name apart. What came over a wire may be anything.
func replicaLabels(s string) (all []labels.Label) {
	for s != "" {
		var l labels.Label
		l.Name, s, _ = strings.Cut(s, replicaSeparator)
		l.Value, s, _ = strings.Cut(s, replicaSeparator)
		all = append(all, l)
	}
	return all
}

// CompareReplicas orders replicas; an unknown one is the last.
func CompareReplicas(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == "":
		return 1
	case b == "":
		return -1
	}
	return strings.Compare(a, b)
}

// InReplica hands out a cursor's series with their chunks named as the replica's, but for those that are
// named already.
func InReplica(c Cursor, replica string) Cursor {
	if replica == "" {
		return c
	}
	return &inReplica{Cursor: c, replica: replica}
}

type inReplica struct {
	Cursor
	replica string
	fresh   bool // out is the current series
	out     Series
}

func (c *inReplica) Next() bool {
	c.fresh = false
	return c.Cursor.Next()
}

func (c *inReplica) At() *Series {
	if !c.fresh {
		s := c.Cursor.At()
		c.out.Labels, c.out.Chunks = s.Labels, append(c.out.Chunks[:0], s.Chunks...)
		c.name(c.out.Chunks)
		c.fresh = true
	}
	return &c.out
}

func (c *inReplica) name(chunks []Chunk) {
	for i := range chunks {
		if chunks[i].Replica == "" {
			chunks[i].Replica = c.replica
		}
	}
}

// Keep implements Keeper.
func (c *inReplica) Keep() *Series {
	s := *Keep(c.Cursor)
	s.Chunks = slices.Clone(s.Chunks)
	c.name(s.Chunks)
	return &s
}

// internedMax bounds the names that an Interner holds: more than there are replicas.
const internedMax = 1024

// Interner returns the same string for the same bytes, so that a name that comes with every chunk is
// allocated once. It belongs to one goroutine; the zero value is ready.
type Interner struct {
	last string
	all  map[string]string
}

// String returns b as a string.
func (in *Interner) String(b []byte) string {
	if string(b) == in.last {
		return in.last
	}
	s, ok := in.all[string(b)]
	if !ok {
		if in.all == nil {
			in.all = map[string]string{}
		}
		if len(in.all) >= internedMax {
			clear(in.all)
		}
		s = string(b)
		in.all[s] = s
	}
	in.last = s
	return s
}
