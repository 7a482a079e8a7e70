package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/wire"
	"github.com/koios-metrics/koios/proto/storepb"
	"github.com/koios-metrics/koios/test/bulk"
	"github.com/koios-metrics/koios/test/fleet"
)

func TestMain(m *testing.M) { os.Exit(fleet.Main(m)) }

const (
	from     = int64(1_700_006_400_000)
	interval = int64(15_000)
	samples  = 480 // two hours
	shapes   = 50
	atOnce   = 20
	// A refusal that takes longer is no refusal.
	refusalMax = 2 * time.Second
)

// setting reads a number from the environment.
func setting(t *testing.T, name string, fallback int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return fallback
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Shows that a store with a memory budget, asked 20 things at a time of 50 shapes that match everything or nearly so,
// over series that do not fit, stays alive, within the budget and a tenth, and goes on answering: each request gets all of
// its answer, or a refusal that says what it wanted and what it may have. `make hostile` asks 500 times over
// more than a million series, in a control group that kills at a quarter more than the budget.
func TestHostileRequests(t *testing.T) {
	series, requests, budgetMiB := setting(t, "KOIOS_HOSTILE_SERIES", 24_000), setting(t, "KOIOS_HOSTILE_REQUESTS", 50), setting(t, "KOIOS_HOSTILE_MIB", 160)
	bucket := os.Getenv("KOIOS_HOSTILE_BUCKET")
	if bucket == "" {
		bucket = t.TempDir()
		for b := range 3 {
			s := bulk.Spec{
				From: from + int64(b%2)*samples*interval, Interval: interval, Samples: samples, Series: bulk.Counters(fmt.Sprintf("m%d_total", b/2), series/3),
				External: map[string]string{"replica": string(rune('a' + b/2))}, Seed: uint64(b),
			}
			if _, err := bulk.Write(t.Context(), bucket, s); err != nil {
				t.Fatal(err)
			}
		}
	}
	o := &fleet.Component{HTTP: fleet.FreeAddr(t), GRPC: fleet.FreeAddr(t)}
	o.URL = "http://" + o.HTTP
	start := fleet.Start
	var group *fleet.Memory
	if os.Getenv("KOIOS_HOSTILE_STRICT") != "" {
		group = fleet.NewMemory(t, int64(budgetMiB)<<20*5/4)
		start = group.Start
	}
	o.Process = start(t, "store", fleet.KoiosProgram(t), "store", "--http-address="+o.HTTP, "--grpc-address="+o.GRPC, "--log.level=warn",
		"--data-dir="+t.TempDir(), "--objstore.config-file="+fleet.BucketConfig(t, bucket), fmt.Sprintf("--store.max-memory=%dMiB", budgetMiB))
	o.Ready(t)
	idle := peakMiB(t, o.PID())

	cc, err := grpc.NewClient(o.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()

	rnd := rand.New(rand.NewPCG(5, 5))
	var all []*store.SeriesRequest
	for range shapes {
		all = append(all, hostile(rnd))
	}
	var (
		mu                sync.Mutex
		answered, refused int
		late              time.Duration
		wg                sync.WaitGroup
		work              = make(chan *store.SeriesRequest)
	)
	for range atOnce {
		wg.Go(func() {
			for req := range work {
				began := time.Now()
				n, err := ask(t.Context(), cc, req)
				mu.Lock()
				switch {
				case err == nil:
					answered++
				case status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "memory for"):
					refused++
					t.Logf("refused after %v and %d frames: %v", time.Since(began).Round(time.Millisecond), n, err)
					if n == 0 { // before that the time went into an answer
						late = max(late, time.Since(began))
					}
				default:
					t.Errorf("%v: %v", req.Matchers, err)
				}
				mu.Unlock()
			}
		})
	}
	for range requests {
		work <- all[rnd.IntN(len(all))]
	}
	close(work)
	wg.Wait()
	peak := peakMiB(t, o.PID())
	t.Logf("%d series, %d requests: %d answered, %d refused, the slowest after %v; %d MiB idle, %d MiB at most of %d MiB", series, requests, answered, refused, late.Round(time.Millisecond), idle, peak, budgetMiB)
	if ran, waited := processorTime(t, o.PID()); ran > 0 {
		// What the machine was busy with besides makes everything take so many times as long.
		t.Logf("the store ran for %v and waited for a processor for %v: %.1f times as long as by itself", ran.Round(time.Second), waited.Round(time.Second), float64(ran+waited)/float64(ran))
	}
	if peak > budgetMiB*11/10 {
		t.Errorf("%d MiB resident of a budget of %d MiB", peak, budgetMiB)
	}
	if answered == 0 {
		t.Error("nothing was answered")
	}
	// It still answers what is modest.
	modest := &store.SeriesRequest{MinTime: from, MaxTime: from + 600_000, Matchers: []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, "__name__", "m0_total"), labels.MustNewMatcher(labels.MatchEqual, "instance", "host-000007:9090"),
	}}
	if n, err := ask(t.Context(), cc, modest); err != nil || n < 1 {
		t.Errorf("modest request: %d series, %v", n, err)
	}
	if group != nil {
		if n := group.Kills(t); n > 0 || !o.Running() {
			t.Errorf("the kernel killed %d processes", n)
		}
		if late > refusalMax {
			t.Errorf("a refusal took %v", late)
		}
	}
}

