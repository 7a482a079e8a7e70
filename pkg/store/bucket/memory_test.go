package bucket

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/store"
)

// Shows that what requests take of the pools and what they reserve is counted once, whatever they do in parallel, and that
// all of it comes back. (If Release gives back what was taken from the pool too, it fails.)
func TestShare(t *testing.T) {
	m := newMemory(60_000)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for range 200 {
				s := m.newShare(8_000)
				if s.find(t.Context(), rnd.Int64N(5_000), "for lists", time.Now().Add(time.Minute)) != nil {
					t.Error("refused")
				}
				n := rnd.Int64N(6_000)
				held := s.finding.Reserve(n) == nil
				s.finding.settle()
				if s.windows.take(t.Context(), rnd.Int64N(4_000)) != nil {
					t.Error("refused")
				}
				var mine sync.WaitGroup
				for range 3 {
					n := rnd.Int64N(1500)
					mine.Go(func() {
						if s.windows.Reserve(n) == nil {
							s.windows.Release(n)
						}
					})
				}
				mine.Wait()
				if held {
					s.finding.Release(n)
				}
				s.leave()
			}
		})
	}
	wg.Wait()
	if m.used() != 0 {
		t.Errorf("%d bytes are still in use", m.used())
	}
}

// Shows that refusals name what is held, what is wanted, what may be, and the heaviest matcher.
func TestRefusals(t *testing.T) {
	m := newMemory(600)
	s := m.newShare(100)
	s.weigh(`a="light"`, 1)
	s.weigh(`b="heavy"`, 2)
	if err := s.find(t.Context(), 60, "for posting lists", time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	err := s.find(t.Context(), 41, "for posting lists", time.Now().Add(time.Hour))
	if store.KindOf(err) != store.KindLimit || !strings.Contains(err.Error(), `holds 60 bytes and wants 41 more for posting lists, it may have 100; ask for fewer series or a shorter time; the heaviest matcher is b="heavy"`) {
		t.Error(err)
	}
	// 60 were taken, 100 are spare.
	if err := s.finding.Reserve(160); err != nil {
		t.Error(err)
	}
	err = s.windows.Reserve(1)
	if store.KindOf(err) != store.KindLimit || !strings.Contains(err.Error(), `1 bytes wanted with 100 of 100 in use`) || !strings.Contains(err.Error(), `b="heavy"`) {
		t.Error(err)
	}
	s.finding.Release(160)
	s.leave()
	if m.used() != 0 {
		t.Errorf("%d bytes are still in use", m.used())
	}
}

// Shows that a request waits a while for the memory for finding series and then is refused, and that the memory for
// reading is waited for in order, until the caller does not like to any more.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(600)
		first, second := m.newShare(0), m.newShare(0)
		deadline := func() time.Time { return time.Now().Add(memoryWait) }
		if err := first.find(t.Context(), 150, "for lists", deadline()); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(memoryWait / 2)
			first.leave()
		}()
		if err := second.find(t.Context(), 100, "for lists", deadline()); err != nil {
			t.Error(err)
		}
		began := time.Now()
		err := m.newShare(0).find(t.Context(), 120, "for lists", deadline())
		if took := time.Since(began); store.KindOf(err) != store.KindLimit || took < memoryWait || took > 2*memoryWait {
			t.Errorf("after %v: %v", took, err)
		}
		second.leave()

		if err := first.windows.take(t.Context(), 200); err != nil {
			t.Fatal(err)
		}
		var order []string
		var mu sync.Mutex
		wait := func(name string, n int64) {
			s := m.newShare(0)
			if err := s.windows.take(t.Context(), n); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
			s.leave()
		}
		go wait("large", 250)
		synctest.Wait()
		go wait("small", 10)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := m.newShare(0).windows.take(ctx, 10); err == nil {
			t.Error("nobody gave anything back")
		}
		first.leave()
		synctest.Wait()
		if len(order) != 2 {
			t.Error(order)
		}
	})
}

// Shows that series which are too many to be sorted are refused once so many of them have been seen, however many there
// are, and that the same matcher finds all of them where they need not be sorted, or are few enough. (Without the look at
// what is enough it fails.)
func TestRefusedSoon(t *testing.T) {
	const n = 4 * scanStep
	series := make([]handSeries, n)
	for i := range series {
		series[i] = handSeries{ls("__name__", "up", "host", fmt.Sprintf("h%05d", i)), []handChunk{xorChunk(1000, 10, 1)}}
	}
	bkt := objstore.NewInMemBucket()
	handBlock{n: 1, mint: 0, maxt: 2000, external: ls("r", "a"), series: series}.write(t, bkt)
	f := func(memory int64, drop string, wants int, others ...*labels.Matcher) {
		t.Helper()
		s := open(t, bkt, Config{MemoryBytesMax: memory})
		req := &store.SeriesRequest{
			MinTime: 0, MaxTime: 2000, SkipChunks: true, PartialResponse: store.Abort, WithoutReplicaLabels: []string{drop},
			Matchers: append(others, matcher(labels.MatchRegexp, "host", "[^z]+")),
		}
		all, _, err := drain(t, s, req)
		switch {
		case wants == 0 && (err != nil || len(all) != n):
			t.Errorf("%d bytes without %s: %d series, %v", memory, drop, len(all), err)
		case wants > 0 && (store.KindOf(err) != store.KindLimit || !strings.Contains(err.Error(), fmt.Sprintf("wants %d more to sort series", wants*heldSeriesBytes))):
			t.Errorf("%d bytes without %s: %v", memory, drop, err)
		}
	}
	f(3<<20, "host", scanStep-1) // a third of it is room for 3495
	f(6<<20, "host", 2*scanStep-1)
	f(48<<20, "host", 0)
	// Others that reject nothing, or little.
	f(3<<20, "host", scanStep-1, matcher(labels.MatchNotEqual, "none", "x"), matcher(labels.MatchRegexp, "host", ".*"))
	f(3<<20, "host", scanStep-1, matcher(labels.MatchRegexp, "__name__", ".+"))
	f(3<<20, "host", scanStep-2, matcher(labels.MatchNotEqual, "host", "h00007"))
	f(3<<20, "replica", 0)
}
