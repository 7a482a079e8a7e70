package components

import "runtime/debug"

const (
	// The collector works ever harder from this part of --store.max-memory on, in percent: the rest is for what it does
	// not count, such as mapped index headers.
	collectAtPercent = 90
	// Garbage is collected when it takes this part of what is in use, in percent, and so many bytes. Most of what is in
	// use are bytes of chunks, which the collector passes over.
	garbagePercent = 60
	garbageLeast   = 12 << 20
	// The index cache gets no more than one in so many bytes.
	cachePart = 8
	// What a process takes before the first request.
	processBytes = 48 << 20
	// Of what is left requests may reserve one in so many bytes. What they hold beside that is garbage that was not
	// collected yet, frames on their way out, and what is too small to be counted.
	reservedPart = 2
	// A request gets no more than one in so many bytes of what all may reserve.
	requestPart = 2
)

// memoryPlan says who gets which part of the memory of a store gateway, in bytes.
type memoryPlan struct {
	requests int64 // all of them together
	request  int64 // a single one; 0 is no bound of its own
	cache    int64
}

// storeMemory divides the memory of a store gateway; a total of 0 leaves pool and cache what they are.
func storeMemory(total, pool, cache int64) memoryPlan {
	if total <= 0 {
		return memoryPlan{requests: pool, cache: cache}
	}
	m := memoryPlan{cache: min(cache, total/cachePart)}
	m.requests = max(1, (total*collectAtPercent/100-m.cache-processBytes)/reservedPart)
	if pool > 0 {
		m.requests = min(m.requests, pool)
	}
	m.request = max(1, m.requests/requestPart)
	return m
}

// limitMemory makes the garbage collector keep to a part of total; 0 changes nothing.
func limitMemory(total int64) {
	if total > 0 {
		debug.SetMemoryLimit(total / 100 * collectAtPercent)
	}
}
