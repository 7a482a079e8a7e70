package query

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
)

const (
	// notesMax bounds how many selectors are noted.
	notesMax = 1000
	// notesAge is how long a note holds: a metric may become one of floats again.
	notesAge = time.Hour
)

// selectorNotes are the selectors that were found to select something unusual, so that the next query is evaluated
// accordingly at once. Its methods may be called in parallel.
type selectorNotes struct {
	mu    sync.Mutex
	found map[string]time.Time
}

func (n *selectorNotes) has(ms []*labels.Matcher) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.found) == 0 {
		return false
	}
	at, ok := n.found[noteOf(ms)]
	return ok && time.Since(at) < notesAge
}

func (n *selectorNotes) add(ms []*labels.Matcher) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.found == nil || len(n.found) >= notesMax {
		n.found = map[string]time.Time{}
	}
	n.found[noteOf(ms)] = time.Now()
}

// noteOf writes matchers, whatever their order.
func noteOf(ms []*labels.Matcher) string {
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = m.String()
	}
	slices.Sort(texts)
	return strings.Join(texts, ",")
}

// hasHistograms tells whether a series has native histograms among its chunks.
func hasHistograms(s *store.Series) (found bool) {
	for i := range s.Chunks {
		s.Chunks[i].Payloads(func(_ store.Aggr, p *store.Payload) {
			found = found || p.Encoding == chunkenc.EncHistogram || p.Encoding == chunkenc.EncFloatHistogram
		})
	}
	return found
}
