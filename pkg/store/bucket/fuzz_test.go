package bucket

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/koios-metrics/koios/pkg/store"
)

// Shows that no bytes break the decoder of series, and that what it takes it reads as Prometheus's own.
func FuzzSeriesEntry(f *testing.F) {
	f.Add([]byte{2, 1, 2, 3, 4, 2, 20, 10, 8, 5, 10, 30})
	f.Add([]byte{0, 0})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e seriesEntry
		if e.decode(b) != nil {
			return
		}
		var symbols []uint32
		dec := index.Decoder{LookupSymbol: func(_ context.Context, ref uint32) (string, error) {
			symbols = append(symbols, ref)
			return "x", nil
		}}
		var sb labels.ScratchBuilder
		var metas []chunks.Meta
		if err := dec.Series(b, &sb, &metas); err != nil {
			t.Fatalf("took what Prometheus refuses: %v", err)
		}
		if len(symbols) != len(e.symbols) || len(metas) != len(e.chunks) {
			t.Fatalf("%d symbols, want %d; %d chunks, want %d", len(e.symbols), len(symbols), len(e.chunks), len(metas))
		}
		for i, m := range metas {
			if c := e.chunks[i]; c.mint != m.MinTime || c.maxt != m.MaxTime || c.ref != uint64(m.Ref) {
				t.Fatalf("chunk %d: %+v, want %+v", i, c, m)
			}
		}
	})
}

// Shows that no bytes break the parser of aggregate chunks, and that what it hands out lies within them.
func FuzzAggregates(f *testing.F) {
	x := xorData(1, 1, 1, 2, 3)
	f.Add(aggregateData(x, x, x, x, x))
	f.Add(aggregateData(x, nil, nil, nil, x))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, want := range [][]store.Aggr{nil, {store.AggrCount}, {store.AggrCount, store.AggrSum, store.AggrMin, store.AggrMax, store.AggrCounter}} {
			a, err := parseAggregates(b, want)
			if err != nil {
				continue
			}
			n := 0
			c := store.Chunk{Aggrs: a}
			c.Payloads(func(_ store.Aggr, p *store.Payload) { n++ })
			if n != len(want) {
				t.Fatalf("%d aggregates, want %d", n, len(want))
			}
		}
	})
}

// Shows that no bytes break the decoder of posting lists. The checksum is made right.
func FuzzPostings(f *testing.F) {
	f.Add([]byte{0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 0})
	f.Add(make([]byte, 12))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 12 {
			return
		}
		if n := uint64(binary.BigEndian.Uint32(b)); 4+n+4 <= uint64(len(b)) {
			binary.BigEndian.PutUint32(b[4+n:], crc32.Checksum(b[4:4+n], castagnoli))
		}
		p, err := decodePostings(b)
		if err != nil {
			return
		}
		var refs []storage.SeriesRef
		for p.Next() {
			refs = append(refs, p.At())
		}
		if len(refs) > len(b)/4 {
			t.Fatalf("%d references in %d bytes", len(refs), len(b))
		}
	})
}
