package components

import "testing"

// Shows how the memory of a store gateway is divided: without a total pool and cache are what they were set to; with
// one, the cache and all reservations stay far enough below it for garbage and frames.
func TestStoreMemory(t *testing.T) {
	const mib = 1 << 20
	f := func(total, pool, cache int64, want memoryPlan) {
		t.Helper()
		if got := storeMemory(total, pool, cache); got != want {
			t.Errorf("storeMemory(%d, %d, %d) = %+v, want %+v", total, pool, cache, got, want)
		}
	}
	f(0, 2048*mib, 250*mib, memoryPlan{requests: 2048 * mib, cache: 250 * mib})
	f(0, 0, 0, memoryPlan{})
	f(4096*mib, 100*mib, 0, memoryPlan{requests: 100 * mib, request: 50 * mib})
	f(mib, 0, 250*mib, memoryPlan{requests: 1, request: 1, cache: mib / 8})
	for _, total := range []int64{256 * mib, 512 * mib, 8192 * mib} {
		m := storeMemory(total, 1<<40, 250*mib)
		if m.cache > total/8 || m.requests*reservedPart+m.cache+processBytes > total*collectAtPercent/100 || m.request > m.requests/2 || m.request < total/16 {
			t.Errorf("of %d: %+v", total, m)
		}
	}
}
