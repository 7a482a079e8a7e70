package compact

import (
	"context"
	"sync"
)

// budget is an amount of bytes of which steps reserve a part before they begin. 0 is no bound.
type budget struct {
	max int64

	mu    sync.Mutex
	used  int64
	freed chan struct{} // closed when something is given back
}

func newBudget(bytesMax int64) *budget { return &budget{max: bytesMax, freed: make(chan struct{})} }

// fits tells whether so much could be reserved at all.
func (b *budget) fits(n int64) bool { return b.max <= 0 || n <= b.max }

// reserve waits until so much is free. Release must be called once. What could never fit is reserved alone.
func (b *budget) reserve(ctx context.Context, n int64) (release func(), err error) {
	if b.max > 0 {
		n = min(n, b.max)
	}
	for {
		b.mu.Lock()
		if b.max <= 0 || b.used+n <= b.max {
			b.used += n
			b.mu.Unlock()
			return func() {
				b.mu.Lock()
				b.used -= n
				close(b.freed)
				b.freed = make(chan struct{})
				b.mu.Unlock()
			}, nil
		}
		wait := b.freed
		b.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// inUse is what is reserved now.
func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
