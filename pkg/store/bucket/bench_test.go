package bucket

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
)

// BenchmarkSeries reads 10,000 series of 10 labels and two chunks of 120 samples from one block in memory.
func BenchmarkSeries(b *testing.B) {
	const n = 10_000
	vs := make([]float64, 120)
	for i := range vs {
		vs[i] = float64(i * i % 97)
	}
	c1, c2 := xorChunk(0, 15_000, vs...), xorChunk(1_800_000, 15_000, vs...)
	series := make([]handSeries, n)
	for i := range series {
		series[i] = handSeries{ls("__name__", "http_requests_total", "cluster", "eu-1", "code", fmt.Sprint(200+i%5), "container", "app", "endpoint", "http",
			"instance", fmt.Sprintf("10.0.%d.%d:8080", i/250, i%250), "job", "api", "method", "GET", "namespace", "prod", "pod", fmt.Sprintf("api-%05d", i)), []handChunk{c1, c2}}
	}
	slices.SortFunc(series, func(x, y handSeries) int { return labels.Compare(x.labels, y.labels) })
	bkt := objstore.NewInMemBucket()
	handBlock{n: 1, mint: 0, maxt: 7_200_000, external: ls("prometheus", "a", "replica", "0"), series: series}.write(b, bkt)
	for name, cfg := range map[string]struct {
		skip    bool
		without []string
		matcher *labels.Matcher
	}{
		"all":     {matcher: eq("job", "api")},
		"labels":  {skip: true, matcher: eq("job", "api")},
		"replica": {without: []string{"replica"}, matcher: eq("job", "api")},
		"one":     {matcher: eq("pod", "api-07777")},
	} {
		b.Run(name, func(b *testing.B) {
			s := open(b, bkt, Config{MemoryBytesMax: 1 << 30})
			req := &store.SeriesRequest{MinTime: 0, MaxTime: 7_200_000, Matchers: []*labels.Matcher{eq("__name__", "http_requests_total"), cfg.matcher}, SkipChunks: cfg.skip, WithoutReplicaLabels: cfg.without}
			b.ReportAllocs()
			series := 0
			for b.Loop() {
				cur, err := s.Series(b.Context(), req)
				if err != nil {
					b.Fatal(err)
				}
				series = 0
				for cur.Next() {
					series++
				}
				if cur.Err() != nil || len(cur.Warnings()) > 0 {
					b.Fatal(cur.Err(), cur.Warnings())
				}
				cur.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(series), "ns/series")
		})
	}
}

// BenchmarkAggregates picks two of five aggregates out of a chunk.
func BenchmarkAggregates(b *testing.B) {
	x := xorData(1, 300_000, make([]float64, 120)...)
	data := aggregateData(x, x, x, x, x)
	want := []store.Aggr{store.AggrCount, store.AggrSum}
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := parseAggregates(data, want); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChoose chooses among two years of blocks in three resolutions.
func BenchmarkChoose(b *testing.B) {
	const hour = int64(3_600_000)
	set := newBlockSetOf(func(add func(*loaded)) {
		n := uint64(1)
		for _, l := range []struct{ res, length int64 }{{block.ResolutionRaw, 48 * hour}, {block.Resolution5m, 14 * 24 * hour}, {block.Resolution1h, 14 * 24 * hour}} {
			for t := int64(0); t < 2*365*24*hour; t += l.length {
				m := &block.Meta{}
				_ = m.ULID.SetTime(n)
				n++
				m.MinTime, m.MaxTime, m.Thanos.Downsample.Resolution = t, t+l.length, l.res
				add(&loaded{meta: m})
			}
		}
	})
	b.ReportAllocs()
	for b.Loop() {
		if len(set.groups[0].choose(0, 2*365*24*hour, block.Resolution1h, false)) == 0 {
			b.Fatal("none")
		}
	}
}
