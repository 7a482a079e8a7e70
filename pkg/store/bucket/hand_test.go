package bucket

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
)

// handBlock describes a block that is written byte by byte, as the tsdb's writer makes no downsampled ones.
type handBlock struct {
	n          byte // makes the id
	mint, maxt int64
	resolution int64
	external   labels.Labels
	sources    []byte // ids of the sources; nil is the block itself
	series     []handSeries
	indexStats block.IndexStats
}

type handSeries struct {
	labels labels.Labels
	chunks []handChunk
}

type handChunk struct {
	mint, maxt int64
	enc        byte
	data       []byte
}

// anyChunk is a chunk of any encoding and content.
type anyChunk struct {
	chunkenc.Chunk
	handChunk
}

func (c anyChunk) Encoding() chunkenc.Encoding { return chunkenc.Encoding(c.enc) }
func (c anyChunk) Bytes() []byte               { return c.data }

func testID(n byte) ulid.ULID {
	var id ulid.ULID
	_ = id.SetTime(1_700_000_000_000)
	id[15] = n
	return id
}

// write writes the block and uploads it.
func (h handBlock) write(t testing.TB, bkt objstore.Bucket) ulid.ULID {
	t.Helper()
	return h.writeIn(t, bkt, t.TempDir())
}

// writeIn writes the block into a directory and uploads it.
func (h handBlock) writeIn(t testing.TB, bkt objstore.Bucket, root string) ulid.ULID {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	id := testID(h.n)
	dir := filepath.Join(root, id.String())
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	must(err)
	iw, err := index.NewWriter(context.Background(), filepath.Join(dir, "index"))
	must(err)
	symbols := map[string]bool{}
	for _, s := range h.series {
		s.labels.Range(func(l labels.Label) { symbols[l.Name], symbols[l.Value] = true, true })
	}
	var sorted []string
	for s := range symbols {
		sorted = append(sorted, s)
	}
	slices.Sort(sorted)
	for _, s := range sorted {
		must(iw.AddSymbol(s))
	}
	stats := tsdb.BlockStats{NumSeries: uint64(len(h.series)), NumSamples: 1}
	for i, s := range h.series {
		metas := make([]chunks.Meta, len(s.chunks))
		for j, c := range s.chunks {
			metas[j] = chunks.Meta{MinTime: c.mint, MaxTime: c.maxt, Chunk: anyChunk{handChunk: c}}
		}
		must(cw.WriteChunks(metas...))
		must(iw.AddSeries(storage.SeriesRef(i), s.labels, metas...))
		stats.NumChunks += uint64(len(metas))
	}
	must(cw.Close())
	must(iw.Close())
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id, MinTime: h.mint, MaxTime: h.maxt, Version: 1, Stats: stats}}
	m.Compaction.Level = 1
	m.Compaction.Sources = []ulid.ULID{id}
	if h.sources != nil {
		m.Compaction.Sources = nil
		for _, n := range h.sources {
			m.Compaction.Sources = append(m.Compaction.Sources, testID(n))
		}
	}
	m.Thanos.Downsample.Resolution = h.resolution
	m.Thanos.IndexStats = h.indexStats
	must(block.WriteMetaDir(dir, m))
	upload(t, bkt, dir, h.external)
	return id
}

// xorData encodes values at times mint, mint+step and so on.
func xorData(mint, step int64, values ...float64) []byte {
	c := chunkenc.NewXORChunk()
	app, _ := c.Appender()
	for i, v := range values {
		app.Append(mint+int64(i)*step, v)
	}
	return c.Bytes()
}

func xorChunk(mint, step int64, values ...float64) handChunk {
	return handChunk{mint, mint + int64(len(values)-1)*step, byte(chunkenc.EncXOR), xorData(mint, step, values...)}
}

// aggregateData puts the five parts of an aggregate chunk together; nil is an absent one.
func aggregateData(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		if len(p) > 0 {
			b = append(b, byte(chunkenc.EncXOR))
			b = append(b, p...)
		}
	}
	return b
}

func aggregateChunk(mint, maxt int64, parts ...[]byte) handChunk {
	return handChunk{mint, maxt, encodingAggregate, aggregateData(parts...)}
}

func ls(kv ...string) labels.Labels { return labels.FromStrings(kv...) }

func matcher(t labels.MatchType, name, value string) *labels.Matcher {
	return labels.MustNewMatcher(t, name, value)
}

func eq(name, value string) *labels.Matcher { return matcher(labels.MatchEqual, name, value) }

// values decodes a payload of floats.
func values(t testing.TB, p store.Payload) []float64 {
	t.Helper()
	if !p.Present() {
		return nil
	}
	c, err := chunkenc.FromData(p.Encoding, p.Data)
	if err != nil {
		t.Fatal(err)
	}
	var vs []float64
	it := c.Iterator(nil)
	for it.Next() == chunkenc.ValFloat {
		_, v := it.At()
		vs = append(vs, v)
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return vs
}

// spell writes an answer out, a line for each chunk.
func spell(t testing.TB, all []*store.Series) (out []string) {
	t.Helper()
	for _, s := range all {
		if len(s.Chunks) == 0 {
			out = append(out, s.Labels.String())
		}
		for i := range s.Chunks {
			c := &s.Chunks[i]
			line := fmt.Sprintf("%s [%d, %d]", s.Labels, c.MinTime, c.MaxTime)
			c.Payloads(func(a store.Aggr, p *store.Payload) {
				line += fmt.Sprintf(" %s%v", [...]string{"raw", "count", "sum", "min", "max", "counter"}[a], values(t, *p))
			})
			out = append(out, line)
		}
	}
	return out
}

func drain(t testing.TB, s *Store, req *store.SeriesRequest) ([]*store.Series, store.Warnings, error) {
	t.Helper()
	cur, err := s.Series(t.Context(), req)
	if err != nil {
		return nil, nil, err
	}
	return store.Drain(cur)
}

// newBlockSetOf makes a set of the blocks that fill adds.
func newBlockSetOf(fill func(add func(*loaded))) *blockSet {
	blocks := map[ulid.ULID]*loaded{}
	fill(func(b *loaded) { blocks[b.meta.ULID] = b })
	return newBlockSet(blocks, "test")
}
