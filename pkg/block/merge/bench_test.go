package merge

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// BenchmarkMerge takes a day of a counter at 15 s apart in two replicas, from decoding to encoding, in ns per sample that
// goes in: with penalty deduplication, with every timestamp once, and that by Prometheus's own merger.
func BenchmarkMerge(b *testing.B) {
	const samples = 5760
	var (
		replicas [2][]stream.Chunk
		theirs   [2]storage.ChunkSeries
	)
	for i := range replicas {
		var points []point
		v := 0.0
		for k := range samples {
			v += float64(hash(int64(k), i) % 50)
			points = append(points, point{t: int64(k)*15_000 + int64(i)*6_000, f: v})
		}
		replicas[i] = encode(b, points)
		var metas []chunks.Meta
		for _, c := range replicas[i] {
			chunk, err := chunkenc.FromData(c.Encoding, c.Data)
			if err != nil {
				b.Fatal(err)
			}
			metas = append(metas, chunks.Meta{MinTime: c.MinTime, MaxTime: c.MaxTime, Chunk: chunk})
		}
		theirs[i] = &storage.ChunkSeriesEntry{Lset: labels.FromStrings("a", "b"), ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator {
			return storage.NewListChunkSeriesIterator(metas...)
		}}
	}
	per := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(2*samples), "ns/sample")
	}
	for _, d := range []struct {
		name  string
		dedup Dedup
	}{{"penalty", Penalty}, {"once", OneToOne}} {
		b.Run(d.name, func(b *testing.B) {
			cfg := &Config{Dedup: d.dedup, Inputs: []Input{{Meta: &block.Meta{}, Replica: "0"}, {Meta: &block.Meta{}, Replica: "1"}}}
			cfg.defaults()
			j := &job{n: 2}
			for i, in := range cfg.Inputs {
				j.parts = append(j.parts, part{source: &source{Input: in, index: i}, series: stream.Series{Chunks: replicas[i]}})
			}
			w := newWorker(cfg)
			b.ReportAllocs()
			for b.Loop() {
				w.reset()
				if err := w.merge(j); err != nil {
					b.Fatal(err)
				}
			}
			per(b)
		})
	}
	b.Run("once, prometheus", func(b *testing.B) {
		merge := storage.NewCompactingChunkSeriesMerger(storage.ChainedSeriesMerge)
		b.ReportAllocs()
		for b.Loop() {
			it := merge(theirs[0], theirs[1]).Iterator(nil)
			for it.Next() {
			}
			if err := it.Err(); err != nil {
				b.Fatal(err)
			}
		}
		per(b)
	})
}
