package bucket

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
)

const minute = int64(60_000)

// Shows that exactly the requested aggregates come of downsampled chunks, that raw chunks come raw whatever is
// requested, and that an aggregate which a chunk does not have is an error that names block and aggregate.
func TestAggregates(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	handBlock{
		n: 1, mint: 0, maxt: 100 * minute, resolution: block.Resolution5m, external: ls("r", "1"),
		series: []handSeries{
			{ls("__name__", "a"), []handChunk{
				aggregateChunk(1, 10*minute, xorData(5, 1, 10, 20), xorData(5, 1, 1, 2), xorData(5, 1, -1, -2), xorData(5, 1, 7, 8), xorData(5, 1, 0, 1, 2, 3)),
				xorChunk(11*minute, minute, 1, 2, 3),
			}},
			{ls("__name__", "b"), []handChunk{aggregateChunk(1, 10*minute, xorData(5, 1, 10), xorData(5, 1, 1), nil, nil, nil)}},
			{ls("__name__", "c"), []handChunk{aggregateChunk(1, 10*minute, nil, nil, nil, nil, nil)}},
		},
	}.write(t, bkt)
	s := open(t, bkt, Config{MemoryBytesMax: 1 << 20})
	f := func(name string, wantErr string, want []string, aggrs ...store.Aggr) {
		t.Helper()
		all, ws, err := drain(t, s, &store.SeriesRequest{MinTime: 0, MaxTime: 100 * minute, MaxResolution: block.Resolution1h, Matchers: []*labels.Matcher{eq("__name__", name)}, Aggregates: aggrs})
		if len(ws) > 0 {
			t.Error(ws)
		}
		if wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), wantErr) || !strings.Contains(err.Error(), testID(1).String()) {
				t.Errorf("%s %v: error %v", name, aggrs, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, spell(t, all)); diff != "" {
			t.Errorf("%s %v (-want +got):\n%s", name, aggrs, diff)
		}
	}
	const a1, a2 = `{__name__="a", r="1"} [1, 600000]`, `{__name__="a", r="1"} [660000, 780000] raw[1 2 3]`
	f("a", "", []string{a1 + " count[10 20]", a2}, store.AggrCount)
	f("a", "", []string{a1 + " count[10 20] sum[1 2]", a2}, store.AggrSum, store.AggrCount)
	f("a", "", []string{a1 + " min[-1 -2] max[7 8] counter[0 1 2 3]", a2}, store.AggrMin, store.AggrMax, store.AggrCounter)
	f("a", "", []string{a1, a2}, store.AggrRaw)
	f("b", "", []string{`{__name__="b", r="1"} [1, 600000] sum[1]`}, store.AggrSum)
	f("b", "aggregate does not exist: min", nil, store.AggrMin)
	f("b", "aggregate does not exist: counter", nil, store.AggrCount, store.AggrCounter)
	f("c", "aggregate does not exist: count", nil, store.AggrCount)
}

