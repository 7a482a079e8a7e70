package compact

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/objstore"
)

// childEnv makes the test binary a compactor over a directory: bucket, a comma, its own data directory.
const childEnv = "KOIOS_COMPACT_CHILD"

func TestMain(m *testing.M) {
	if dirs := os.Getenv(childEnv); dirs != "" {
		bucket, data, _ := strings.Cut(dirs, ",")
		if err := child(bucket, data); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The delays of children. They are shorter than the time for which a child is stopped, which is harsher than life: what
// a compactor was about to do meets a bucket where everything is over and cleaned.
const (
	crashDeleteDelay = time.Second
	crashPartialAge  = time.Second
	crashStopMax     = 2500 * time.Millisecond
)

func crashConfig(data string) Config {
	return Config{
		DataDir: data, Settings: Settings{Level: 4, Downsample: true}, DeleteDelay: crashDeleteDelay, PartialAge: crashPartialAge,
		Concurrency: 2, DownsampleConcurrency: 1, MetaFetchConcurrency: 4, ParkOnError: true,
		LeaseLength: 300 * time.Millisecond, WaitInterval: 50 * time.Millisecond, CleanupInterval: 100 * time.Millisecond,
	}
}

func child(bucket, data string) error {
	bkt, err := objstore.NewFilesystem(bucket)
	if err != nil {
		return err
	}
	c, err := New(bkt, crashConfig(data), log.NewLogfmtLogger(log.NewSyncWriter(os.Stderr)), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	return c.Run(context.Background())
}

// Shows that killing compactors at random moments, and stopping them for longer than any delay, loses nothing and
// doubles nothing, whether one, two or four of them work on the bucket: at the end every sample is there once, and
// nothing but whole blocks. A few runs with fixed seeds; `make campaign-compact` does 200. FIRST goes on at a run.
func TestCrashes(t *testing.T) {
	runs, first := envNumber(t, "KOIOS_COMPACT_CRASHES", 3), envNumber(t, "KOIOS_COMPACT_FIRST", 0)
	template := newWorld(t)
	for _, x := range []string{"1", "2"} {
		for h := int64(0); h < 48; h += 8 {
			template.put(h*hour, (h+8)*hour, map[string]string{"x": x}, 2)
		}
	}
	for n := first; n < runs; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) { crashRun(t, template, n) })
		if t.Failed() {
			t.Fatalf("go on with KOIOS_COMPACT_FIRST=%d", n)
		}
	}
}

func envNumber(t *testing.T, name string, def int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func crashRun(t *testing.T, template *world, n int) {
	rnd := rand.New(rand.NewPCG(uint64(n), 9))
	w := newWorld(t)
	w.want = template.want
	bucket := filepath.Join(w.dir, "bucket")
	if err := os.CopyFS(bucket, os.DirFS(filepath.Join(template.dir, "bucket"))); err != nil {
		t.Fatal(err)
	}
	compactors := []int{1, 2, 4}[n%3]
	logs, err := os.Create(filepath.Join(w.dir, "children.log"))
	if err != nil {
		t.Fatal(err)
	}
	start := func(i int) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%s", childEnv, bucket, filepath.Join(w.dir, "data"+strconv.Itoa(i))))
		cmd.Stderr = logs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	children := make([]*exec.Cmd, compactors)
	for i := range children {
		children[i] = start(i)
	}
	kill := func(cmd *exec.Cmd) {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	}
	for range 3 + rnd.IntN(5) {
		// The moments are the randomness here, nothing is waited for.
		time.Sleep(time.Duration(rnd.IntN(400)) * time.Millisecond)
		i := rnd.IntN(compactors)
		if rnd.IntN(3) > 0 {
			kill(children[i])
			children[i] = start(i)
			continue
		}
		_ = children[i].Process.Signal(syscall.SIGSTOP)
		time.Sleep(time.Duration(rnd.Int64N(int64(crashStopMax))))
		_ = children[i].Process.Signal(syscall.SIGCONT)
	}
	for _, c := range children {
		kill(c)
	}

	// One compactor in peace. It needs the delays to pass, more than once: what it marks is deleted later.
	cfg := crashConfig(filepath.Join(w.dir, "last"))
	cfg.Now = func() time.Time { return time.Now().Add(w.skip) }
	last := w.compactor(cfg)
	for range 4 {
		if err := last.RunOnce(t.Context()); err != nil {
			t.Error(err)
		}
		w.skip += 2 * time.Hour
	}
	w.check()
	want := []string{`1h{x="1"} 0-48 level 2`, `1h{x="2"} 0-48 level 2`, `5m{x="1"} 0-48 level 2`, `5m{x="2"} 0-48 level 2`, `raw{x="1"} 0-48 level 2`, `raw{x="2"} 0-48 level 2`}
	if d := cmp.Diff(want, w.shape()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	w.checkNoOrphans(bucket)
	if t.Failed() {
		b, _ := os.ReadFile(logs.Name())
		t.Logf("log of the compactors:\n%.20000s", b)
	}
}

// checkNoOrphans checks that every file of a bucket belongs to a live block.
func (w *world) checkNoOrphans(bucket string) {
	w.t.Helper()
	known := map[string]bool{}
	for id, m := range w.live() {
		for _, f := range m.Thanos.Files {
			known[block.Object(id, f.RelPath)] = true
		}
	}
	err := filepath.WalkDir(bucket, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(bucket, path)
		if !known[filepath.ToSlash(rel)] && !strings.HasPrefix(rel, ".uploads") {
			w.t.Errorf("orphan: %s", rel)
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}