// ask reads a whole answer and throws it away; it returns how many frames there were.
func ask(ctx context.Context, cc *grpc.ClientConn, req *store.SeriesRequest) (frames int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, storepb.Store_Series_FullMethodName, grpc.ForceCodecV2(discard{}))
	if err != nil {
		return 0, err
	}
	m, err := wire.EncodeSeriesRequest(req)
	if err != nil {
		return 0, err
	}
	if err := stream.SendMsg(m); err != nil {
		return 0, err
	}
	if err := stream.CloseSend(); err != nil {
		return 0, err
	}
	for ; ; frames++ {
		if err := stream.RecvMsg(nil); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return frames, err
		}
	}
}

// discard is a codec that reads nothing, so that the time goes into the store.
type discard struct{}

func (discard) Marshal(v any) (mem.BufferSlice, error) {
	b, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}
func (discard) Unmarshal(mem.BufferSlice, any) error { return nil }
func (discard) Name() string                         { return "proto" }

// hostile makes a request that matches all series or a large part of them.
func hostile(rnd *rand.Rand) *store.SeriesRequest {
	pick := func(ss ...string) string { return ss[rnd.IntN(len(ss))] }
	all := []func() *labels.Matcher{
		func() *labels.Matcher {
			return labels.MustNewMatcher(labels.MatchRegexp, "__name__", pick(".+", ".*total", "m.*", "m[01]_total"))
		},
		func() *labels.Matcher {
			return labels.MustNewMatcher(labels.MatchRegexp, "instance", pick(".+", "host.*", ".*1.*", "[^z]+", "host-0.*"))
		},
		func() *labels.Matcher {
			return labels.MustNewMatcher(labels.MatchNotEqual, "job", pick("", "job-001", "none"))
		},
		func() *labels.Matcher {
			return labels.MustNewMatcher(labels.MatchNotRegexp, "path", pick("nothing.*", ".*-1", "x|y"))
		},
		func() *labels.Matcher {
			return labels.MustNewMatcher(labels.MatchEqual, pick("method", "absent"), pick("GET", ""))
		},
	}
	// One that needs no posting list of all series comes first, now and then two.
	ms := []*labels.Matcher{all[rnd.IntN(3)]()}
	if ms[0].Matches("") {
		ms[0] = all[0]()
	}
	for range rnd.IntN(3) {
		if m := all[rnd.IntN(len(all))](); m.Name != "method" || m.Value != "" {
			ms = append(ms, m)
		}
	}
	mint := from + rnd.Int64N(2)*samples*interval
	req := &store.SeriesRequest{MinTime: mint, MaxTime: mint + []int64{60_000, 3_600_000, 4 * 3_600_000}[rnd.IntN(3)], Matchers: ms, BatchSize: []int{0, 64}[rnd.IntN(2)]}
	if rnd.IntN(3) == 0 {
		req.WithoutReplicaLabels = []string{pick("replica", "instance", "path")} // the last two need all series for sorting
	}
	req.SkipChunks = rnd.IntN(4) == 0
	if rnd.IntN(5) == 0 {
		req.Shard = &store.Shard{Total: 3, Index: rnd.Int64N(3)}
	}
	return req
}

// processorTime reads for how long the threads of a process that live have run, and how long they were ready to and did
// not.
func processorTime(t *testing.T, pid int) (ran, waited time.Duration) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var r, w time.Duration
		if b, err := os.ReadFile(f); err == nil { // threads may end
			_, _ = fmt.Sscan(string(b), &r, &w)
		}
		ran, waited = ran+r, waited+w
	}
	return ran, waited
}

// peakMiB reads the highest resident memory of a process.
func peakMiB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b))
	i := slices.Index(f, "VmHWM:")
	if i < 0 {
		t.Fatal("no VmHWM")
	}
	kb, err := strconv.Atoi(f[i+1])
	if err != nil {
		t.Fatal(err)
	}
	return kb / 1024
}
