package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	thanos "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/compact"
)

// tally counts what was done to compactors. It is kept in a file by long runs.
type tally struct {
	// Next is the run to go on with.
	Next int `json:"next"`
	// Runs by storage and number of compactors.
	Runs map[string]int `json:"runs"`
	// Kills, and those of them before all work was done; stops, and those that were longer than a lease, and than the
	// delays of deletion and of uploads.
	Kills        int `json:"kills"`
	KillsAtWork  int `json:"kills_before_the_work_was_done"`
	Stops        int `json:"stops"`
	StopsLong    int `json:"stops_longer_than_a_lease"`
	StopsDelayed int `json:"stops_longer_than_every_delay"`
	// Uploads are the blocks that were uploaded while compactors were disturbed; undisturbed, a run needs six or fewer.
	// Abandoned are the steps of which a compactor noticed before the upload that another one had done them.
	Uploads   int `json:"blocks_uploaded"`
	Abandoned int `json:"steps_abandoned"`
}

// campaign is what all runs have in common.
type campaign struct {
	objects map[string][]byte
	// before are the answers of the bucket as it was, at the resolution it has; after those of all resolutions once one
	// compactor worked on it in peace.
	before, after []answer
	shape         []string
	tally         tally
}

// Shows that killing compactors at random moments, and stopping them for longer than a lease and than any delay, loses
// nothing and doubles nothing, whether one, two or four of them work on the bucket, on a file system or on S3: at the end
// every sample is there once, every query is answered as before, those of downsampled data as after an undisturbed run,
// and no object is left that belongs to no block. A few runs with fixed seeds; `make campaign-crash` does 200, goes on
// where it was ended, and uses a real S3 server.
//
// Mutant it was seen to kill: the sources of a merge are marked for deletion before its output is uploaded.
func TestCrashes(t *testing.T) {
	runs := 4
	if text := os.Getenv("KOIOS_CRASH_RUNS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		runs = n
	}
	state := os.Getenv("KOIOS_CRASH_STATE")
	c := newCampaign(t)
	c.tally = readTally(t, state)
	kinds, configs := storages(t)
	for n := c.tally.Next; n < runs; n++ {
		compactors, kind := []int{1, 2, 4}[n%3], n%len(kinds)
		name := fmt.Sprintf("%s, %d compactors", kinds[kind], compactors)
		t.Run(fmt.Sprintf("%d: %s", n, name), func(t *testing.T) { c.run(t, uint64(n), compactors, configs[kind](fmt.Sprint("run-", n))) })
		if t.Failed() {
			t.Fatalf("run %d failed; the state file goes on with it", n)
		}
		c.tally.Next = n + 1
		c.tally.Runs[name]++
		writeTally(t, state, c.tally)
	}
	b, err := json.MarshalIndent(c.tally, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b)
	if c.tally.Kills == 0 || c.tally.StopsLong == 0 {
		t.Error("nothing was killed or stopped")
	}
}

