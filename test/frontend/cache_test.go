package frontend

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/koios-metrics/koios/pkg/cache"
)

// mood is what is wrong with a cache.
type mood int

const (
	well      mood = iota
	forgets        // some entries are gone
	garbles        // some entries are cut off, or of another version
	dead           // it has nothing and takes nothing
	deaf           // it takes nothing, so that entries grow old
	lagging        // some entries are as they were before they were written the last time
	late           // what is written comes into it later, in any order
	sluggish       // it takes a second
	restarted      // it was empty a moment ago
	moods
)

// moody is a cache with moods.
type moody struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	inner   cache.Cache // nil: entries keeps them
	entries map[string][]byte
	before  map[string][]byte
	written []cache.Entry // and not there yet
	mood    mood
	hits    int
}

func newMoody(seed uint64) *moody {
	return &moody{entries: map[string][]byte{}, before: map[string][]byte{}, rnd: rand.New(rand.NewPCG(seed, 2))}
}

func (m *moody) is(now mood) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mood = now
	m.rnd.Shuffle(len(m.written), func(i, j int) { m.written[i], m.written[j] = m.written[j], m.written[i] })
	for _, e := range m.written {
		m.keepLocked(e)
	}
	m.written = nil
	if now == restarted {
		clear(m.entries)
		clear(m.before)
	}
}

func (m *moody) found() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hits
}

func (m *moody) Fetch(ctx context.Context, keys []string) [][]byte {
	m.mu.Lock()
	if m.mood == sluggish {
		m.mu.Unlock()
		time.Sleep(time.Second)
		m.mu.Lock()
	}
	defer m.mu.Unlock()
	out := make([][]byte, len(keys))
	if m.mood == dead {
		return out
	}
	if m.inner != nil {
		out = m.inner.Fetch(ctx, keys)
	} else {
		for i, k := range keys {
			out[i] = m.entries[k]
		}
	}
	for i, k := range keys {
		if out[i] == nil {
			continue
		}
		m.hits++
		if m.rnd.IntN(2) == 0 {
			continue
		}
		switch m.mood {
		case forgets:
			out[i] = nil
		case garbles:
			if out[i] = slices.Clone(out[i]); m.rnd.IntN(3) == 0 {
				out[i][0]++
			} else {
				out[i] = out[i][:m.rnd.IntN(len(out[i]))]
			}
		case lagging:
			if old := m.before[k]; old != nil {
				out[i] = old
			}
		}
	}
	return out
}

func (m *moody) Store(es ...cache.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range es {
		switch {
		case m.mood == dead || m.mood == deaf || m.mood == forgets && m.rnd.IntN(2) == 0:
		case m.mood == late:
			m.written = append(m.written, e)
		default:
			m.keepLocked(e)
		}
	}
}

func (m *moody) keepLocked(e cache.Entry) {
	if m.inner != nil {
		m.inner.Store(e)
		return
	}
	if old := m.entries[e.Key]; old != nil {
		m.before[e.Key] = old
	}
	m.entries[e.Key] = e.Value
}

func (m *moody) Close() error { return nil }
