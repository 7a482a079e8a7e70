package query

import (
	"fmt"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
)

// histogramNotesMax bounds how many selectors are noted.
const histogramNotesMax = 1000

// histogramNotes are the selectors that were found to select native histograms, so that the next query does
// not try to stream them again. Its methods may be called in parallel.
type histogramNotes struct {
	mu    sync.Mutex
	found map[string]struct{}
}

func (n *histogramNotes) has(ms []*labels.Matcher) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.found) == 0 {
		return false
	}
	_, ok := n.found[fmt.Sprint(ms)]
	return ok
}

func (n *histogramNotes) add(ms []*labels.Matcher) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.found == nil || len(n.found) >= histogramNotesMax {
		n.found = map[string]struct{}{}
	}
	n.found[fmt.Sprint(ms)] = struct{}{}
}
