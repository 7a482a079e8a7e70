package serve

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// PaceCollector has garbage collected when there is as much of it as a part of what is in use, in percent, but not
// before it takes leastBytes: a process that holds little does not collect all the time, and one that holds much of what
// has no pointers, which is cheap to collect, does not grow to twice of that. An explicit GOGC wins. The stop function
// leaves things as they are.
func PaceCollector(leastBytes int64, percent int) (stop func()) {
	p := &pacer{least: leastBytes, percent: percent}
	if _, ok := os.LookupEnv("GOGC"); ok {
		p.stopped.Store(true)
		return func() {}
	}
	p.sample[0].Name = "/gc/heap/live:bytes"
	p.pace()
	return func() { p.stopped.Store(true) }
}

// pacer sets the pace anew after each collection.
type pacer struct {
	least   int64
	percent int
	sample  [1]metrics.Sample
	now     int
	stopped atomic.Bool
}

// pace sets the pace by what the last collection has left, and has itself called after the next one.
func (p *pacer) pace() {
	if p.stopped.Load() {
		return
	}
	metrics.Read(p.sample[:])
	if percent := p.of(int64(p.sample[0].Value.Uint64())); percent*9 > p.now*10 || percent*11 < p.now*10 {
		p.now = percent
		debug.SetGCPercent(percent)
	}
	// What nobody refers to any more is gone with the next collection.
	runtime.AddCleanup(new([16]byte), func(p *pacer) { p.pace() }, p)
}

// of returns by how much the heap may grow, in percent of the bytes that are in use.
func (p *pacer) of(live int64) int {
	const most = 1000
	return int(min(max(int64(p.percent), p.least*100/max(live, 1)), most))
}
