package bucket

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Why posting lists are left unread: reading them takes more bytes than reading the series, or there are too many.
// They are values of the label "reason".
const (
	lazyBySize = "postings_size"
	lazyByKeys = "keys_limit"
)

// postingBytes is what a series takes in a posting list, postingListBytes what a list takes besides.
const (
	postingBytes     = 4
	postingListBytes = 12
)

// lazily takes those groups out of the list whose matchers are cheaper to try on the labels of the series that the
// remaining ones select, and returns their matchers. The smallest group that selects always stays: no more series than
// it names can match.
func (b *loaded) lazily(groups []group) (kept []group, unread []*labels.Matcher) {
	if !b.cfg.LazyPostings || len(groups) < 2 {
		return groups, nil
	}
	least := -1
	sizes := make([]int64, len(groups))
	for i := range groups {
		sizes[i] = groups[i].lists.bytes
		if groups[i].add && (least < 0 || sizes[i] < sizes[least]) {
			least = i
		}
	}
	expected := max(1, groups[least].lists.series())
	seriesBytes := expected * b.seriesLengths.guess()
	for i := range groups {
		g := &groups[i]
		reason := ""
		switch {
		case i == least || g.matcher == nil:
		case sizes[i] > seriesBytes:
			reason = lazyBySize
		case b.cfg.KeySeriesRatioMax > 0 && float64(g.lists.n) > b.cfg.KeySeriesRatioMax*float64(expected):
			reason = lazyByKeys
		}
		if reason == "" {
			kept = append(kept, *g)
			continue
		}
		unread = append(unread, g.matcher)
		b.metrics.lazyGroups.WithLabelValues(reason).Inc()
		b.metrics.lazyPostingBytes.Add(float64(sizes[i]))
	}
	if len(unread) > 0 {
		b.metrics.lazyPostings.Inc()
	}
	return slices.Clip(kept), unread
}
