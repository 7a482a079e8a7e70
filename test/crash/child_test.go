package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/koios-metrics/koios/pkg/compact"
	"github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/pkg/objstore/faulty"
)

// childEnv makes the test binary a compactor: the JSON of a childSpec.
const childEnv = "KOIOS_CRASH_CHILD"

type childSpec struct {
	Bucket, DataDir string
	// Latency is that of a write to the bucket; a read takes a fifth of it.
	Latency time.Duration
}

func TestMain(m *testing.M) {
	text := os.Getenv(childEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := child(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// The delays of children. They are shorter than the time for which a child is stopped, which is harsher than life: what a
// compactor was about to do meets a bucket where everything is over and cleaned.
const (
	deleteDelay = time.Second
	partialAge  = time.Second
	leaseLength = 300 * time.Millisecond
	stopMax     = 2500 * time.Millisecond
)

func config(dataDir string) compact.Config {
	return compact.Config{
		DataDir: dataDir, Settings: compact.Settings{Level: compact.MaxLevel, Downsample: true}, DeleteDelay: deleteDelay, PartialAge: partialAge,
		Concurrency: 2, DownsampleConcurrency: 1, MetaFetchConcurrency: 4, ParkOnError: true,
		LeaseLength: leaseLength, WaitInterval: 50 * time.Millisecond, CleanupInterval: 100 * time.Millisecond,
	}
}

// child is a compactor until it is killed.
func child(text string) error {
	var spec childSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	logger := log.NewLogfmtLogger(log.NewSyncWriter(os.Stderr))
	bkt, err := objstore.New(logger, []byte(spec.Bucket), prometheus.NewRegistry(), "compact")
	if err != nil {
		return err
	}
	// As far away as object storages are: so steps take long enough to be hit.
	far := faulty.New(bkt)
	far.Plan(faulty.FirstOf(
		faulty.On(faulty.Always(faulty.Fault{Latency: spec.Latency}), faulty.Upload, faulty.Delete),
		faulty.On(faulty.Always(faulty.Fault{Latency: spec.Latency / 5}), faulty.Get, faulty.GetRange, faulty.Attributes, faulty.Exists),
	))
	c, err := compact.New(far, config(spec.DataDir), logger, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return c.Run(ctx)
}

// latencies are how far away the bucket is: the farther, the more often a step is hit, and the less of the work is done.
var latencies = []time.Duration{0, 3 * time.Millisecond, 10 * time.Millisecond}

// process is a child, and until when it is stopped.
type process struct {
	cmd     *exec.Cmd
	stopped bool
	since   time.Time
	wake    time.Time
}

func startChild(t *testing.T, spec childSpec, logs *os.File) *process {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &process{cmd: cmd}
}

func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	_ = p.cmd.Wait()
}

func (p *process) stop(d time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	p.stopped, p.since = true, time.Now()
	p.wake = p.since.Add(d)
}

// goOn ends a stop, and returns how long that was.
func (p *process) goOn() time.Duration {
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	p.stopped = false
	return time.Since(p.since)
}
