package compact

import "testing"

// What is read at once from all inputs of a step fits into half of its memory, and of local copies into less; no read is
// so short that it is not worth a call.
func TestWindows(t *testing.T) {
	f := func(memory int64, blocks int, remote bool, want int) {
		t.Helper()
		j := &job{
			c:      &Compactor{cfg: Config{MemoryBytesMax: memory, Concurrency: 1, DownsampleConcurrency: 1}},
			blocks: make([]*Block, blocks), remote: remote,
		}
		if got := j.window(); got != want {
			t.Errorf("%d bytes of memory, %d blocks, remote %v: windows of %d bytes, want %d", memory, blocks, remote, got, want)
		}
	}
	const kib, mib = 1 << 10, 1 << 20
	f(1<<30, 1, false, 256*kib)
	f(1<<30, 24, false, 6*mib/3/24)
	f(1<<30, 500, false, 32*kib)
	f(8*mib, 8, false, 2*mib/3/8)
	f(1<<30, 1, true, 4*mib)
	f(1<<30, 48, true, 256*mib/3/48)
	f(8*mib, 100, true, 32*kib)
}
