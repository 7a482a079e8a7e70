package bucket

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	kept "github.com/koios-metrics/koios/pkg/cache"
	"github.com/koios-metrics/koios/pkg/objstore/faulty"
	"github.com/koios-metrics/koios/pkg/store"
)

func lruOf(c *indexCache, k cacheKey) []byte {
	return c.fetch(context.Background(), []cacheKey{k}, "t")[0].data
}

// Shows that the cache stays within its bound, keeps what was used last, forgets the rest, and takes what comes again
// under the same key in the place of what was there.
func TestCache(t *testing.T) {
	c := newIndexCache(Config{IndexCacheBytesMax: 10_000}, prometheus.NewRegistry())
	key := func(n int) cacheKey { return cacheKey{itemType(n % int(itemTypes)), testID(1), uint64(n)} }
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		k := key(rnd.IntN(30))
		if size := rnd.IntN(2000); c.wants(k.kind, size) {
			c.keep(k, make([]byte, size), "t")
		}
		shown, items := 0.0, 0.0
		for _, name := range IndexCacheItems {
			shown += testutil.ToFloat64(c.metrics.totalSize.WithLabelValues(name))
			items += testutil.ToFloat64(c.metrics.items.WithLabelValues(name))
		}
		if c.lru.size > c.lru.max || shown != float64(c.lru.size) || len(c.lru.items) != c.lru.order.Len() || items != float64(len(c.lru.items)) {
			t.Fatalf("%d bytes in a cache of %d", c.lru.size, c.lru.max)
		}
	}
	for _, name := range IndexCacheItems {
		if testutil.ToFloat64(c.metrics.evicted.WithLabelValues(name)) == 0 || testutil.ToFloat64(c.metrics.overflowed.WithLabelValues(name)) == 0 {
			t.Error("nothing was forgotten, or nothing refused")
		}
	}

	c = newIndexCache(Config{IndexCacheBytesMax: 10_000}, prometheus.NewRegistry())
	for n := range 8 {
		c.keep(key(n), make([]byte, 1000), "t")
	}
	c.keep(key(0), make([]byte, 1001), "t")
	if len(lruOf(c, key(0))) != 1001 {
		t.Error("forgot 0")
	}
	c.keep(key(8), make([]byte, 1000), "t")
	if lruOf(c, key(0)) == nil || lruOf(c, key(1)) != nil {
		t.Error("forgot the wrong one")
	}
	off := newIndexCache(Config{}, prometheus.NewRegistry())
	if off.keeps(postingsItem) || off.wants(postingsItem, 1) || lruOf(off, key(1)) != nil {
		t.Error("a cache of nothing keeps something")
	}
	small := newIndexCache(Config{IndexCacheBytesMax: 10_000, IndexCacheItemBytesMax: 500, IndexCacheItems: []string{"Series"}}, prometheus.NewRegistry())
	if small.wants(seriesItem, 500) || !small.wants(seriesItem, 500-cacheEntryOverhead) || small.wants(postingsItem, 1) {
		t.Error("the size or kind of what is kept is not as configured")
	}
}

// outside is a cache outside of the process that can be made to lie.
type outside struct {
	mu     sync.Mutex
	values map[string][]byte
	lie    func(key string, value []byte) []byte // nil: it is honest
}

func (o *outside) Fetch(_ context.Context, keys []string) [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([][]byte, len(keys))
	for i, k := range keys {
		all[i] = o.values[k]
		if o.lie != nil && all[i] != nil {
			all[i] = o.lie(k, slices.Clone(all[i]))
		}
	}
	return all
}

func (o *outside) Store(es ...kept.Entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range es {
		o.values[e.Key] = e.Value
	}
}

func (o *outside) Close() error { return nil }

