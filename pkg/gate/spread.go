package gate

import (
	"context"
	"sync"
	"time"
)

const (
	// SpreadFactor bounds what Spread may learn: it never runs more than this many times the width it starts with.
	SpreadFactor = 8
	// A width is doubled again when doubling it made the work go faster by this factor at least. Work that only waits
	// goes twice as fast; work that is bound by something else does not.
	spreadGain = 1.25
	// How many times each place is used before a width is judged.
	spreadRounds = 2
)

// Spread calls f once for each number below n, first width calls at a time, and then as many as make it go faster:
// twice as many as long as that pays, at most SpreadFactor times width. So a width that suits a bucket nearby does not
// make one far away slow. f reports whether it went well; a width at which calls go wrong is not widened.
//
// Spread returns when all calls have. When the context ends no more are begun.
func Spread(ctx context.Context, width, n int, f func(i int) bool) {
	s := &spread{f: f, n: n, width: max(width, 1), since: time.Now()}
	s.most = s.width * SpreadFactor
	s.mu.Lock()
	s.startLocked(ctx)
	s.mu.Unlock()
	s.running.Wait()
}

type spread struct {
	f       func(int) bool
	n       int
	running sync.WaitGroup

	mu          sync.Mutex
	next        int // the first number that nobody has taken
	workers     int
	width, most int // how many workers are wanted, and ever may be
	settled     bool

	since  time.Time // when the current width was reached
	done   int       // calls since then
	failed bool
	rate   float64 // calls a second at half the width; 0 before the first judgement
}

func (s *spread) startLocked(ctx context.Context) {
	for ; s.workers < min(s.width, s.n); s.workers++ {
		s.running.Go(func() { s.work(ctx) })
	}
}

func (s *spread) work(ctx context.Context) {
	for {
		s.mu.Lock()
		i := s.next
		if i >= s.n || ctx.Err() != nil {
			s.mu.Unlock()
			return
		}
		s.next++
		s.mu.Unlock()
		ok := s.f(i)
		s.mu.Lock()
		s.judgeLocked(ctx, ok)
		s.mu.Unlock()
	}
}

// judgeLocked counts a call and widens if it is time to and pays.
func (s *spread) judgeLocked(ctx context.Context, ok bool) {
	if s.settled {
		return
	}
	s.failed = s.failed || !ok
	if s.done++; s.done < s.width*spreadRounds {
		return
	}
	took := time.Since(s.since)
	rate := float64(s.done) / max(took.Seconds(), 1e-9)
	if s.failed || rate < s.rate*spreadGain || s.width >= s.most {
		s.settled = true
		return
	}
	s.width = min(2*s.width, s.most)
	s.rate, s.since, s.done = rate, time.Now(), 0
	s.startLocked(ctx)
}
