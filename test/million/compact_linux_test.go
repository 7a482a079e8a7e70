//go:build campaign

package million

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/test/fleet"
)

const (
	// What the compactor may hold resident, which is also what the kernel kills it at, and have on its disk.
	compactBudget  = 1 << 30
	compactScratch = 4 << 30
	twoHours       = int64(2 * 3_600_000)
	groupBlocks    = 3
)

// Shows that a group of five million series, a few samples each, in three blocks of which each series is in two, is
// merged and downsampled by a compactor that never holds more than 1 GiB resident nor more than 4 GiB in its data
// directory, in a control group of 1 GiB. KOIOS_SERIES is another number of series.
func TestFiveMillionSeries(t *testing.T) {
	n := 5_000_000
	if s := os.Getenv("KOIOS_SERIES"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
	}
	bucket, data := t.TempDir(), t.TempDir()
	for i := range groupBlocks {
		manySeries(t, bucket, i, n)
	}
	inputs := onDisk(bucket)

	memory := fleet.NewMemory(t, compactBudget)
	c := &fleet.Component{HTTP: fleet.FreeAddr(t)}
	c.URL = "http://" + c.HTTP
	c.Process = memory.Start(t, "compact", fleet.KoiosProgram(t), "compact", "--wait", "--http-address="+c.HTTP, "--data-dir="+data,
		"--objstore.config-file="+fleet.BucketConfig(t, bucket), "--consistency-delay=0s", fmt.Sprintf("--compact.max-scratch=%d", int64(compactScratch)))
	var scratch int64
	began := time.Now()
	merged := time.Duration(0)
	for {
		scratch = max(scratch, onDisk(data))
		if !c.Running() {
			t.Fatalf("the compactor ended; the kernel killed %d processes", memory.Kills(t))
		}
		if at, _ := c.Metric(t, "thanos_compact_group_compactions_total"); at == 1 && merged == 0 {
			merged = time.Since(began)
			t.Logf("merged in %v: peak of %d MiB of memory, %d MiB on disk, from %d MiB", merged.Round(time.Second), c.PeakRSS(t)>>20, scratch>>20, inputs>>20)
		}
		if at, _ := c.Metric(t, "thanos_compact_iterations_total"); at > 0 {
			break
		}
		if time.Since(began) > 3*time.Hour {
			t.Fatal("not ready after three hours")
		}
		time.Sleep(200 * time.Millisecond)
	}
	rss := c.PeakRSS(t)
	c.Stop(t)
	t.Logf("merged and downsampled twice in %v: peak of %d MiB of memory, %d MiB on disk", time.Since(began).Round(time.Second), rss>>20, scratch>>20)
	if kills := memory.Kills(t); rss > compactBudget || kills > 0 {
		t.Errorf("peak of %d MiB of memory, want at most %d; the kernel killed %d processes", rss>>20, compactBudget>>20, kills)
	}
	if scratch > compactScratch {
		t.Errorf("%d MiB on disk, want at most %d", scratch>>20, compactScratch>>20)
	}
	// Two blocks have a series, each with three samples of one window.
	for resolution, samples := range map[int64]uint64{block.ResolutionRaw: 6, block.Resolution5m: 2, block.Resolution1h: 2} {
		m := madeOf(t, bucket, resolution)
		if m.Stats.NumSeries != uint64(n) || m.Stats.NumSamples != uint64(n)*samples {
			t.Errorf("resolution %d: %d series and %d samples, want %d and %d", resolution, m.Stats.NumSeries, m.Stats.NumSamples, n, uint64(n)*samples)
		}
	}
}

// manySeries writes the i-th of the blocks: two of each three series of n, three samples each.
func manySeries(t *testing.T, bucket string, i, n int) {
	t.Helper()
	id := ulid.MustNew(uint64(i+1), nil)
	dir := filepath.Join(bucket, id.String())
	w, err := stream.NewWriter(dir, stream.WriterConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	// In order, as a table of symbols is. Kept are the ordinals of the first of each kind.
	var count uint32
	add := func(n int, symbol func(k int) string) (first uint32) {
		first = count
		for k := range n {
			if err := w.AddSymbol([]byte(symbol(k))); err != nil {
				t.Fatal(err)
			}
		}
		count += uint32(n)
		return first
	}
	word := func(s string) uint32 { return add(1, func(int) string { return s }) }
	get, name, metric := word("GET"), word("__name__"), word("http_requests_total")
	hosts := add(n, func(k int) string { return fmt.Sprintf("i-%08d.host.example:9090", k) })
	instance, job := word("instance"), word("job")
	const groups, paths = 100, 50
	job0 := add(groups, func(k int) string { return fmt.Sprintf("job-%03d", k) })
	method, path := word("method"), word("path")
	path0 := add(paths, func(k int) string { return fmt.Sprintf("path-%02d", k) })

	mint := from/twoHours*twoHours + int64(i)*twoHours
	times := []int64{mint, mint + 60_000, mint + 120_000}
	chunks := []stream.Chunk{{MinTime: times[0], MaxTime: times[2], Encoding: chunkenc.EncXOR, Data: xor.Encode(nil, times, []float64{0, 1, 2})}}
	for k := range n {
		if k%groupBlocks == i {
			continue
		}
		err := w.AddSeries([]uint32{name, metric, instance, hosts + uint32(k), job, job0 + uint32(k%groups), method, get, path, path0 + uint32(k%paths)}, chunks)
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	m := &block.Meta{
		BlockMeta: tsdb.BlockMeta{
			ULID: id, MinTime: mint, MaxTime: mint + twoHours, Version: 1,
			Stats:      tsdb.BlockStats{NumSeries: s.Series, NumChunks: s.Chunks, NumSamples: s.Samples},
			Compaction: tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{id}},
		},
		Thanos: block.Thanos{Version: 1, Labels: map[string]string{"cluster": "eu"}, Source: block.SourceTest},
	}
	if err := block.WriteMetaDir(dir, m); err != nil {
		t.Fatal(err)
	}
}

// madeOf returns the metadata of the one block of a resolution in a bucket that is not marked for deletion.
func madeOf(t *testing.T, bucket string, resolution int64) (found *block.Meta) {
	t.Helper()
	entries, err := os.ReadDir(bucket)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		dir := filepath.Join(bucket, e.Name())
		if _, ok := block.ParseID(e.Name()); !ok {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, block.DeletionMarkFilename)); err == nil {
			continue
		}
		m, err := block.ReadMetaDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if m.Resolution() != resolution {
			continue
		}
		if found != nil {
			t.Fatalf("two blocks of resolution %d", resolution)
		}
		found = m
	}
	if found == nil {
		t.Fatalf("no block of resolution %d", resolution)
	}
	return found
}

// onDisk is the size of all files below a directory, which may come and go meanwhile.
func onDisk(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			if st, err := e.Info(); err == nil {
				bytes += st.Size()
			}
		}
		return nil
	})
	return bytes
}
