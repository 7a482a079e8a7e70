package bucket

import (
	"context"
	"sync"
	"time"

	"github.com/koios-metrics/koios/pkg/store"
)

const (
	// A request waits for the memory that it needs at least for so long, and looks again each so often.
	memoryWait = time.Second
	memoryLook = 10 * time.Millisecond
	// What a cursor over a block needs at least, in windows: two of chunks, and two batches of series with their
	// labels, and the entries of one.
	windowsPerBlock = 5
)

// share is the memory of one request: a part of what all requests have together. Its methods may be called in parallel.
type share struct {
	all  *store.Budget
	max  int64 // in bytes; 0 is no bound but that of all
	paid int64 // bytes that were taken from all beforehand; it is set before anything is reserved

	mu       sync.Mutex
	used     int64
	matcher  string // the heaviest one
	postings int64  // the bytes of its posting lists
}

// admittedMin is how many requests have room at a time, whatever they are over.
const admittedMin = 4

// beforehand returns what a request over so many blocks takes in bytes before it begins.
func (c Config) beforehand(blocks int) int64 {
	n := int64(blocks) * windowsPerBlock * windowBytes(blocks, c.MemoryBytesMax)
	if c.MemoryBytesMax > 0 {
		n = min(n, c.MemoryBytesMax/admittedMin)
	}
	return n
}

// admit takes n bytes beforehand, so that whoever has begun comes to an end. It waits a while for others to give theirs
// back. The caller gives these back with leave.
func (s *share) admit(ctx context.Context, n int64) error {
	if s.max > 0 {
		n = min(n, s.max/2)
	}
	deadline := time.Now().Add(memoryWait)
	for {
		err := s.all.Reserve(n)
		if err == nil {
			s.paid = n
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(memoryLook):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *share) leave() { s.all.Release(s.paid) }

// weigh notes what the posting lists of a matcher take, for refusals to name the heaviest.
func (s *share) weigh(matcher string, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes > s.postings {
		s.matcher, s.postings = matcher, bytes
	}
}

// beyond returns how much of so many bytes was not paid for beforehand.
func (s *share) beyond(used int64) int64 { return max(0, used-s.paid) }

// Reserve takes n bytes, or refuses with an error of KindLimit and takes none.
func (s *share) Reserve(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := s.used + n
	if s.max > 0 && used > s.max {
		return store.Errorf(store.KindLimit, "memory for reading blocks: this request holds %d bytes and wants %d more, it may have %d%s", s.used, n, s.max, s.heaviest())
	}
	if err := s.all.Reserve(s.beyond(used) - s.beyond(s.used)); err != nil {
		return store.Errorf(store.KindLimit, "%w (this request holds %d)%s", err, s.used, s.heaviest())
	}
	s.used = used
	return nil
}

// Release gives n bytes back.
func (s *share) Release(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all.Release(s.beyond(s.used) - s.beyond(s.used-n))
	s.used -= n
}

// heaviest needs the lock.
func (s *share) heaviest() string {
	if s.matcher == "" {
		return ""
	}
	return "; the heaviest matcher is " + s.matcher
}
