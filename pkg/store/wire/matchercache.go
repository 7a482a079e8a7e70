package wire

import (
	"container/list"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/labels"
)

// The longest regular expression that is kept, in bytes. A dashboard's alternatives of a variable are shorter.
const keptBytesMax = 16 << 10

// MatcherCache keeps the matchers with regular expressions that were used last: compiling one takes longer than most of
// what it then matches. Its methods may be called in parallel; a nil cache keeps nothing.
type MatcherCache struct {
	size                    int
	requests, hits, evicted prometheus.Counter
	items                   prometheus.Gauge

	mu    sync.Mutex
	order *list.List // of *labels.Matcher, the one used last in front
	byKey map[matcherKey]*list.Element
}

type matcherKey struct {
	typ         labels.MatchType
	name, value string
}

// NewMatcherCache makes a cache of so many matchers; 0 keeps none.
func NewMatcherCache(size int, reg prometheus.Registerer) *MatcherCache {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "thanos_matchers_cache_" + name, Help: help})
	}
	c := &MatcherCache{
		size: max(size, 0), order: list.New(), byKey: map[matcherKey]*list.Element{},
		requests: counter("requests_total", "Matchers with a regular expression that were asked for."),
		hits:     counter("hits_total", "Matchers that were compiled already."),
		evicted:  counter("evicted_total", "Matchers that made room for others."),
		items:    f.NewGauge(prometheus.GaugeOpts{Name: "thanos_matchers_cache_items", Help: "Matchers that are kept."}),
	}
	f.NewGauge(prometheus.GaugeOpts{Name: "thanos_matchers_cache_max_items", Help: "Matchers that are kept at most."}).Set(float64(c.size))
	return c
}

// compile returns a matcher, which must not be changed.
func (c *MatcherCache) compile(t labels.MatchType, name, value string) (*labels.Matcher, error) {
	if c == nil || c.size == 0 || t == labels.MatchEqual || t == labels.MatchNotEqual || len(name)+len(value) > keptBytesMax {
		return labels.NewMatcher(t, name, value)
	}
	c.requests.Inc()
	key := matcherKey{t, name, value}
	c.mu.Lock()
	e := c.byKey[key]
	if e != nil {
		c.order.MoveToFront(e)
	}
	c.mu.Unlock()
	if e != nil {
		c.hits.Inc()
		return e.Value.(*labels.Matcher), nil
	}
	// The message that the texts may be part of is not kept.
	key.name, key.value = strings.Clone(name), strings.Clone(value)
	m, err := labels.NewMatcher(t, key.name, key.value)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[key] != nil {
		return m, nil // somebody was faster
	}
	c.byKey[key] = c.order.PushFront(m)
	if c.order.Len() > c.size {
		last := c.order.Remove(c.order.Back()).(*labels.Matcher)
		delete(c.byKey, matcherKey{last.Type, last.Name, last.Value})
		c.evicted.Inc()
	}
	c.items.Set(float64(c.order.Len()))
	return m, nil
}
