package query

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/koios-metrics/koios/pkg/store"
)

// Fetched counts what a request has read from a Store. Samples are those of the chunks as they say
// themselves, in all replicas.
type Fetched struct {
	Series, Chunks, Samples, Bytes int64
}

type counts struct{ series, chunks, samples, bytes atomic.Int64 }

func (c *counts) add(s *series) {
	var f Fetched
	for i := range s.chunks {
		ch := &s.chunks[i]
		counted := false
		ch.Payloads(func(_ store.Aggr, p *store.Payload) {
			f.Bytes += int64(len(p.Data))
			if !counted {
				f.Samples += int64(samples(p))
				counted = true
			}
		})
	}
	c.series.Add(1)
	c.chunks.Add(int64(len(s.chunks)))
	c.samples.Add(f.Samples)
	c.bytes.Add(f.Bytes)
}

func (c *counts) load() Fetched {
	return Fetched{Series: c.series.Load(), Chunks: c.chunks.Load(), Samples: c.samples.Load(), Bytes: c.bytes.Load()}
}

// samples is the number of samples that a chunk says it has: the first two bytes of every encoding.
func samples(p *store.Payload) int {
	if len(p.Data) < 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(p.Data))
}
