package serve

import (
	"math"
	"runtime/debug"
	"testing"
)

// The share of memory follows the soft limit of the runtime where there is one, and the machine's otherwise.
func TestShareOfMemory(t *testing.T) {
	before := debug.SetMemoryLimit(1 << 30)
	defer debug.SetMemoryLimit(before)
	if got, want := ShareOfMemory(), int64(1<<30)/10*6; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	debug.SetMemoryLimit(math.MaxInt64)
	if got := ShareOfMemory(); got <= 0 {
		t.Errorf("got %d on a machine with memory", got)
	}
}
