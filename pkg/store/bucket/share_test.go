package bucket

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/koios-metrics/koios/pkg/store"
)

// Shows that what requests take beforehand and what they reserve later is counted once, whatever they do in parallel,
// that all of it comes back, and that refusals name what is held, what may be, and the heaviest matcher. (If Release gives
// back what was paid beforehand too, it fails.)
func TestShare(t *testing.T) {
	const most = 10_000
	all := store.NewBudget("memory for reading blocks", most)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for range 200 {
				s := &share{all: all, max: most / 2}
				if s.admit(t.Context(), rnd.Int64N(1000)) != nil {
					continue
				}
				var mine sync.WaitGroup
				for range 3 {
					n := rnd.Int64N(1500)
					mine.Go(func() {
						if s.Reserve(n) == nil {
							s.Release(n)
						}
					})
				}
				mine.Wait()
				s.leave()
			}
		})
	}
	wg.Wait()
	if all.Used() != 0 {
		t.Errorf("%d bytes are still in use", all.Used())
	}
	s := &share{all: all, max: 100}
	s.weigh(`a="light"`, 1)
	s.weigh(`b="heavy"`, 2)
	if err := s.Reserve(60); err != nil {
		t.Fatal(err)
	}
	err := s.Reserve(41)
	if store.KindOf(err) != store.KindLimit || !strings.Contains(err.Error(), `holds 60 bytes and wants 41 more, it may have 100; the heaviest matcher is b="heavy"`) {
		t.Error(err)
	}
	s.Release(60)
	if all.Used() != 0 {
		t.Errorf("%d bytes are still in use", all.Used())
	}
}

// Shows that a request waits for the memory of others, and not for long.
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := store.NewBudget("memory for reading blocks", 100)
		first, second := &share{all: all}, &share{all: all}
		if err := first.admit(t.Context(), 80); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(memoryWait / 2)
			first.leave()
		}()
		if err := second.admit(t.Context(), 30); err != nil {
			t.Error(err)
		}
		began := time.Now()
		err := (&share{all: all}).admit(t.Context(), 71)
		if took := time.Since(began); store.KindOf(err) != store.KindLimit || took < memoryWait || took > 2*memoryWait {
			t.Errorf("after %v: %v", took, err)
		}
		second.leave()
	})
}