// Shows that generated questions are answered with a cache just as without: in memory with room and without, and
// outside, where entries are cut, flipped or those of others; each question comes twice, so that entries of one are
// met by the next.
//
// Mutants seen killed: the last reference is not kept; entries from outside are believed without their checksum.
func TestCachedAnswers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	found := map[string]float64{}
	for round := range 6 {
		h := anyBlock(rnd)
		bkt := faulty.New(objstore.NewInMemBucket())
		h.write(t, bkt)
		plain := open(t, bkt, Config{SeriesBatchSize: 1 + rnd.IntN(100)})
		out := &outside{values: map[string][]byte{}}
		liar := &outside{values: map[string][]byte{}, lie: lies(rnd)}
		stores := map[string]*Store{}
		for name, cfg := range map[string]Config{
			"memory":       {IndexCacheBytesMax: 1 << 20},
			"small memory": {IndexCacheBytesMax: 16 << 10, IndexCacheItemBytesMax: 8 << 10},
			"outside":      {IndexCache: out},
			"outside again": {IndexCache: out, // what another one kept
				LazyPostings: true},
			"liar":          {IndexCache: liar},
			"postings only": {IndexCacheBytesMax: 1 << 20, IndexCacheItems: []string{"Postings"}},
			"expanded only": {IndexCache: &outside{values: map[string][]byte{}}, IndexCacheItems: []string{"ExpandedPostings"}},
			"series only":   {IndexCacheBytesMax: 1 << 20, IndexCacheItems: []string{"Series"}},
		} {
			cfg.SeriesBatchSize = 1 + rnd.IntN(100)
			stores[name] = open(t, bkt, cfg)
		}
		for range 40 {
			ms := anyMatchers(rnd)
			req := &store.SeriesRequest{MinTime: rnd.Int64N(1 << 19), MaxTime: 1<<19 + rnd.Int64N(1<<19), Matchers: ms, PartialResponse: store.Abort, SkipChunks: rnd.IntN(2) == 0}
			want := answered(t, plain, req)
			for again := range 2 {
				for name, s := range stores {
					if diff := cmp.Diff(want, answered(t, s, req)); diff != "" {
						t.Fatalf("round %d, %s, time %d, %v: -without +with:\n%s", round, name, again, ms, diff)
					}
				}
			}
		}
		for name, s := range stores {
			for _, item := range IndexCacheItems {
				found[name+" "+item] += testutil.ToFloat64(s.cache.metrics.hits.WithLabelValues(item, "default-tenant"))
			}
		}
	}
	for _, name := range []string{
		"memory Postings", "memory ExpandedPostings", "memory Series", "small memory Series", "outside Postings", "outside ExpandedPostings",
		"outside Series", "liar Series", "postings only Postings", "expanded only ExpandedPostings", "series only Series",
	} {
		if found[name] == 0 {
			t.Errorf("nothing found: %s", name)
		}
	}
	if found["postings only Series"]+found["series only Postings"] != 0 {
		t.Error("found what is not kept")
	}
}

func answered(t *testing.T, s *Store, req *store.SeriesRequest) []string {
	t.Helper()
	all, ws, err := drain(t, s, req)
	if err != nil || len(ws) > 0 {
		t.Fatal(ws, err)
	}
	return spell(t, all)
}

// lies makes a cache that cuts, flips and swaps what it has. The checksum of pkg/cache is not there to help.
func lies(rnd *rand.Rand) func(key string, value []byte) []byte {
	last := map[byte][]byte{}
	return func(key string, value []byte) []byte {
		defer func(v []byte) { last[key[0]] = v }(slices.Clone(value))
		switch rnd.IntN(6) {
		case 0:
			return value[:rnd.IntN(len(value)+1)]
		case 1:
			// The references of expanded postings are not checked again: see TestEntries of pkg/cache for what keeps
			// flipped bits of any entry away.
			if key[0] != 'E' {
				value[rnd.IntN(len(value))] ^= 1 << rnd.IntN(8)
			}
		case 2:
			if key[0] == 'E' && last['E'] != nil {
				return last['E']
			}
		case 3:
			return []byte{}
		}
		return value
	}
}

// Shows that a request asked a second time reads nothing of the index, in memory and outside.
func TestCachedRequests(t *testing.T) {
	for name, cfg := range map[string]Config{
		"memory":  {IndexCacheBytesMax: 1 << 20},
		"outside": {IndexCache: &outside{values: map[string][]byte{}}},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := faulty.New(objstore.NewInMemBucket())
			threeBlocks(t, bkt)
			s := open(t, bkt, cfg)
			var first []string
			for round := range 2 {
				bkt.Reset()
				got := answered(t, s, upRequest(store.Abort))
				index := 0
				for _, c := range bkt.Calls() {
					if strings.HasSuffix(c.Name, "/index") {
						index++
					}
				}
				if round == 0 {
					first = got
				}
				if diff := cmp.Diff(first, got); diff != "" || len(got) != 40 {
					t.Error(diff)
				}
				if round == 0 && index == 0 || round == 1 && index > 0 {
					t.Errorf("time %d: %d reads of an index", round, index)
				}
			}
		})
	}
}

// Shows that series of one page that are asked for in turn are all kept: at the second time none is read.
//
// Mutant seen killed: pages lose the entries that they had.
func TestCachedNeighbours(t *testing.T) {
	bkt := faulty.New(objstore.NewInMemBucket())
	h := handBlock{n: 1, mint: 0, maxt: 1 << 20}
	for i := range 40 {
		h.series = append(h.series, handSeries{labels: labels.FromStrings("__name__", "up", "i", fmt.Sprintf("%02d", i)), chunks: []handChunk{xorChunk(5, 1, 10)}})
	}
	h.write(t, bkt)
	s := open(t, bkt, Config{IndexCacheBytesMax: 1 << 20})
	for round := range 2 {
		for _, i := range rand.New(rand.NewPCG(3, 4)).Perm(40) {
			bkt.Reset()
			got := answered(t, s, &store.SeriesRequest{MaxTime: 1 << 20, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "i", fmt.Sprintf("%02d", i))}})
			index := 0
			for _, c := range bkt.Calls() {
				if strings.HasSuffix(c.Name, "/index") {
					index++
				}
			}
			if len(got) == 0 || !strings.Contains(got[0], fmt.Sprintf("%02d", i)) {
				t.Fatalf("series %d: %v", i, got)
			}
			if round == 0 && index == 0 || round == 1 && index > 0 {
				t.Errorf("series %d, time %d: %d reads of the index", i, round, index)
			}
		}
	}
	if n := testutil.ToFloat64(s.cache.metrics.items.WithLabelValues("Series")); n == 0 || n > 2 {
		t.Errorf("%v pages", n)
	}
}

