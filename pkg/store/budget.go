package store

import "sync/atomic"

// Budget bounds the memory that requests hold. Work reserves before it allocates and releases when it is
// done. All methods may be called in parallel; a nil Budget has no bound.
type Budget struct {
	what string
	max  int64
	used atomic.Int64
}

// NewBudget makes a budget of maxBytes; what names it in refusals ("memory for sorting series"). A bound
// of 0 or less means no bound.
func NewBudget(what string, maxBytes int64) *Budget {
	if maxBytes <= 0 {
		return nil
	}
	return &Budget{what: what, max: maxBytes}
}

// Reserve takes n bytes, or refuses with an error of KindLimit and takes none.
func (b *Budget) Reserve(n int64) error {
	if b == nil {
		return nil
	}
	if used := b.used.Add(n); used > b.max {
		b.used.Add(-n)
		return Errorf(KindLimit, "%s: %d bytes wanted with %d of %d in use; ask for fewer series or a shorter time", b.what, n, used-n, b.max)
	}
	return nil
}

// Release gives n bytes back.
func (b *Budget) Release(n int64) {
	if b != nil {
		b.used.Add(-n)
	}
}

// Used returns the bytes that are reserved now.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}
