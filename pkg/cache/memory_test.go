package cache

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func newMemory(t testing.TB, cfg MemoryConfig) (*Memory, *memoryMetrics) {
	t.Helper()
	metrics := newMemoryMetrics("test", cfg, prometheus.NewRegistry())
	m, err := NewMemoryWith(cfg, metrics)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m, metrics
}

// Shows that a cache in memory stays within its bound after every call, and that its gauges say what is there: entries
// of random sizes are stored and replaced.
//
// Mutant seen killed: entries are weighed without their overhead.
func TestMemoryBound(t *testing.T) {
	const bound = 100_000
	m, metrics := newMemory(t, MemoryConfig{BytesMax: bound, ItemBytesMax: 20_000})
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 5000 {
		key := fmt.Sprint("key", rnd.IntN(500))
		m.Store(Entry{Key: key, Value: make([]byte, rnd.IntN(22_000))})
		if got := testutil.ToFloat64(metrics.total); got > bound {
			t.Fatalf("%v bytes in a cache of %d", got, bound)
		}
	}
	items, bytes, total := 0, 0, 0
	for k, e := range m.items {
		it := e.Value.(*item)
		items++
		bytes += len(it.value)
		total += len(it.value) + len(k) + entryOverhead
	}
	f := func(what string, got prometheus.Collector, want int) {
		t.Helper()
		if v := testutil.ToFloat64(got); v != float64(want) {
			t.Errorf("%s: %v shown, %d there", what, v, want)
		}
	}
	f("items", metrics.items, items)
	f("bytes", metrics.bytes, bytes)
	f("total", metrics.total, total)
	if items == 0 || testutil.ToFloat64(metrics.evicted) == 0 || testutil.ToFloat64(metrics.overflowed) == 0 {
		t.Error("nothing was kept, forgotten or refused")
	}
}

// Shows that many writers at once leave the cache within its bound, and that readers get whole values.
func TestMemoryParallel(t *testing.T) {
	const bound = 50_000
	m, metrics := newMemory(t, MemoryConfig{BytesMax: bound, ItemBytesMax: 5_000})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for range 2000 {
				n := rnd.IntN(200)
				key := fmt.Sprint("key", n)
				if v, ok := FetchOne(t.Context(), m, key); ok && string(v) != strings.Repeat(key, n) {
					t.Errorf("%s: %d bytes", key, len(v))
				}
				m.Store(Entry{Key: key, Value: []byte(strings.Repeat(key, n))})
			}
		})
	}
	wg.Wait()
	if got := testutil.ToFloat64(metrics.total); got > bound || got == 0 {
		t.Errorf("%v bytes in a cache of %d", got, bound)
	}
}

// Shows that an entry is handed out for as long as its TTL says, and that an empty value is one.
func TestMemoryTTL(t *testing.T) {
	m, metrics := newMemory(t, MemoryConfig{BytesMax: 10_000})
	synctest.Test(t, func(t *testing.T) {
		m.Store(Entry{Key: "a", TTL: time.Minute}, Entry{Key: "b", Value: []byte("b")})
		f := func(key string, want bool) {
			t.Helper()
			if _, ok := FetchOne(t.Context(), m, key); ok != want {
				t.Errorf("%s found: %v, want %v", key, ok, want)
			}
		}
		f("a", true)
		f("c", false)
		time.Sleep(time.Minute)
		f("a", false)
		f("b", true)
	})
	for c, want := range map[prometheus.Counter]float64{metrics.requests: 4, metrics.hits: 2, metrics.expired: 1, metrics.added: 2} {
		if got := testutil.ToFloat64(c); got != want {
			t.Errorf("%v: %v, want %v", c.Desc(), got, want)
		}
	}
}

// Shows that a cache of nothing keeps nothing, and that one item can't be allowed more than all.
func TestMemoryConfig(t *testing.T) {
	m, _ := newMemory(t, MemoryConfig{})
	m.Store(Entry{Key: "a", Value: []byte("a")})
	if _, ok := FetchOne(t.Context(), m, "a"); ok || m.Wants("a", 1) {
		t.Error("a cache of nothing keeps something")
	}
	if _, err := NewMemory("x", MemoryConfig{BytesMax: 1, ItemBytesMax: 2}, nil); err == nil || !strings.Contains(err.Error(), "max_item_size") {
		t.Errorf("error: %v", err)
	}
}

func BenchmarkMemoryFetch(b *testing.B) {
	m, _ := newMemory(b, MemoryConfig{BytesMax: 100 << 20})
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("S:01ARZ3NDEKTSV4RRFFQ69G5FAV:%d", i)
		m.Store(Entry{Key: keys[i], Value: make([]byte, 100)})
	}
	b.ReportAllocs()
	for b.Loop() {
		if m.Fetch(b.Context(), keys)[999] == nil {
			b.Fatal("lost")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(keys)), "ns/key")
}

// Shows that a cache with a bound of entries keeps those used last, whatever room there is in bytes.
func TestMemoryItems(t *testing.T) {
	m, _ := newMemory(t, MemoryConfig{BytesMax: 1 << 20, ItemsMax: 3})
	for i := range 10 {
		m.Store(Entry{Key: fmt.Sprint(i), Value: []byte{1}})
		m.Store(Entry{Key: fmt.Sprint(i), Value: []byte{2}})
	}
	got := m.Fetch(t.Context(), []string{"5", "6", "7", "8", "9"})
	for i, v := range got {
		if want := i >= 2; (v != nil) != want {
			t.Errorf("entry %d is there: %v, want %v", i+5, v != nil, want)
		}
	}
}
