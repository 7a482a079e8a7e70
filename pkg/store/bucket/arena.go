package bucket

import (
	"sync"

	"github.com/koios-metrics/koios/pkg/store"
)

const (
	// The first slab of an arena, and the largest one: a request for one series takes little, and one for many does
	// not ask for memory often.
	slabBytesMin = 16 << 10
	slabBytesMax = 1 << 20
)

// arena hands out memory that is taken back all at once. It is charged to a budget by slabs. alloc may be called in
// parallel.
type arena struct {
	budget *store.Budget

	mu       sync.Mutex
	slabs    [][]byte
	at, used int // the slab that is being filled, and how far
	reserved int64
}

// alloc returns n bytes, not zeroed, that are the caller's until reset.
func (a *arena) alloc(n int) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for ; a.at < len(a.slabs); a.at, a.used = a.at+1, 0 {
		if slab := a.slabs[a.at]; n <= len(slab)-a.used {
			a.used += n
			return slab[a.used-n : a.used : a.used], nil
		}
	}
	size := slabBytesMin
	if k := len(a.slabs); k > 0 {
		size = min(2*len(a.slabs[k-1]), slabBytesMax)
	}
	size = max(size, n)
	if err := a.budget.Reserve(int64(size)); err != nil {
		return nil, err
	}
	a.reserved += int64(size)
	a.slabs = append(a.slabs, make([]byte, size))
	a.at, a.used = len(a.slabs)-1, n
	return a.slabs[a.at][:n:n], nil
}

// reset takes all memory back for the next use.
func (a *arena) reset() { a.at, a.used = 0, 0 }

// free gives all memory back to the budget.
func (a *arena) free() {
	a.budget.Release(a.reserved)
	a.slabs, a.at, a.used, a.reserved = nil, 0, 0, 0
}

// hold charges memory that is not an arena's to a budget.
type hold struct {
	budget   *store.Budget
	reserved int64
}

func (h *hold) reserve(n int64) error {
	if err := h.budget.Reserve(n); err != nil {
		return err
	}
	h.reserved += n
	return nil
}

func (h *hold) free() {
	h.budget.Release(h.reserved)
	h.reserved = 0
}
