package bucket

import (
	"sync"
	"sync/atomic"

	"github.com/koios-metrics/koios/pkg/store"
)

// share is the memory of one request: a part of what all requests have together. Its methods may be called in parallel.
type share struct {
	all  *store.Budget
	max  int64 // in bytes; 0 is no bound but that of all
	used atomic.Int64

	mu       sync.Mutex
	matcher  string // the heaviest one
	postings int64  // the bytes of its posting lists
}

// weigh notes what the posting lists of a matcher take, for refusals to name the heaviest.
func (s *share) weigh(matcher string, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes > s.postings {
		s.matcher, s.postings = matcher, bytes
	}
}

// Reserve takes n bytes, or refuses with an error of KindLimit and takes none.
func (s *share) Reserve(n int64) error {
	used := s.used.Add(n)
	if s.max > 0 && used > s.max {
		s.used.Add(-n)
		return store.Errorf(store.KindLimit, "memory for reading blocks: this request holds %d bytes and wants %d more, it may have %d%s", used-n, n, s.max, s.heaviest())
	}
	if err := s.all.Reserve(n); err != nil {
		s.used.Add(-n)
		return store.Errorf(store.KindLimit, "%w (this request holds %d)%s", err, used-n, s.heaviest())
	}
	return nil
}

// Release gives n bytes back.
func (s *share) Release(n int64) {
	s.used.Add(-n)
	s.all.Release(n)
}

func (s *share) heaviest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.matcher == "" {
		return ""
	}
	return "; the heaviest matcher is " + s.matcher
}
