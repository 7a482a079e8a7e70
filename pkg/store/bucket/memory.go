package bucket

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/koios-metrics/koios/pkg/store"
)

// The memory of all requests is divided in parts, so that whoever waits for one holds nothing that those need who
// could give it back. A half is for windows, a third for finding series, the rest is spare.
const (
	windowsPart = 2
	findingPart = 3
	// A request waits for its turn to look for series, and for the memory for it, no longer than this: then it is refused,
	// while it is still soon.
	memoryWait = 700 * time.Millisecond
	// What a cursor over a block needs at most, in windows: two of chunks, and two batches of series with their labels,
	// and the entries of one.
	windowsPerBlock = 5
	// So many requests have room for their windows at a time, whatever they are over.
	admittedMin = 4
)

// memory is what all requests may hold together. Its methods may be called in parallel.
type memory struct {
	// finding is for posting lists, references of series, and series that are held to be sorted. A request takes it when
	// the index header has told how much that is.
	finding *pool
	// windows is for series and chunks on their way. A request takes it last, and waits for it in order. Whoever has it
	// needs nothing more, comes to an end, and gives it back.
	windows *pool
	// spare is for what turns out to be more than was thought.
	spare *store.Budget
}

func newMemory(bytes int64) *memory {
	if bytes <= 0 {
		return &memory{finding: newPool(0), windows: newPool(0)}
	}
	m := &memory{finding: newPool(bytes / findingPart), windows: newPool(bytes / windowsPart)}
	m.spare = store.NewBudget(memoryName, max(1, bytes-m.finding.max-m.windows.max))
	return m
}

// memoryName is what refusals call it.
const memoryName = "memory for reading blocks"

// used returns the bytes that are taken.
func (m *memory) used() int64 { return m.finding.used.Load() + m.windows.used.Load() + m.spare.Used() }

// pool is a part of the memory that is waited for in order.
type pool struct {
	max  int64 // in bytes; 0 is no bound
	sem  *semaphore.Weighted
	used atomic.Int64
}

func newPool(bytes int64) *pool { return &pool{max: bytes, sem: semaphore.NewWeighted(bytes)} }

// take waits for n bytes, no more than the pool has.
func (p *pool) take(ctx context.Context, n int64) error {
	if p.max > 0 && !p.sem.TryAcquire(n) { // which is looked at first: the context may have ended while nobody waits
		if err := p.sem.Acquire(ctx, n); err != nil {
			return context.Cause(ctx)
		}
	}
	p.used.Add(n)
	return nil
}

func (p *pool) give(n int64) {
	p.used.Add(-n)
	if p.max > 0 {
		p.sem.Release(n)
	}
}

// share is the memory of one request. Its methods may be called in parallel.
type share struct {
	finding, windows ticket
	max              int64 // of finding, in bytes; 0 is no bound but that of all
	sorting          int64 // of finding, reserved for series to be sorted

	mu       sync.Mutex
	matcher  string // the heaviest one
	postings int64  // the bytes of its posting lists
}

func (m *memory) newShare(most int64) *share {
	s := &share{max: m.finding.max}
	if most > 0 && (s.max == 0 || most < s.max) {
		s.max = most
	}
	s.finding = ticket{of: s, from: m.finding, spare: m.spare}
	s.windows = ticket{of: s, from: m.windows, spare: m.spare}
	return s
}

// leave gives back what was taken from the pools. Everything reserved has been released by then.
func (s *share) leave() {
	s.finding.Release(s.sorting)
	s.sorting = 0
	s.finding.settle()
	s.windows.settle()
}

// weigh notes what the posting lists of a matcher take, for refusals to name the heaviest.
func (s *share) weigh(matcher string, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes > s.postings {
		s.matcher, s.postings = matcher, bytes
	}
}

func (s *share) heaviest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.matcher == "" {
		return ""
	}
	return "; the heaviest matcher is " + s.matcher
}

// find takes n more bytes for finding series, or for sorting them as what says. It refuses at once what is too much for
// one request, and at the deadline what others have in use.
func (s *share) find(ctx context.Context, n int64, what string, deadline time.Time) error {
	if held := s.finding.has(); s.max > 0 && held+n > s.max {
		return store.Errorf(store.KindLimit, "%s: this request holds %d bytes and wants %d more %s, it may have %d; ask for fewer series or a shorter time%s", memoryName, held, n, what, s.max, s.heaviest())
	}
	waiting, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	err := s.finding.take(waiting, n)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return store.Errorf(store.KindLimit, "%s: %d bytes wanted %s, %d of %d are in use by others; ask again later%s", memoryName, n, what, s.finding.from.used.Load(), s.finding.from.max, s.heaviest())
}

// ticket is a part of a pool that a request has taken, and what it has reserved of that. What it reserves beyond it comes
// from what is spare. Its methods may be called in parallel.
type ticket struct {
	of    *share
	from  *pool
	spare *store.Budget

	mu         sync.Mutex
	paid, used int64 // in bytes
}

// take waits for n bytes more.
func (t *ticket) take(ctx context.Context, n int64) error {
	if err := t.from.take(ctx, n); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	over := t.beyond(t.used)
	t.paid += n
	t.spare.Release(over - t.beyond(t.used))
	return nil
}

func (t *ticket) has() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.paid
}

// settle gives back what was taken and is not reserved.
func (t *ticket) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.paid - t.used; n > 0 {
		t.paid -= n
		t.from.give(n)
	}
}

// beyond returns how much of so many bytes was not taken from the pool. It needs the lock.
func (t *ticket) beyond(used int64) int64 { return max(0, used-t.paid) }

// Reserve reserves n bytes, or refuses with an error of KindLimit and reserves none.
func (t *ticket) Reserve(n int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	used := t.used + n
	if err := t.spare.Reserve(t.beyond(used) - t.beyond(t.used)); err != nil {
		return store.Errorf(store.KindLimit, "%w (this request holds %d)%s", err, t.used, t.of.heaviest())
	}
	t.used = used
	return nil
}

// Release gives n bytes back.
func (t *ticket) Release(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spare.Release(t.beyond(t.used) - t.beyond(t.used-n))
	t.used -= n
}
