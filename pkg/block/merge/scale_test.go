//go:build campaign

package merge

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// A group of 5 million series, a few samples each, in three blocks that share half of their series compacts within
// 1 GiB of memory and 4 GiB of scratch: the peak that the kernel saw of this process, and what lay on the
// disk, the inputs' copies included. KOIOS_SERIES sets another number of series.
func TestFiveMillionSeries(t *testing.T) {
	n := 5_000_000
	if s := os.Getenv("KOIOS_SERIES"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	var inputs []Input
	for i := range 3 {
		inputs = append(inputs, manySeries(t, dir, i, n))
	}
	before := onDisk(t, dir)
	var most atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				most.Store(max(most.Load(), onDisk(t, dir)))
			case <-stop:
				return
			}
		}
	}()
	begin := time.Now()
	meta, res, err := Compact(t.Context(), Config{Inputs: inputs}, nil, dir)
	close(stop)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	rss := peak(t)
	t.Logf("%d series from %d MiB of inputs in %s: %d MiB of memory at most, %d MiB on disk at most, index of %d MiB",
		res.Series, before>>20, time.Since(begin).Round(time.Second), rss>>20, most.Load()>>20, res.IndexBytes>>20)
	if res.Series != uint64(n) || meta.Stats.NumSeries != uint64(n) {
		t.Errorf("%d series, want %d", res.Series, n)
	}
	if rss > 1<<30 {
		t.Errorf("%d MiB of memory, at most 1 GiB is allowed", rss>>20)
	}
	if most.Load() > 4<<30 {
		t.Errorf("%d MiB on disk, at most 4 GiB are allowed", most.Load()>>20)
	}
}

// manySeries writes a block with two of each three series of n, so that all have each at least once.
func manySeries(t *testing.T, dir string, block3, n int) Input {
	t.Helper()
	path := filepath.Join(dir, fmt.Sprintf("in-%d", block3))
	w, err := stream.NewWriter(path, stream.WriterConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	// In order: names and values of labels.
	fixed := []string{"GET", "__name__", "http_requests_total"}
	for _, s := range fixed {
		add(t, w, s)
	}
	for i := range n {
		add(t, w, fmt.Sprintf("i-%08d.host.example:9090", i))
	}
	add(t, w, "instance")
	add(t, w, "job")
	for i := range 100 {
		add(t, w, fmt.Sprintf("job-%03d", i))
	}
	add(t, w, "method")
	add(t, w, "path")
	for i := range 50 {
		add(t, w, fmt.Sprintf("path-%02d", i))
	}
	first := uint32(len(fixed))
	names := first + uint32(n)
	var points []point
	from := int64(block3) * 2 * hour
	for k := range 3 {
		points = append(points, point{t: from + int64(k)*60_000, f: float64(k)})
	}
	chunks := encode(t, points)
	for i := range n {
		if i%3 == block3 {
			continue
		}
		err := w.AddSeries([]uint32{
			1, 2, names, first + uint32(i), names + 1, names + 2 + uint32(i%100), names + 102, 0, names + 103, names + 104 + uint32(i%50),
		}, chunks)
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	id := ulid.MustNew(uint64(block3+1), nil)
	m := &block.Meta{BlockMeta: tsdb.BlockMeta{ULID: id, MinTime: from, MaxTime: from + 2*hour, Version: 1}}
	return Input{Files: stream.Dir(path), Meta: m}
}

func add(t *testing.T, w *stream.Writer, s string) {
	t.Helper()
	if err := w.AddSymbol([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func onDisk(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	_ = filepath.Walk(dir, func(_ string, st os.FileInfo, err error) error {
		if err == nil && !st.IsDir() { // files come and go
			bytes += st.Size()
		}
		return nil
	})
	return bytes
}

// peak is the most memory this process has had, as the kernel counts it.
func peak(t *testing.T) (bytes int64) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(rest, &bytes); err != nil {
				t.Fatal(err)
			}
		}
	}
	return bytes << 10
}
