package frontend

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// queryStats gathers what one request took, of all its parts. Its methods may be called in parallel, also on nil, which
// gathers nothing.
type queryStats struct {
	begin time.Time

	mu sync.Mutex
	// querier is the time that queriers took, of all parts together.
	querier     time.Duration
	total, peak int64
	some        bool // a querier has told of samples
}

func (s *queryStats) asked(took time.Duration) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.querier += took
}

// add takes the statistics of an answer.
func (s *queryStats) add(stats json.RawMessage) {
	var one sampleStats
	if s == nil || stats == nil || json.Unmarshal(stats, &one) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.some = true
	s.total += one.Samples.Total
	s.peak = max(s.peak, one.Samples.Peak)
}

// read takes the statistics out of an answer as it came.
func (s *queryStats) read(body []byte) {
	var a struct {
		Data struct {
			Stats json.RawMessage `json:"stats"`
		} `json:"data"`
	}
	if s != nil && json.Unmarshal(body, &a) == nil {
		s.add(a.Data.Stats)
	}
}

// tell puts the times into an answer's header, if the statistics are known.
func (s *queryStats) tell(w http.ResponseWriter) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.some {
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		w.Header().Set("Server-Timing", fmt.Sprintf("querier_wall_time;dur=%.3f, response_time;dur=%.3f", ms(s.querier), ms(time.Since(s.begin))))
	}
}

// samples are the numbers of samples read in all and held at once; false if no querier has told.
func (s *queryStats) samples() (total, peak int64, some bool) {
	if s == nil {
		return 0, 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total, s.peak, s.some
}
