//go:build compat

package storecompare

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/koios-metrics/koios/test/fleet"
)

// program is one of the two.
type program struct {
	name, path string
}

// running is a started store gateway that is ready.
type running struct {
	*fleet.Process
	http string
	cc    *grpc.ClientConn
	start cost // until it was ready
}

// cost is what something took.
type cost struct {
	wall, cpu time.Duration
	rss       int64 // bytes, the most since the process began
}

// begin starts a store gateway over the bucket and waits until it is ready.
func (p program) begin(t *testing.T, w world, data string, flags ...string) *running {
	t.Helper()
	http, grpcAddr := fleet.FreeAddr(t), fleet.FreeAddr(t)
	args := append([]string{"store", "--http-address=" + http, "--grpc-address=" + grpcAddr, "--data-dir=" + data,
		"--objstore.config-file=" + fleet.BucketConfig(t, w.dir), "--log.level=warn"}, flags...)
	began := time.Now()
	r := &running{http: http, Process: fleet.Start(t, p.name, p.path, args...)}
	for {
		if status, _ := fleet.Get(t.Context(), "http://"+http+"/-/ready"); status == 200 {
			break
		}
		if !r.Running() || time.Since(began) > 5*time.Minute {
			t.Fatalf("%s is not ready after %v:\n%s", p.name, time.Since(began), r.Log())
		}
		time.Sleep(2 * time.Millisecond)
	}
	r.start = cost{wall: time.Since(began), cpu: r.cpu(t), rss: r.PeakRSS(t)}
	cc, err := grpc.NewClient(grpcAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	r.cc = cc
	cc.Connect()
	return r
}

func (r *running) end(t *testing.T) {
	t.Helper()
	if err := r.cc.Close(); err != nil {
		t.Error(err)
	}
	r.Kill()
}

// ask asks some times, one after the other, and returns what one took.
func (r *running) ask(t *testing.T, q question, times int) cost {
	t.Helper()
	cpu, began := r.cpu(t), time.Now()
	for range times {
		if _, err := ask(t.Context(), r.cc, q); err != nil {
			t.Fatalf("%s: %v\n%s", q.name, err, r.Log())
		}
	}
	return cost{time.Since(began) / time.Duration(times), (r.cpu(t) - cpu) / time.Duration(times), r.PeakRSS(t)}
}

// cpu is the processor time of all threads, finer than the kernel's ticks.
func (r *running) cpu(t *testing.T) (d time.Duration) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", r.PID()))
	if err != nil || len(files) == 0 {
		t.Fatalf("no processor time of process %d: %v", r.PID(), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		d += time.Duration(ns)
	}
	return d
}
