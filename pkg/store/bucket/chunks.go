package bucket

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/store"
)

// encodingAggregate is the encoding byte of chunks in downsampled blocks: five chunks in one.
const encodingAggregate = 0xff

// wantedChunk is a chunk to be read: where it is, how long it is at most, and where it belongs.
type wantedChunk struct {
	ref    uint64
	length int64 // 0 is unknown
	to     *store.Chunk
	bad    error
	size   int
}

// readChunks fills in the data of chunks. Chunks that are damaged get their cause in bad; an error is about something
// else. The data is allocated from mem.
func (b *loaded) readChunks(ctx context.Context, want []wantedChunk, aggrs []store.Aggr, mem *arena, acc *account, refetched func()) error {
	slices.SortFunc(want, func(x, y wantedChunk) int { return cmp.Compare(x.ref, y.ref) })
	for from := 0; from < len(want); {
		file := want[from].ref >> 32
		to := from + 1
		for to < len(want) && want[to].ref>>32 == file {
			to++
		}
		part := want[from:to]
		if err := b.readChunkFile(ctx, int(file), part, aggrs, mem, acc, refetched); err != nil {
			if !errors.Is(err, errCorrupt) && !notFound(b.bkt, err) {
				return err
			}
			// The file as a whole is damaged or gone; the other files may be well.
			for i := range part {
				if part[i].bad == nil && part[i].size == 0 {
					part[i].bad = err
				}
			}
		}
		from = to
	}
	var bytes int64
	for i := range want {
		bytes += int64(want[i].size)
	}
	acc.touch(chunksData, len(want), len(want), bytes)
	return nil
}

func (b *loaded) readChunkFile(ctx context.Context, file int, want []wantedChunk, aggrs []store.Aggr, mem *arena, acc *account, refetched func()) error {
	o, err := b.chunkFile(file, acc)
	if err != nil {
		return err
	}
	guess := b.chunkLengths.guess()
	pieces := make([]piece, len(want))
	for i := range want {
		p := piece{off: int64(uint32(want[i].ref)), length: want[i].length}
		if p.length == 0 {
			p.length = guess
		}
		if i+1 < len(want) {
			next := int64(uint32(want[i+1].ref))
			if next == p.off {
				return corruptf("%s: two references into one piece at %d", o.name, next)
			}
			p.length = min(p.length, next-p.off)
		}
		pieces[i] = p
	}
	err = o.read(ctx, pieces, mem, func(i int, data []byte) (int64, error) {
		w, next := &want[i], int64(0)
		if i+1 < len(want) {
			next = pieces[i+1].off
		}
		// A chunk's length does not count its encoding and its checksum.
		content, need, err := o.entry(data, pieces[i].off, next, 1+4)
		if need > 0 {
			refetched()
			return need, nil
		}
		if err == nil {
			w.size = len(content)
			err = fill(w.to, content, aggrs)
		}
		if errors.Is(err, errCorrupt) {
			w.bad, err = err, nil
		}
		return 0, err
	})
	b.chunkLengths.learn(len(want), func(i int) int64 {
		if want[i].size == 0 {
			return 0
		}
		return int64(want[i].size) + chunkFrameBytes
	})
	return err
}

// chunkFrameBytes is what stands around a chunk: its length and its checksum.
const chunkFrameBytes = 2 + 4

// fill puts the content of a chunk, its encoding and its data, into a chunk of a series.
func fill(c *store.Chunk, content []byte, aggrs []store.Aggr) error {
	if len(content) < 1 {
		return corruptf("chunk without an encoding")
	}
	switch enc, data := content[0], content[1:]; enc {
	case byte(chunkenc.EncXOR), byte(chunkenc.EncHistogram), byte(chunkenc.EncFloatHistogram):
		c.Raw = store.Payload{Encoding: chunkenc.Encoding(enc), Data: data}
		return nil
	case encodingAggregate:
		a, err := parseAggregates(data, aggrs)
		if err != nil {
			return err
		}
		c.Aggrs = a
		return nil
	default:
		return corruptf("chunk of unknown encoding %d", enc)
	}
}

// errNoAggregate is wrapped by the error about an aggregate that a chunk does not have.
var errNoAggregate = errors.New("aggregate does not exist")

// parseAggregates picks aggregates out of an aggregate chunk. It holds five chunks, count, sum, min, max and counter,
// each as its length, its encoding and its data; one that is absent is a length of 0.
func parseAggregates(b []byte, want []store.Aggr) (*store.Aggregates, error) {
	var all [5]store.Payload
	for i := range all {
		n, k := binary.Uvarint(b)
		if k <= 0 {
			return nil, corruptf("aggregate chunk ends before aggregate %d", i+1)
		}
		b = b[k:]
		if n == 0 {
			continue
		}
		if n >= uint64(len(b)) {
			return nil, corruptf("aggregate %d of %d bytes reaches over the end of its chunk", i+1, n)
		}
		enc := chunkenc.Encoding(b[0])
		if enc < chunkenc.EncXOR || enc > chunkenc.EncFloatHistogram {
			return nil, corruptf("aggregate %d of unknown encoding %d", i+1, b[0])
		}
		all[i] = store.Payload{Encoding: enc, Data: b[1 : 1+n : 1+n]}
		b = b[1+n:]
	}
	out := &store.Aggregates{}
	for _, a := range want {
		var to *store.Payload
		switch a {
		case store.AggrCount:
			to = &out.Count
		case store.AggrSum:
			to = &out.Sum
		case store.AggrMin:
			to = &out.Min
		case store.AggrMax:
			to = &out.Max
		case store.AggrCounter:
			to = &out.Counter
		default:
			continue // raw data is not in a downsampled chunk
		}
		p := all[a-store.AggrCount]
		if !p.Present() {
			return nil, fmt.Errorf("%w: %s", errNoAggregate, [...]string{"count", "sum", "min", "max", "counter"}[a-store.AggrCount])
		}
		*to = p
	}
	return out, nil
}

// notFound tells whether an error is about an object that is not there. Providers look at their own errors only, not
// at what wraps them.
func notFound(bkt objstore.BucketReader, err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if bkt.IsObjNotFoundErr(err) {
			return true
		}
	}
	return false
}

// counter counts in parallel.
type counter struct{ n atomic.Int64 }

func (c *counter) inc() { c.n.Add(1) }