// Shows that a question is the same whatever the order of its matchers, and differs from every other.
func TestQuestions(t *testing.T) {
	b := &loaded{}
	b.meta = &block.Meta{}
	a, z := labels.MustNewMatcher(labels.MatchEqual, "a", "1"), labels.MustNewMatcher(labels.MatchRegexp, "z", "x|y")
	if b.question([]*labels.Matcher{a, z}) != b.question([]*labels.Matcher{z, a, z}) {
		t.Error("the order tells questions apart")
	}
	seen := map[question]string{}
	for _, ms := range [][]*labels.Matcher{
		{a}, {z}, {a, z}, {labels.MustNewMatcher(labels.MatchNotEqual, "a", "1")}, {labels.MustNewMatcher(labels.MatchRegexp, "a", "1")},
		{labels.MustNewMatcher(labels.MatchEqual, "a", "1\"\nz=~\"x|y")}, {labels.MustNewMatcher(labels.MatchEqual, "a\"", "1")},
	} {
		q := b.question(ms)
		if seen[q] != "" {
			t.Errorf("%v and %s are one question", ms, seen[q])
		}
		seen[q] = fmt.Sprint(ms)
		if _, _, ok := cutExpanded([]byte{}, q.text); ok {
			t.Error("nothing is an answer")
		}
	}
	out := &outside{values: map[string][]byte{}}
	b.cache = newIndexCache(Config{IndexCache: out}, nil)
	q := b.question([]*labels.Matcher{a})
	want := []uint32{3, 5, 1 << 31}
	var of refs
	of.b = make([]byte, 0, 64) // there is room: nothing is reserved
	for _, ref := range want {
		if err := of.append(ref); err != nil {
			t.Fatal(err)
		}
	}
	b.keepExpanded(q, of.rewound(), &account{})
	data := out.values[q.key.remote()]
	n, deltas, ok := cutExpanded(data, q.text)
	got := refs{b: deltas, n: n}
	if !ok || !ascending(n, deltas) || !slices.Equal(got.take(nil, 10), want) {
		t.Errorf("%d references in %x, %v", n, deltas, ok)
	}
	if _, _, ok := cutExpanded(data, strings.Replace(q.text, "1", "2", 1)); ok {
		t.Error("the answer to another question is taken")
	}
}

// A page and a list of references may be anything: reading them ends, and what comes is within bounds.
func FuzzCachedIndex(f *testing.F) {
	// A page and a list as they are kept.
	all := realParts(f)
	var kept []byte
	for i, e := range some(all.entries) {
		kept = binary.AppendUvarint(kept, uint64(i*64))
		kept = append(binary.AppendUvarint(kept, uint64(len(e))), e...)
		kept = binary.BigEndian.AppendUint32(kept, crc32.Checksum(e, castagnoli))
	}
	f.Add(kept, "a")
	out := &outside{values: map[string][]byte{}}
	b := &loaded{meta: &block.Meta{}, cache: newIndexCache(Config{IndexCache: out}, nil)}
	q := b.question([]*labels.Matcher{eq("__name__", "up")})
	r := refs{b: make([]byte, 0, 1<<10)}
	for ref := range uint32(100) {
		if err := r.append(ref*7 + 1); err != nil {
			f.Fatal(err)
		}
	}
	b.keepExpanded(q, r.rewound(), &account{})
	f.Add(out.values[q.key.remote()], q.text)
	f.Add([]byte{3, 2, 1, 2, 0, 0, 0, 0}, "a")
	f.Add([]byte{1, 'a', 3, 1, 1, 1}, "a")
	f.Add([]byte{1, 'a', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "a")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		for rest := page(data); ; {
			at, raw, after, ok := rest.next()
			if !ok {
				break
			}
			if content, _ := contentOf(raw, true); len(content) > len(data) || at < 0 || at >= pageBytes || len(after) >= len(rest) {
				t.Fatal("out of bounds")
			}
			rest = after
		}
		if n, deltas, ok := cutExpanded(data, text); ok && ascending(n, deltas) {
			r := refs{b: deltas, n: n}
			if all := r.take(nil, n); len(all) != n || !slices.IsSorted(all) || len(deltas) < n {
				t.Fatal("references out of order")
			}
		}
	})
}

// Tells what a warm request costs with its index entries in memory, and what without.
func BenchmarkCachedSeries(b *testing.B) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(b, bkt)
	for name, cfg := range map[string]Config{"without": {}, "memory": {IndexCacheBytesMax: 64 << 20}} {
		b.Run(name, func(b *testing.B) {
			s := open(b, bkt, cfg)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := drain(b, s, upRequest(store.Abort)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
