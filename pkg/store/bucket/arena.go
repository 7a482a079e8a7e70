package bucket

import (
	"math/bits"
	"sync"
)

const (
	// The first slab of an arena, and the largest one: a request for one series takes little, and one for many does
	// not ask for memory often.
	slabBytesMin = 4 << 10
	slabBytesMax = 1 << 20
	// No slab is larger than this because of what was needed before.
	slabBytesKept = 4 << 20
)

// arena hands out memory that is taken back all at once. It is charged to a budget by slabs. alloc may be called in
// parallel.
type arena struct {
	budget *ticket

	mu       sync.Mutex
	slabs    [][]byte
	used     int // of the last slab
	total    int // bytes handed out since the last reset
	next     int // the size of the next slab at least
	reserved int64
}

// alloc returns n bytes, of any content, that are the caller's until reset.
func (a *arena) alloc(n int) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total += n
	if k := len(a.slabs); k > 0 {
		if slab := a.slabs[k-1]; n <= len(slab)-a.used {
			a.used += n
			return slab[a.used-n : a.used : a.used], nil
		}
	}
	size := slabBytesMin
	if k := len(a.slabs); k > 0 {
		size = min(2*len(a.slabs[k-1]), slabBytesMax)
	}
	size = slabSize(max(size, a.next, n))
	if err := a.budget.Reserve(int64(size)); err != nil {
		return nil, err
	}
	a.reserved += int64(size)
	a.slabs = append(a.slabs, newSlab(size))
	a.next, a.used = 0, n
	return a.slabs[len(a.slabs)-1][:n:n], nil
}

// reset takes all memory back for the next use, which is thought to need as much as the last one. Where that was in
// several slabs they are given up for a single one.
func (a *arena) reset() {
	if len(a.slabs) > 1 {
		n := min(a.total+a.total/8, slabBytesKept)
		a.free()
		a.next = n
	}
	a.used, a.total = 0, 0
}

// free gives all memory back, for others to use.
func (a *arena) free() {
	for _, slab := range a.slabs {
		freeSlab(slab)
	}
	a.leave()
}

// leave leaves the memory to those who have some of it. It is no longer charged.
func (a *arena) leave() {
	a.budget.Release(a.reserved)
	a.slabs, a.used, a.total, a.next, a.reserved = nil, 0, 0, 0, 0
}

// Slabs that nobody uses, by the logarithm of their size: the garbage collector takes them if that stays so.
var slabs [128]sync.Pool

// slabSize rounds a size up to one that is a power of two, or three quarters of one: so slabs fit again.
func slabSize(n int) int {
	size := 1 << bits.Len(uint(max(n, slabBytesMin)-1))
	if n <= size/4*3 && size/4*3 >= slabBytesMin {
		return size / 4 * 3
	}
	return size
}

func slabPool(size int) *sync.Pool {
	i := 2 * bits.Len(uint(size-1))
	if size&(size-1) == 0 {
		i++
	}
	return &slabs[min(i, len(slabs)-1)]
}

// newSlab returns a slab of a size that slabSize gave. Its content is anything.
func newSlab(size int) []byte {
	if b, ok := slabPool(size).Get().(*[]byte); ok && len(*b) == size {
		return *b
	}
	return make([]byte, size)
}

func freeSlab(slab []byte) {
	if len(slab) <= slabBytesKept {
		slabPool(len(slab)).Put(&slab)
	}
}

// hold charges memory that is not an arena's to a budget.
type hold struct {
	budget   *ticket
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
