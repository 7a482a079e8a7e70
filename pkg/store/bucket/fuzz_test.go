package bucket

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/store"
)

// parts is pieces of blocks as they stand in their files.
type parts struct {
	lists   [][]byte // posting lists, with length and checksum
	entries [][]byte // of series, without
	chunks  [][]byte // with length and checksum
}

// realParts writes a raw block, with histograms, and a downsampled one, and takes their files apart.
func realParts(t testing.TB) (all parts) {
	t.Helper()
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	hs := chunkenc.NewHistogramChunk()
	app, err := hs.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(3) {
		h := &histogram.Histogram{Count: 5, ZeroCount: 1, Sum: 2.5, Schema: 1, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 2}}
		if _, _, app, err = app.AppendHistogram(nil, 1000+10*i, h, false); err != nil {
			t.Fatal(err)
		}
	}
	x := xorData(1000, 10, 1, 2, 3)
	handBlock{n: 8, mint: 0, maxt: 2000, external: ls("r", "a"), series: []handSeries{
		{ls("__name__", "h"), []handChunk{{1000, 1020, byte(chunkenc.EncHistogram), hs.Bytes()}}},
	}}.write(t, bkt)
	handBlock{n: 9, mint: 0, maxt: 2000, external: ls("r", "a"), resolution: 300_000, series: []handSeries{
		{ls("__name__", "up"), []handChunk{aggregateChunk(1000, 1020, x, x, x, x, x), aggregateChunk(1100, 1120, x, nil, nil, nil, x)}},
	}}.write(t, bkt)
	for _, n := range []byte{1, 3, 8, 9} {
		idx, file := bkt.Objects()[testID(n).String()+"/index"], bkt.Objects()[testID(n).String()+"/chunks/000001"]
		toc, err := index.NewTOCFromByteSlice(sliceBytes(idx))
		if err != nil {
			t.Fatal(err)
		}
		for at := (toc.Postings + 3) / 4 * 4; at < min(toc.LabelIndicesTable, toc.PostingsTable); {
			end := at + 4 + uint64(binary.BigEndian.Uint32(idx[at:])) + 4
			all.lists = append(all.lists, idx[at:end])
			at = (end + 3) / 4 * 4
		}
		cut := func(b []byte, extra int) []byte {
			length, k := binary.Uvarint(b)
			return b[:k+int(length)+extra]
		}
		for at := (toc.Series + 15) / 16 * 16; at < toc.LabelIndices && idx[at] > 0; {
			e := cut(idx[at:], 4)
			_, k := binary.Uvarint(e)
			all.entries = append(all.entries, e[k:len(e)-4])
			at = (at + uint64(len(e)) + 15) / 16 * 16
		}
		for at := chunks.SegmentHeaderSize; at < len(file); {
			c := cut(file[at:], 1+4)
			all.chunks = append(all.chunks, c)
			at += len(c)
		}
	}
	if len(all.lists) < 40 || len(all.entries) < 40 || len(all.chunks) < 80 {
		t.Fatalf("%d lists, %d entries, %d chunks", len(all.lists), len(all.entries), len(all.chunks))
	}
	return all
}

// some returns the first, the last and a few of those between.
func some(all [][]byte) (out [][]byte) {
	for i := 0; i < len(all); i += max(1, len(all)/8) {
		out = append(out, all[i])
	}
	return append(out, all[len(all)-1])
}

