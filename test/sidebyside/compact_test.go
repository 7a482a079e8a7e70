//go:build compat

package sidebyside

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/merge"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/downsample"
	"github.com/koios-metrics/koios/test/bulk"
)

// A child of the test does our part, so that the kernel counts its processor time and memory apart: this names the step.
const childStep, childBucket = "KOIOS_COMPARE_STEP", "KOIOS_COMPARE_BUCKET"

// usage is what a process took.
type usage struct {
	cpu, wall time.Duration
	rss       int64 // bytes at most
	output    int64 // bytes of the blocks that were made
}

func (u usage) String() string {
	return fmt.Sprintf("%.2fs of processor, %d MiB, %.2fs, %d MiB written", u.cpu.Seconds(), u.rss>>20, u.wall.Seconds(), u.output>>20)
}

// Compacting a day of two-hour blocks of two replicas with deduplication, and downsampling a block of two days to five
// minutes, beside Thanos. The samples are counted in millions by KOIOS_COMPARE_MILLIONS: by default 20, and 85 and 165 make
// what the targets are about. Both read the bucket's files and write blocks; Thanos also copies them from and to its
// bucket.
func TestCompactBesideThanos(t *testing.T) {
	if step := os.Getenv(childStep); step != "" {
		child(t, step, os.Getenv(childBucket))
		return
	}
	millions := 20
	if s := os.Getenv("KOIOS_COMPARE_MILLIONS"); s != "" {
		var err error
		if millions, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("downsample", func(t *testing.T) {
		const samples = 48 * 240 // two days at 15 s
		bucket := t.TempDir()
		writeBulk(t, bucket, bulk.Spec{From: day, Interval: 15_000, Samples: samples,
			Series: bulk.Counters("http_requests_total", millions*1_000_000/samples), External: map[string]string{"cluster": "a"}})
		side(t, "downsample", bucket)
	})
	t.Run("compact", func(t *testing.T) {
		const samples = 480 // two hours at 15 s
		bucket := t.TempDir()
		series := bulk.Counters("http_requests_total", millions*1_000_000/(24*samples))
		for i := range int64(12) {
			for replica := range int64(2) {
				writeBulk(t, bucket, bulk.Spec{From: day + i*2*3_600_000 + replica*6000, Interval: 15_000, Samples: samples - 1, Seed: uint64(replica),
					Series: series, External: map[string]string{"cluster": "a", "replica": fmt.Sprint(replica)}})
			}
		}
		side(t, "compact", bucket, "--deduplication.replica-label=replica", "--deduplication.func=penalty", "--downsampling.disable")
	})
}

const day = int64(1_699_920_000_000)

func writeBulk(t *testing.T, dir string, s bulk.Spec) {
	t.Helper()
	if _, err := bulk.Write(t.Context(), dir, s); err != nil {
		t.Fatal(err)
	}
}

// side runs both over the same bucket and prints how they compare.
func side(t *testing.T, step, bucket string, args ...string) {
	t.Helper()
	before := blocks(t, bucket)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCompactBesideThanos$", "-test.v", "-test.timeout=30m")
	cmd.Env = append(os.Environ(), childStep+"="+step, childBucket+"="+bucket)
	ours := measure(t, cmd)
	ours.output = written(t, bucket, before)
	for id := range blocks(t, bucket) {
		if !before[id] {
			if err := os.RemoveAll(filepath.Join(bucket, id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	args = append([]string{"compact", "--data-dir", t.TempDir(), "--http-address", "127.0.0.1:0", "--consistency-delay=0s", "--delete-delay=1000h",
		"--objstore.config", fmt.Sprintf("{type: FILESYSTEM, config: {directory: %q}}", bucket)}, args...)
	theirs := measure(t, exec.CommandContext(t.Context(), os.Getenv("KOIOS_THANOS"), args...))
	theirs.output = written(t, bucket, before)
	t.Logf("Koios:  %v", ours)
	t.Logf("Thanos: %v", theirs)
	t.Logf("ratios: processor %.2f, memory %.2f, time %.2f, output %.2f", ours.cpu.Seconds()/theirs.cpu.Seconds(),
		float64(ours.rss)/float64(theirs.rss), ours.wall.Seconds()/theirs.wall.Seconds(), float64(ours.output)/float64(theirs.output))
}

func measure(t *testing.T, cmd *exec.Cmd) (u usage) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out.Bytes())
	}
	u.wall = time.Since(begin)
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.rss = r.Maxrss << 10
	}
	return u
}

// blocks are the directories of a bucket.
func blocks(t *testing.T, bucket string) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir(bucket)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		if _, ok := block.ParseID(e.Name()); ok {
			found[e.Name()] = true
		}
	}
	return found
}

// written is the size of the blocks that came after those before and are not marked for deletion.
func written(t *testing.T, bucket string, before map[string]bool) (size int64) {
	t.Helper()
	for id := range blocks(t, bucket) {
		if before[id] {
			continue
		}
		if _, err := os.Stat(filepath.Join(bucket, id, block.DeletionMarkFilename)); err == nil {
			continue
		}
		err := filepath.Walk(filepath.Join(bucket, id), func(_ string, st os.FileInfo, err error) error {
			if err == nil && !st.IsDir() {
				size += st.Size()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return size
}

// child does one step over a bucket.
func child(t *testing.T, step, bucket string) {
	t.Helper()
	var inputs []merge.Input
	for id := range blocks(t, bucket) {
		dir := filepath.Join(bucket, id)
		m, err := block.ReadMetaDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if step == "downsample" {
			if _, _, err := downsample.Downsample(context.Background(), stream.Dir(dir), m, bucket, downsample.Config{}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		inputs = append(inputs, merge.Input{Files: stream.Dir(dir), Meta: m, Replica: m.Labels().String()})
	}
	if len(inputs) == 0 {
		return
	}
	m, _, err := merge.Compact(context.Background(), merge.Config{Inputs: inputs, Dedup: merge.Penalty}, map[string]string{"cluster": "a"}, bucket)
	if err == nil && m == nil {
		err = errors.New("nothing was written")
	}
	if err != nil {
		t.Fatal(err)
	}
}