// Shows which blocks answer for a time range and a resolution: the coarsest admitted, and finer ones in its holes.
func TestChoose(t *testing.T) {
	const raw, m5, h1 = block.ResolutionRaw, block.Resolution5m, block.Resolution1h
	type b struct {
		n          byte
		res        int64
		mint, maxt int64
	}
	f := func(name string, mint, maxt, maxRes int64, want []byte, bs ...b) {
		t.Helper()
		g := &blockGroup{}
		set := map[string]bool{}
		blocks := newBlockSetOf(func(add func(*loaded)) {
			for _, x := range bs {
				m := &block.Meta{}
				m.ULID, m.MinTime, m.MaxTime, m.Thanos.Downsample.Resolution = testID(x.n), x.mint, x.maxt, x.res
				add(&loaded{meta: m})
			}
		})
		if len(blocks.groups) > 0 {
			g = blocks.groups[0]
		}
		var got []byte
		for _, l := range g.choose(mint, maxt, maxRes, false) {
			if set[l.meta.ULID.String()] {
				t.Errorf("%s: block %d twice", name, l.meta.ULID[15])
			}
			set[l.meta.ULID.String()] = true
			got = append(got, l.meta.ULID[15])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	all := []b{{1, raw, 0, 100}, {2, raw, 100, 200}, {3, raw, 200, 300}, {11, m5, 0, 100}, {12, m5, 100, 200}, {21, h1, 0, 100}}
	f("raw", 0, 299, raw, []byte{1, 2, 3}, all...)
	f("raw part", 100, 199, raw, []byte{2}, all...)
	f("up to 5m", 0, 299, m5, []byte{11, 12, 3}, all...)
	f("up to 1h", 0, 299, h1, []byte{21, 12, 3}, all...)
	f("between resolutions", 0, 299, m5+1, []byte{11, 12, 3}, all...)
	f("no bound", math.MinInt64, math.MaxInt64, h1, []byte{21, 12, 3}, all...)
	f("end is exclusive in blocks", 100, 100, raw, []byte{2}, all...)
	f("end is inclusive in requests", 0, 100, raw, []byte{1, 2}, all...)
	f("before", -10, -1, raw, nil, all...)
	f("behind", 300, 400, raw, nil, all...)
	f("only coarse blocks", 0, 100, raw, nil, b{1, h1, 0, 100})
	f("raw is gone", 0, 299, m5, []byte{11, 3}, b{11, m5, 0, 200}, b{3, raw, 200, 300})
	f("hole in the middle", 0, 299, m5, []byte{11, 2, 13}, b{11, m5, 0, 100}, b{13, m5, 200, 300}, b{1, raw, 0, 100}, b{2, raw, 100, 200}, b{3, raw, 200, 300})
	f("one block in two holes", 0, 299, m5, []byte{1, 12}, b{12, m5, 100, 200}, b{1, raw, 0, 300})
	f("overlapping blocks", 0, 299, m5, []byte{11, 12, 3}, b{11, m5, 0, 200}, b{12, m5, 50, 100}, b{2, raw, 100, 150}, b{3, raw, 200, 300})
	f("nothing", 0, 1, h1, nil)
}

// Shows for 20,000 generated sets of blocks that every moment at which some block has data is covered, by the
// resolutions that are to be preferred there: coarse up to the bound, then finer, then coarser. (Tiers of the coarser ones in
// the wrong order fail it, and so does a hole's end that is one off.)
func TestChooseCovers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	resolutions := []int64{block.ResolutionRaw, block.Resolution5m, block.Resolution1h}
	for i := range 20_000 {
		const span = 24
		var all []*loaded
		blocks := newBlockSetOf(func(add func(*loaded)) {
			for n := range 1 + rnd.IntN(9) {
				m := &block.Meta{}
				m.ULID, m.MinTime = testID(byte(n)), rnd.Int64N(span-1)
				m.MaxTime = m.MinTime + 1 + rnd.Int64N(span-m.MinTime)
				m.Thanos.Downsample.Resolution = resolutions[rnd.IntN(3)]
				b := &loaded{meta: m}
				all = append(all, b)
				add(b)
			}
		})
		mint := rnd.Int64N(span)
		maxt := mint + rnd.Int64N(span-mint)
		bound := resolutions[rnd.IntN(3)]
		chosen := blocks.groups[0].choose(mint, maxt, bound, true)
		// The lower the better: admitted ones from coarse to fine, then the others from fine to coarse.
		rank := func(r int64) int64 {
			if r <= bound {
				return bound - r
			}
			return 1<<40 + r
		}
		best := func(bs []*loaded, at int64) int64 {
			least := int64(math.MaxInt64)
			for _, b := range bs {
				if b.overlaps(at, at) {
					least = min(least, rank(b.meta.Resolution()))
				}
			}
			return least
		}
		for at := mint; at <= maxt; at++ {
			if got, want := best(chosen, at), best(all, at); got != want {
				t.Fatalf("set %d, from %d to %d up to %d: at %d rank %d is chosen, want %d", i, mint, maxt, bound, at, got, want)
			}
		}
		// None is superfluous: each is the best somewhere.
		for _, b := range chosen {
			needed := false
			for at := mint; at <= maxt; at++ {
				needed = needed || b.overlaps(at, at) && rank(b.meta.Resolution()) == best(all, at)
			}
			if !needed {
				t.Fatalf("set %d: block %v is of no use", i, b.meta.ULID)
			}
		}
	}
}

// Shows that where only coarser blocks have data they answer a request for raw samples that names aggregates, with a
// remark which is no warning, and that they do not answer one that names none.
func TestCoarserAnswers(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	handBlock{n: 1, mint: 0, maxt: 10 * minute, resolution: block.Resolution5m, external: ls("r", "1"), series: []handSeries{
		{ls("__name__", "a"), []handChunk{aggregateChunk(1, 10*minute, xorData(5, 1, 10), xorData(5, 1, 1), nil, nil, nil)}},
	}}.write(t, bkt)
	s := open(t, bkt, Config{})
	req := &store.SeriesRequest{MinTime: 0, MaxTime: 10 * minute, Matchers: []*labels.Matcher{eq("__name__", "a")}, PartialResponse: store.Abort}
	if all, ws, err := drain(t, s, req); err != nil || len(all) > 0 || len(ws) > 0 {
		t.Error(all, ws, err)
	}
	req.Aggregates = []store.Aggr{store.AggrSum}
	all, ws, err := drain(t, s, req)
	if err != nil || len(all) != 1 || len(ws) != 1 || !store.IsInfo(ws[0]) || !strings.Contains(ws[0].Error(), testID(1).String()) {
		t.Error(all, ws, err)
	}
}