// Shows that no bytes break the decoder of series, and that what it takes it reads as Prometheus's own.
func FuzzSeriesEntry(f *testing.F) {
	for _, b := range some(realParts(f).entries) {
		f.Add(b)
	}
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

// Shows that no bytes break what takes a chunk out of its file, wherever it is said to end, and that it is believed
// as it was written only. The checksum is made right if it should be.
func FuzzChunk(f *testing.F) {
	for i, b := range some(realParts(f).chunks) {
		f.Add(b, int64(0), int64(0), i%2 == 0)
		f.Add(append(slices.Clone(b), 1, 2, 3), int64(len(b)), int64(1000), false)
		f.Add(b[:len(b)/2], int64(0), int64(1000), false)
	}
	f.Add([]byte{}, int64(0), int64(0), false)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, int64(0), int64(0), false)
	want := []store.Aggr{store.AggrCount, store.AggrCounter}
	f.Fuzz(func(t *testing.T, b []byte, next, size int64, fix bool) {
		length, k := binary.Uvarint(b)
		end := k + int(min(length, 1<<20)) + 1 + 4
		if fix && k > 0 && end <= len(b) {
			binary.BigEndian.PutUint32(b[end-4:], crc32.Checksum(b[k:end-4], castagnoli))
		}
		o := &object{name: "chunks", size: size}
		content, need, err := o.entry(b, 0, max(next, 0), 1+4)
		switch {
		case err != nil:
			if !errors.Is(err, errCorrupt) {
				t.Fatal(err)
			}
			return
		case need > 0:
			if need <= int64(len(b)) || size > 0 && need > size && need != entryBytesMin {
				t.Fatalf("wants %d bytes, has %d of %d", need, len(b), size)
			}
			return
		}
		if k <= 0 || !bytes.Equal(content, b[k:end-4]) || binary.BigEndian.Uint32(b[end-4:]) != crc32.Checksum(content, castagnoli) {
			t.Fatal("believed what was not written")
		}
		var c store.Chunk
		if err := fill(&c, content, want); err != nil {
			if !errors.Is(err, errCorrupt) && !errors.Is(err, errNoAggregate) {
				t.Fatal(err)
			}
			return
		}
		total := 0
		c.Payloads(func(_ store.Aggr, p *store.Payload) { total += len(p.Data) })
		if total > len(content) {
			t.Fatalf("%d bytes in a chunk of %d", total, len(content))
		}
	})
}

// Shows that no bytes break the parser of aggregate chunks, and that what it hands out lies within them.
func FuzzAggregates(f *testing.F) {
	for _, c := range realParts(f).chunks {
		if _, k := binary.Uvarint(c); c[k] == encodingAggregate {
			f.Add(c[k+1 : len(c)-4])
		}
	}
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
	for _, b := range some(realParts(f).lists) {
		f.Add(b)
	}
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

// Shows that posting lists which are read as one give the series that they give one by one, and that no bytes break it.
// The checksums are made right.
func FuzzJoinedPostings(f *testing.F) {
	lists := realParts(f).lists
	f.Add(lists[0])
	f.Add(slices.Concat(lists[:10]...))
	f.Add(slices.Concat(lists[20:30]...))
	f.Add(slices.Concat(lists[1], make([]byte, 5)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var cuts [][]byte
		for rest := b; len(rest) >= postingListBytes; {
			n := uint64(binary.BigEndian.Uint32(rest))
			if n+8 > uint64(len(rest)) {
				break
			}
			binary.BigEndian.PutUint32(rest[4+n:], crc32.Checksum(rest[4:4+n], castagnoli))
			cuts, rest = append(cuts, rest[:n+8]), rest[n+8:]
		}
		got, err := appendLists(nil, b)
		if err != nil {
			if !errors.Is(err, errCorrupt) {
				t.Fatal(err)
			}
			return
		}
		var want []uint32
		for _, c := range cuts {
			p, err := decodePostings(c)
			if err != nil {
				t.Fatalf("took what it refuses by itself: %v", err)
			}
			for p.Next() {
				want = append(want, uint32(p.At()))
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d series, want %d", len(got), len(want))
		}
	})
}

// Shows that references come back as they were put in, in whatever steps they are taken, and that what is kept of them is
// known to be well.
func FuzzRefs(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 1)
	for _, b := range some(realParts(f).lists) {
		f.Add(b[8:len(b)-4], 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		var want []uint32
		for ; len(b) >= 4; b = b[4:] {
			if v := binary.BigEndian.Uint32(b); v > 0 {
				want = append(want, v)
			}
		}
		slices.Sort(want)
		want = slices.Compact(want)
		m := newMemory(0)
		mem := &hold{budget: &m.newShare(0).finding}
		r := refs{mem: mem}
		for _, v := range want {
			if err := r.append(v); err != nil {
				t.Fatal(err)
			}
		}
		r = r.rewound()
		if !ascending(r.n, r.b) {
			t.Fatal("what was written is not well")
		}
		var got []uint32
		for step = max(1, step%100); r.n > 0; {
			if next, ok := r.peek(); !ok || next != want[len(got)] {
				t.Fatalf("peek after %d: %d", len(got), next)
			}
			got = r.take(got, step)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
		mem.free()
	})
}
