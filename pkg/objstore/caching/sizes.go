package caching

import "sync"

// sizesMax is the number of objects whose sizes are remembered. A chunk object holds up to 512 MiB, so that these are
// some terabytes; a size takes about 100 bytes.
const sizesMax = 50_000

// sizes remembers the sizes of chunk objects, which never change: asking the cache for one before each read would be
// another wait. Its methods may be called in parallel.
type sizes struct {
	mu sync.Mutex
	m  map[string]int64
}

func (s *sizes) get(name string) (size int64, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size, known = s.m[name]
	return size, known
}

func (s *sizes) put(name string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil || len(s.m) >= sizesMax {
		s.m = map[string]int64{}
	}
	s.m[name] = size
}
