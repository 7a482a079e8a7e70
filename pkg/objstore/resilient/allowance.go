package resilient

import "sync"

// allowance lets one in so many requests have something more: each earns a part of it, and what is not taken is kept up
// to a burst. Its methods may be called in parallel.
type allowance struct {
	part, burst int

	mu    sync.Mutex
	parts int
}

// newAllowance makes an allowance of one in part, with first of them from the start.
func newAllowance(part, burst, first int) *allowance {
	return &allowance{part: part, burst: burst, parts: first * part}
}

func (a *allowance) earn() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parts = min(a.parts+1, a.burst*a.part)
}

func (a *allowance) take() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.parts < a.part {
		return false
	}
	a.parts -= a.part
	return true
}
