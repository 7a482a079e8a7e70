//go:build campaign

package startup

import (
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/koios-metrics/koios/test/fleet"
)

func TestMain(m *testing.M) { os.Exit(fleet.Main(m)) }

const (
	campaignBlocks  = 10_000
	campaignLatency = 30 * time.Millisecond
	readyMax        = 10 * time.Minute
)

// Prints how long a store takes to be ready over 10,000 blocks in a bucket that answers after 30 ms, with an empty and
// with a warm disk, what it holds resident when idle, and its requests. THANOS names a program to compare with.
func TestCampaign(t *testing.T) {
	s := newS3(copies(t, campaignBlocks), campaignLatency)
	srv := httptest.NewServer(s)
	defer srv.Close()
	conf := filepath.Join(t.TempDir(), "bucket.yaml")
	if err := os.WriteFile(conf, []byte(config(srv.URL)), 0o666); err != nil {
		t.Fatal(err)
	}
	programs := map[string]string{"koios": fleet.KoiosProgram(t)}
	if p := os.Getenv("THANOS"); p != "" {
		programs["thanos"] = p
	}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		data := filepath.Join(t.TempDir(), "data")
		for _, disk := range []string{"empty", "warm"} {
			s.take()
			http := fleet.FreeAddr(t)
			start := time.Now()
			p := fleet.Start(t, name, programs[name], "store", "--http-address="+http, "--grpc-address="+fleet.FreeAddr(t),
				"--data-dir="+data, "--objstore.config-file="+conf, "--log.level=warn")
			for {
				if status, _ := fleet.Get(t.Context(), "http://"+http+"/-/ready"); status == 200 {
					break
				}
				if !p.Running() || time.Since(start) > readyMax {
					t.Fatalf("%s is not ready after %v", name, time.Since(start))
				}
				time.Sleep(5 * time.Millisecond)
			}
			ready := time.Since(start)
			requests := s.take()
			loaded, _ := fleet.Metric(t.Context(), "http://"+http+"/metrics", "thanos_bucket_store_blocks_loaded")
			time.Sleep(5 * time.Second) // idle
			var ops []string
			for _, op := range slices.Sorted(maps.Keys(requests)) {
				ops = append(ops, fmt.Sprintf("%s %d", op, requests[op]))
			}
			cpu, _ := fleet.Metric(t.Context(), "http://"+http+"/metrics", "process_cpu_seconds_total")
			t.Logf("%-6s %-5s disk: ready in %5.1f s with %v blocks, %.1f s of CPU until idle, idle RSS %d MiB, peak %d MiB, requests: %s",
				name, disk, ready.Seconds(), loaded, cpu, status(t, p.PID(), "VmRSS")>>20, status(t, p.PID(), "VmHWM")>>20, strings.Join(ops, ", "))
			p.Stop(t)
		}
	}
}

// status returns a size that the kernel tells of a process, in bytes.
func status(t *testing.T, pid int, field string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("no %s", field)
	return 0
}
