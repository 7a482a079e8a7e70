package store

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Series is one series: its final labels and its chunks in the order of CompareChunks.
type Series struct {
	Labels labels.Labels
	Chunks []Chunk
}

// Chunk is a piece of a series. Either Raw is present, or Aggrs is.
type Chunk struct {
	// MinTime and MaxTime are the times in ms of the first and the last sample, as the index or the
	// peer states them.
	MinTime, MaxTime int64
	// Raw holds scraped samples.
	Raw Payload
	// Aggrs holds downsampled data: exactly the requested aggregates.
	Aggrs *Aggregates
	// Replica names whose samples these are among series that became equal when replica labels were
	// removed: the removed names and values, in a form that sorts and compares, and tells nothing else (see
	// ReplicaOf). Empty where nothing was removed, or where the Store can't tell. Of equal chunks of
	// several replicas one is handed out, in the name of the first by CompareReplicas.
	Replica string
}

// Aggregates are the parts of a downsampled chunk; absent ones have no encoding.
type Aggregates struct {
	Count, Sum, Min, Max, Counter Payload
}

// Payload is an encoded TSDB chunk without its length, encoding byte and checksum.
type Payload struct {
	// Encoding is Prometheus's number (XOR 1, histogram 2, float histogram 3); EncNone is absence.
	Encoding chunkenc.Encoding
	// Data is lent along with the series it belongs to.
	Data []byte
	// Hash is the xxhash64 of Data, 0 if nobody has computed it yet.
	Hash uint64
}

// Present tells whether there is a chunk at all.
func (p Payload) Present() bool { return p.Encoding != chunkenc.EncNone }

// Sum64 returns the xxhash64 of the data.
func (p Payload) Sum64() uint64 {
	if p.Hash != 0 {
		return p.Hash
	}
	return xxhash.Sum64(p.Data)
}

// sum64 stands for the content of all payloads of the chunk.
func (c *Chunk) sum64() uint64 {
	sum := c.Raw.Sum64()
	if a := c.Aggrs; a != nil {
		for _, p := range [...]*Payload{&a.Count, &a.Sum, &a.Min, &a.Max, &a.Counter} {
			sum = sum*31 + p.Sum64()
		}
	}
	return sum
}

func (p Payload) clone() Payload {
	p.Data = slices.Clone(p.Data)
	return p
}

// Payloads calls f with every present payload and the aggregate that it is.
func (c *Chunk) Payloads(f func(Aggr, *Payload)) {
	if c.Raw.Present() {
		f(AggrRaw, &c.Raw)
	}
	if c.Aggrs == nil {
		return
	}
	for i, p := range []*Payload{&c.Aggrs.Count, &c.Aggrs.Sum, &c.Aggrs.Min, &c.Aggrs.Max, &c.Aggrs.Counter} {
		if p.Present() {
			f(AggrCount+Aggr(i), p)
		}
	}
}

// Clone copies the chunk and its bytes.
func (c Chunk) Clone() Chunk {
	c.Raw = c.Raw.clone()
	if a := c.Aggrs; a != nil {
		c.Aggrs = &Aggregates{Count: a.Count.clone(), Sum: a.Sum.clone(), Min: a.Min.clone(), Max: a.Max.clone(), Counter: a.Counter.clone()}
	}
	return c
}

// Clone copies the series and the bytes of its chunks, so that it outlives its cursor's next move.
func (s *Series) Clone() *Series {
	c := &Series{Labels: s.Labels, Chunks: make([]Chunk, len(s.Chunks))}
	for i := range s.Chunks {
		c.Chunks[i] = s.Chunks[i].Clone()
	}
	return c
}

// Size is the memory in bytes that a clone of the series takes, roughly.
func (s *Series) Size() int64 {
	n := int64(seriesOverhead + s.Labels.ByteSize() + uint64(len(s.Chunks))*chunkOverhead)
	for i := range s.Chunks {
		s.Chunks[i].Payloads(func(_ Aggr, p *Payload) { n += int64(len(p.Data)) })
	}
	return n
}

const (
	// A Series: a string header and a slice header, and the pointer that holds it.
	seriesOverhead = 16 + 24 + 8
	// A Chunk: two times, a payload (8+24+8), a pointer, and the header of a string that is shared.
	chunkOverhead = 16 + 40 + 8 + 16
)

// CompareChunks orders the chunks of a series: by MinTime, then MaxTime, then bytes. Chunks that differ in
// their replica alone are equal.
func CompareChunks(a, b *Chunk) int {
	if c := cmp.Compare(a.MinTime, b.MinTime); c != 0 {
		return c
	}
	if c := cmp.Compare(a.MaxTime, b.MaxTime); c != 0 {
		return c
	}
	return comparePayloads(a, b)
}

func comparePayloads(a, b *Chunk) int {
	if c := comparePayload(&a.Raw, &b.Raw); c != 0 {
		return c
	}
	var none Aggregates
	x, y := a.Aggrs, b.Aggrs
	if x == nil {
		x = &none
	}
	if y == nil {
		y = &none
	}
	return cmp.Or(comparePayload(&x.Count, &y.Count), comparePayload(&x.Sum, &y.Sum),
		comparePayload(&x.Min, &y.Min), comparePayload(&x.Max, &y.Max), comparePayload(&x.Counter, &y.Counter))
}

func comparePayload(a, b *Payload) int {
	if c := cmp.Compare(a.Encoding, b.Encoding); c != 0 {
		return c
	}
	return bytes.Compare(a.Data, b.Data)
}

// SortChunks puts the chunks of a series in order and drops those that are equal in times and bytes, but for
// the one whose replica is first.
func SortChunks(cs []Chunk) []Chunk {
	slices.SortFunc(cs, func(a, b Chunk) int {
		if c := CompareChunks(&a, &b); c != 0 {
			return c
		}
		return CompareReplicas(a.Replica, b.Replica)
	})
	return slices.CompactFunc(cs, func(a, b Chunk) bool { return CompareChunks(&a, &b) == 0 })
}
