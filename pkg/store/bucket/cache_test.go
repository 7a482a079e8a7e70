package bucket

import (
	"math/rand/v2"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/store"
)

// Shows that the cache stays within its bound, keeps what was used last, and forgets the rest.
func TestCache(t *testing.T) {
	c := newCache(10_000, prometheus.NewRegistry())
	key := func(n int) cacheKey { return cacheKey{testID(1), int64(n)} }
	rnd := rand.New(rand.NewPCG(5, 6))
	for n := range 1000 {
		if size := rnd.IntN(2000); c.wants(size) {
			c.put(key(n), make([]byte, size))
		}
		if c.size > c.max || testutil.ToFloat64(c.metrics.totalSize) != float64(c.size) || len(c.items) != c.order.Len() {
			t.Fatalf("%d bytes in a cache of %d", c.size, c.max)
		}
	}
	if testutil.ToFloat64(c.metrics.evicted) == 0 || testutil.ToFloat64(c.metrics.overflowed) == 0 {
		t.Error("nothing was forgotten, or nothing refused")
	}
	if got := testutil.ToFloat64(c.metrics.items); got != float64(len(c.items)) {
		t.Errorf("%v items shown, %d there", got, len(c.items))
	}

	c = newCache(10_000, prometheus.NewRegistry())
	for n := range 8 {
		c.put(key(n), make([]byte, 1000))
	}
	c.put(key(0), make([]byte, 1000)) // known already
	if c.get(key(0), "t") == nil {
		t.Error("forgot 0")
	}
	c.put(key(8), make([]byte, 1000))
	if c.get(key(0), "t") == nil || c.get(key(1), "t") != nil {
		t.Error("forgot the wrong one")
	}
	off := newCache(0, prometheus.NewRegistry())
	if off.wants(1) || off.get(key(1), "t") != nil {
		t.Error("a cache of nothing keeps something")
	}
}

// Shows that a second request finds its posting lists in the cache, and answers the same.
func TestCachedPostings(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	threeBlocks(t, bkt)
	s := open(t, bkt, Config{IndexCacheBytesMax: 1 << 20})
	var first []string
	for round, wantHits := range []float64{0, 18} {
		all, ws, err := drain(t, s, upRequest(store.Abort))
		if err != nil || len(ws) > 0 {
			t.Fatal(ws, err)
		}
		got := spell(t, all)
		if round == 0 {
			first = got
		}
		if len(got) != 40 || got[3] != first[3] {
			t.Errorf("round %d: %d lines", round, len(got))
		}
		hits := testutil.ToFloat64(s.cache.metrics.hits.WithLabelValues(cachedPostings, "default-tenant"))
		if round == 0 && hits != wantHits || round == 1 && hits < wantHits {
			t.Errorf("round %d: %v hits", round, hits)
		}
	}
}
