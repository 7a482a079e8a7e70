package compact

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// oldBucket is a bucket that has been worked on for a long time: each writer has 14-day blocks at three resolutions,
// then blocks of two days and of eight hours, then some of two hours that are to be merged, in no order.
func oldBucket(writers, days int) (blocks []*Block, now time.Time) {
	end := int64(days) * 24 * hour
	next := 0
	for w := range writers {
		ls := map[string]string{"cluster": "c" + strconv.Itoa(w%7), "prometheus": "monitoring/k8s", "writer": strconv.Itoa(w)}
		add := func(mint, maxt, res int64, sources []ulid.ULID) {
			m := &block.Meta{}
			next++
			m.ULID, m.MinTime, m.MaxTime = testID(next), mint, maxt
			m.Thanos.Labels, m.Thanos.Downsample.Resolution = ls, res
			m.Compaction.Sources = sources
			if sources == nil {
				m.Compaction.Sources = []ulid.ULID{m.ULID}
			}
			blocks = append(blocks, &Block{Meta: m})
		}
		for at := int64(0); at < end; {
			length := 14 * 24 * hour
			switch left := end - at; {
			case left <= 10*hour:
				length = 2 * hour
			case left <= 48*hour:
				length = 8 * hour
			case left <= 14*24*hour:
				length = 48 * hour
			}
			length = min(length, end-at)
			if length == 2*hour {
				add(at, at+length, 0, nil)
				at += length
				continue
			}
			var sources []ulid.ULID
			for range length / (2 * hour) {
				next++
				sources = append(sources, testID(next))
			}
			add(at, at+length, block.ResolutionRaw, sources)
			if length >= 48*hour {
				add(at, at+length, block.Resolution5m, sources)
			}
			if length >= 14*24*hour {
				add(at, at+length, block.Resolution1h, sources)
			}
			at += length
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	return blocks, time.UnixMilli(end)
}

// flatBucket is n two-hour blocks of one writer, whose compactor was away for years; overlapping of them cover each
// window.
func flatBucket(n, overlapping int) (blocks []*Block, now time.Time) {
	ls := map[string]string{"cluster": "c"}
	for i := range n {
		m := &block.Meta{}
		m.ULID = testID(i + 1)
		m.MinTime = int64(i/overlapping) * 2 * hour
		m.MaxTime = m.MinTime + 2*hour
		m.Thanos.Labels = ls
		m.Compaction.Sources = []ulid.ULID{m.ULID}
		blocks = append(blocks, &Block{Meta: m, IndexBytes: 1 << 20})
	}
	return blocks, time.UnixMilli(int64(n/overlapping+8) * 2 * hour)
}

// Measures a plan by the block, over buckets of more than ten thousand.
func BenchmarkPlan(b *testing.B) {
	set := Settings{Level: MaxLevel, Downsample: true, Vertical: true, IndexBytesMax: 64 << 30, Retention: map[int64]time.Duration{
		block.ResolutionRaw: 90 * 24 * time.Hour, block.Resolution5m: 365 * 24 * time.Hour,
	}}
	run := func(name string, blocks []*Block, now time.Time, change func(*Settings)) {
		b.Run(name, func(b *testing.B) {
			s := set
			if change != nil {
				change(&s)
			}
			b.ReportAllocs()
			for b.Loop() {
				Plan(blocks, s, now, nil)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(blocks)), "ns/block")
		})
	}
	old, now := oldBucket(100, 365)
	run("old", old, now, nil)
	flat, now := flatBucket(12_000, 1)
	run("flat", flat, now, nil)
	run("flat-big-indexes", flat, now, func(s *Settings) { s.IndexBytesMax = 6 << 20 })
	same, now := flatBucket(12_000, 12_000)
	run("one-window", same, now, nil)
	run("one-window-not-vertical", same, now, func(s *Settings) { s.Vertical = false })
}

// Measures the count of what there is to do, by the block.
func BenchmarkCount(b *testing.B) {
	set := Settings{Level: MaxLevel, Downsample: true}
	flat, now := flatBucket(12_000, 1)
	b.ReportAllocs()
	for b.Loop() {
		Count(flat, set, now)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(flat)), "ns/block")
}
