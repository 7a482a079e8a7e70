//go:build compat

package sidebyside

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/test/bulk"
	"github.com/koios-metrics/koios/test/fleet"
)

// usage is what a process took from its start to its end.
type usage struct {
	cpu, wall time.Duration
	rss       int64 // bytes at most
	output    int64 // bytes of the blocks that it made
	samples   uint64
}

func (u usage) String() string {
	return fmt.Sprintf("%.2fs of processor, %d MiB, %.2fs, %.1f MiB and %d samples written", u.cpu.Seconds(), u.rss>>20, u.wall.Seconds(), float64(u.output)/(1<<20), u.samples)
}

// windowMillis is a time that blocks are merged to.
const windowMillis = int64(48 * time.Hour / time.Millisecond)

// Runs `koios compact` and `thanos compact`, by turns, over copies of one bucket on the file system, and prints what the
// whole processes took: downsampling a block of two days, which needs no compaction, to five minutes, and compacting a day
// of two-hour blocks of two replicas with penalty deduplication. KOIOS_COMPARE_MILLIONS is the number of samples in
// millions, by default 20; "full" is 85 for the one and 165 for the other. KOIOS_COMPARE_ROUNDS is how often each runs,
// and KOIOS_COMPARE_STRICT makes missed targets fail.
func TestCompactBesideThanos(t *testing.T) {
	rounds, err := strconv.Atoi(valueOf("KOIOS_COMPARE_ROUNDS", "3"))
	if err != nil {
		t.Fatal(err)
	}
	// Old enough for five minutes, too young for an hour.
	begin := (time.Now().UnixMilli()/windowMillis - 2) * windowMillis
	t.Run("downsample", func(t *testing.T) {
		const samples = 48 * 240 // two days at 15 s
		bucket := t.TempDir()
		writeBulk(t, bucket, bulk.Spec{From: begin, Interval: 15_000, Samples: samples,
			Series: bulk.Counters("http_requests_total", millions(t, 85)*1_000_000/samples), External: map[string]string{"cluster": "a"}})
		side(t, bucket, rounds)
	})
	t.Run("compact", func(t *testing.T) {
		const samples = 480 // two hours at 15 s
		bucket := t.TempDir()
		series := bulk.Counters("http_requests_total", millions(t, 165)*1_000_000/(24*samples))
		for i := range int64(12) {
			for replica := range int64(2) {
				writeBulk(t, bucket, bulk.Spec{From: begin + i*2*3_600_000 + replica*6000, Interval: 15_000, Samples: samples - 1, Seed: uint64(replica),
					Series: series, External: map[string]string{"cluster": "a", "replica": fmt.Sprint(replica)}})
			}
		}
		side(t, bucket, rounds, "--deduplication.replica-label=replica", "--deduplication.func=penalty", "--downsampling.disable")
	})
}

func valueOf(env, otherwise string) string {
	if s := os.Getenv(env); s != "" {
		return s
	}
	return otherwise
}

func millions(t *testing.T, full int) int {
	t.Helper()
	s := valueOf("KOIOS_COMPARE_MILLIONS", "20")
	if s == "full" {
		return full
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func writeBulk(t *testing.T, dir string, s bulk.Spec) {
	t.Helper()
	if _, err := bulk.Write(t.Context(), dir, s); err != nil {
		t.Fatal(err)
	}
}

// side runs both over copies of a bucket, by turns, and prints each ratio's median.
func side(t *testing.T, bucket string, rounds int, flags ...string) {
	t.Helper()
	var cpu, rss, wall, output []float64
	koios, thanos := fleet.KoiosProgram(t), os.Getenv("KOIOS_THANOS")
	for range rounds {
		ours, theirs := compact(t, koios, bucket, flags), compact(t, thanos, bucket, flags)
		t.Logf("Koios:  %v", ours)
		t.Logf("Thanos: %v", theirs)
		cpu = append(cpu, ours.cpu.Seconds()/theirs.cpu.Seconds())
		rss = append(rss, float64(ours.rss)/float64(theirs.rss))
		wall = append(wall, ours.wall.Seconds()/theirs.wall.Seconds())
		output = append(output, float64(ours.output)/float64(theirs.output))
	}
	for _, r := range []struct {
		name string
		got  []float64
		most float64
	}{{"processor", cpu, 0.5}, {"memory", rss, 0.5}, {"time", wall, 0.4}, {"output", output, 1}} {
		slices.Sort(r.got)
		median := r.got[len(r.got)/2]
		t.Logf("%-9s %.2f (at most %.1f is wanted; %.2f)", r.name, median, r.most, r.got)
		if os.Getenv("KOIOS_COMPARE_STRICT") != "" && median > r.most {
			t.Errorf("%s: %.3f, at most %.1f is wanted", r.name, median, r.most)
		}
	}
}

// compact runs a program's compactor over a copy of a bucket until all is done.
func compact(t *testing.T, program, bucket string, flags []string) usage {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(bucket)); err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	defer func() {
		if err := errors.Join(os.RemoveAll(copied), os.RemoveAll(scratch)); err != nil {
			t.Error(err)
		}
	}()
	args := append([]string{"compact", "--data-dir", scratch, "--http-address", "127.0.0.1:0", "--consistency-delay=0s",
		"--objstore.config-file", fleet.BucketConfig(t, copied)}, flags...)
	u := measure(t, exec.CommandContext(t.Context(), program, args...))
	u.output, u.samples = written(t, copied, bucket)
	if u.samples == 0 {
		t.Fatalf("%s made no block", program)
	}
	return u
}

// measure runs a command to its end.
func measure(t *testing.T, cmd *exec.Cmd) (u usage) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// What wait4 says of memory counts what this process had when it started the other, so the peak is read while it runs.
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				u.rss = max(u.rss, highWater(cmd.Process.Pid))
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	u.wall = time.Since(begin)
	close(ended)
	<-watched
	if err != nil {
		t.Fatalf("%v: %s", err, out.Bytes())
	}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return u
}

// highWater is the most memory in bytes that a process has had, 0 when it is gone.
func highWater(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}

// written is the size of the blocks in a bucket that were not there before and are not marked for deletion.
func written(t *testing.T, bucket, before string) (size int64, samples uint64) {
	t.Helper()
	entries, err := os.ReadDir(bucket)
	if err != nil {
		t.Fatal(err)
	}
	there := func(path ...string) bool {
		_, err := os.Stat(filepath.Join(path...))
		return err == nil
	}
	for _, e := range entries {
		dir := filepath.Join(bucket, e.Name())
		if _, ok := block.ParseID(e.Name()); !ok || there(before, e.Name()) || there(dir, block.DeletionMarkFilename) {
			continue
		}
		m, err := block.ReadMetaDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		samples += m.Stats.NumSamples
		err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			st, err := e.Info()
			if err == nil {
				size += st.Size()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return size, samples
}
