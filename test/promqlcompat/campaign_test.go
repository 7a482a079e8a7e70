//go:build campaign

package promqlcompat

import (
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

var (
	queries = flag.Int64("queries", 100_000, "how many generated queries to ask")
	seed    = flag.Int64("seed", 1, "the seed of the queries")
	first   = flag.Int64("first", 0, "the index of the first query; with -queries=1 to look at one")
	state   = flag.String("state", "", "the file where the counts are kept, so that a run that was ended goes on; empty is none")
)

// legLength is how many questions are asked between two looks at the clock.
const legLength = 1000

// progress is what the state file holds.
type progress struct {
	Seed, First, Next int64
	Tally             tally
}

// Shows over many generated queries that Koios answers as Prometheus does. Run by `make campaign-promql`.
func TestCampaign(t *testing.T) {
	p := load(t)
	b := newBench(t, *seed)
	begun := time.Now()
	for end := *first + *queries; p.Next < end; {
		leg := min(legLength, end-p.Next)
		p.Tally.add(b.leg(t, p.Next, leg))
		p.Next += leg
		save(t, p)
		if p.Next%(10*legLength) == 0 || p.Next == end {
			t.Logf("%s: seed %d, next %d: %s", time.Since(begun).Round(time.Second), p.Seed, p.Next, &p.Tally)
		}
	}
	p.Tally.judge(t)
}

// leg asks n questions on all processors.
func (b *bench) leg(t *testing.T, from, n int64) *tally {
	var (
		workers = int64(runtime.GOMAXPROCS(0))
		wg      sync.WaitGroup
		mu      sync.Mutex
		sum     tally
	)
	for w := range workers {
		wg.Go(func() {
			var part tally
			for i := from + w; i < from+n; i += workers {
				b.ask(t.Context(), b.gen.question(i), &part)
			}
			mu.Lock()
			defer mu.Unlock()
			sum.add(&part)
		})
	}
	wg.Wait()
	return &sum
}

// add takes in another tally.
func (t *tally) add(o *tally) {
	t.Asked, t.Answered, t.Refused = t.Asked+o.Asked, t.Answered+o.Answered, t.Refused+o.Refused
	for reason, n := range o.Excluded {
		if t.Excluded == nil {
			t.Excluded = map[string]int64{}
		}
		t.Excluded[reason] += n
	}
	t.Different = append(t.Different, o.Different...)
}

func load(t *testing.T) *progress {
	p := &progress{Seed: *seed, First: *first, Next: *first}
	if *state == "" {
		return p
	}
	b, err := os.ReadFile(*state)
	if errors.Is(err, fs.ErrNotExist) {
		return p
	}
	var was progress
	if err == nil {
		err = json.Unmarshal(b, &was)
	}
	if err != nil {
		t.Fatalf("read state: %v", err)
	}
	if was.Seed != p.Seed || was.First != p.First {
		t.Fatalf("%s is the state of seed %d from %d: name another file, or remove it", *state, was.Seed, was.First)
	}
	return &was
}

func save(t *testing.T, p *progress) {
	if *state == "" {
		return
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(*state), 0o777)
	}
	if err == nil {
		err = os.WriteFile(*state+".tmp", b, 0o666)
	}
	if err == nil {
		err = os.Rename(*state+".tmp", *state)
	}
	if err != nil {
		t.Fatalf("write state: %v", err)
	}
}