func readTally(t *testing.T, state string) tally {
	t.Helper()
	tl := tally{Runs: map[string]int{}}
	if state == "" {
		return tl
	}
	b, err := os.ReadFile(state)
	if errors.Is(err, os.ErrNotExist) {
		return tl
	}
	if err == nil {
		err = json.Unmarshal(b, &tl)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tl
}

func writeTally(t *testing.T, state string, tl tally) {
	t.Helper()
	if state == "" {
		return
	}
	b, err := json.Marshal(tl)
	if err == nil {
		err = os.WriteFile(state+".new", b, 0o666)
	}
	if err := errors.Join(err, os.Rename(state+".new", state)); err != nil {
		t.Fatal(err)
	}
}

// newCampaign makes the data, and works on it once without disturbance.
func newCampaign(t *testing.T) *campaign {
	t.Helper()
	c := &campaign{objects: objects(t)}
	bkt := openBucket(t, "type: FILESYSTEM\nconfig:\n  directory: "+t.TempDir()+"\n", c.objects)
	c.before = answers(t, bkt, resolutions[0])
	inPeace(t, bkt, 2)
	c.after = answers(t, bkt, resolutions...)
	compare(t, c.before, c.after[:len(c.before)])
	metas, _ := left(t, bkt)
	c.shape = shape(metas)
	if want := 3 * len(groups); len(c.shape) != want {
		t.Fatalf("%d blocks, want %d: %v", len(c.shape), want, c.shape)
	}
	return c
}

// inPeace lets one compactor work for some rounds. Between them the delays pass: what is marked in one is deleted in the
// next.
func inPeace(t *testing.T, bkt thanos.Bucket, rounds int) {
	t.Helper()
	cfg := config(t.TempDir())
	skip := time.Duration(0)
	cfg.Now = func() time.Time { return time.Now().Add(skip) }
	comp, err := compact.New(bkt, cfg, log.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for range rounds {
		if err := comp.RunOnce(t.Context()); err != nil {
			t.Error(err)
		}
		skip += 2 * time.Hour
	}
}

// run is one run: some compactors are disturbed for a while, then one works in peace, then the bucket is looked at.
func (c *campaign) run(t *testing.T, seed uint64, compactors int, config string) {
	bkt := openBucket(t, config, c.objects)
	dir := t.TempDir()
	logs, err := os.Create(filepath.Join(dir, "compactors.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	rnd := rand.New(rand.NewPCG(seed, 9))
	latency := latencies[rnd.IntN(len(latencies))]
	c.disturb(t, rnd, bkt, compactors, func(i int) *process {
		return startChild(t, childSpec{Bucket: config, DataDir: filepath.Join(dir, strconv.Itoa(i)), Latency: latency}, logs)
	})
	inPeace(t, bkt, 4)

	metas, names := left(t, bkt)
	if d := cmp.Diff(c.shape, shape(metas)); d != "" {
		t.Errorf("blocks (-want +got):\n%s", d)
	}
	if d := cmp.Diff(expected(), readRaw(t, bkt, metas)); d != "" {
		t.Errorf("samples (-want +got):\n%.2000s", d)
	}
	compare(t, c.after, answers(t, bkt, resolutions...))
	if o := orphans(metas, names); len(o) > 0 {
		t.Errorf("objects of no block: %v", o)
	}
	text, err := os.ReadFile(logs.Name())
	if err != nil {
		t.Fatal(err)
	}
	c.tally.Uploads += strings.Count(string(text), "block uploaded")
	c.tally.Abandoned += strings.Count(string(text), "step abandoned")
	if t.Failed() {
		t.Logf("log of the compactors:\n%.20000s", text)
	}
}

// disturb starts compactors, and kills and stops them.
func (c *campaign) disturb(t *testing.T, rnd *rand.Rand, bkt thanos.Bucket, compactors int, start func(i int) *process) {
	t.Helper()
	children := make([]*process, compactors)
	for i := range children {
		children[i] = start(i)
	}
	defer func() {
		for _, p := range children {
			p.kill()
		}
	}()
	goOn := func(p *process) {
		d := p.goOn()
		c.tally.Stops++
		if d > leaseLength {
			c.tally.StopsLong++
		}
		if d > max(deleteDelay, partialAge) {
			c.tally.StopsDelayed++
		}
	}
	for range 4 + 2*compactors + rnd.IntN(5) {
		// The moments are the randomness here, nothing is waited for.
		time.Sleep(time.Duration(rnd.IntN(350)) * time.Millisecond)
		for _, p := range children {
			if p.stopped && time.Now().After(p.wake) {
				goOn(p)
			}
		}
		i := rnd.IntN(compactors)
		p := children[i]
		switch {
		case rnd.IntN(2) == 0:
			c.tally.Kills++
			if metas, _ := left(t, bkt); !cmp.Equal(c.shape, shape(metas)) {
				c.tally.KillsAtWork++
			}
			p.kill()
			children[i] = start(i)
		case !p.stopped:
			p.stop(time.Duration(rnd.Int64N(int64(stopMax))))
		}
	}
	for _, p := range children {
		if p.stopped {
			time.Sleep(time.Until(p.wake))
			goOn(p)
		}
	}
	time.Sleep(time.Duration(rnd.IntN(300)) * time.Millisecond)
}
