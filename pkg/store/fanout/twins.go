package fanout

import (
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/store"
)

// Two Stores whose labels differ in replica labels alone may be a pair of Prometheus servers with the same
// targets. Or they may be two halves: shards of Prometheus Operator and receivers of a hashring look the
// same. So a pair is believed only once its answers have been seen to consist of the same series.

// twinShare is the share of equal series from which on two Stores are replicas.
const twinShare = 0.9

// pairsMax bounds the pairs that are remembered: more than a querier has.
const pairsMax = 4096

// pair is two parts that look like replicas.
type pair struct{ a, b *part }

// pairKey names a pair by its label sets, which outlive addresses: the smaller hash first.
type pairKey [2]uint64

// twinKey returns the key of two label sets that differ, and in replica labels alone.
func twinKey(a, b *store.Description, without []string) (pairKey, bool) {
	if len(a.LabelSets) != 1 || len(b.LabelSets) != 1 || a.OnlyBlocks || b.OnlyBlocks {
		return pairKey{}, false
	}
	x, y := a.LabelSets[0], b.LabelSets[0]
	if labels.Equal(x, y) || !labels.Equal(store.Without(x, without), store.Without(y, without)) {
		return pairKey{}, false
	}
	k := pairKey{x.Hash(), y.Hash()}
	if k[0] > k[1] {
		k[0], k[1] = k[1], k[0]
	}
	return k, true
}

// twins remembers which pairs have been seen with the same series. Its methods may be called in parallel.
type twins struct {
	mu   sync.Mutex
	seen map[pairKey]*alike
}

// alike counts series, older ones less.
type alike struct{ shared, all float64 }

// note takes in an answer of a pair.
func (t *twins) note(k pairKey, shared, all int) {
	if all == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.seen) >= pairsMax {
		clear(t.seen)
	}
	s := t.seen[k]
	if s == nil {
		s = &alike{}
		t.seen[k] = s
	}
	const enough = 16 * sketchMax
	if s.all > enough {
		s.shared, s.all = s.shared/2, s.all/2
	}
	s.shared, s.all = s.shared+float64(shared), s.all+float64(all)
}

// proven tells whether a pair are replicas.
func (t *twins) proven(k pairKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.seen[k]
	return s != nil && s.shared >= twinShare*s.all
}

// pairs finds the parts that look like replicas, and has their series noted.
func (r *run) pairs() (all []pair) {
	if len(r.req.WithoutReplicaLabels) == 0 {
		return nil
	}
	for i, a := range r.parts {
		for _, b := range r.parts[i+1:] {
			if _, ok := twinKey(&a.target.desc, &b.target.desc, r.req.WithoutReplicaLabels); !ok || a.target.rest || b.target.rest {
				continue
			}
			for _, p := range []*part{a, b} {
				if p.sketch == nil {
					p.sketch = &sketch{}
				}
			}
			all = append(all, pair{a, b})
		}
	}
	return all
}

// learn compares the pairs that have answered to their ends.
func (r *run) learn() {
	for _, p := range r.twins {
		if !p.a.complete || !p.b.complete || p.a.lost != nil || p.b.lost != nil {
			continue
		}
		if k, ok := twinKey(&p.a.target.desc, &p.b.target.desc, r.req.WithoutReplicaLabels); ok {
			shared, all := p.a.sketch.compare(p.b.sketch)
			r.of.twins.note(k, shared, all)
		}
	}
}

// twin returns a replica of the target that has answered and reaches over all of the target's time.
func (j *jury) twin(t *target) *target {
	mint, maxt := max(j.q.minTime, t.desc.MinTime), min(j.q.maxTime, t.desc.MaxTime)
	for _, o := range j.heard {
		if o.desc.MinTime > mint || o.desc.MaxTime < maxt {
			continue
		}
		if k, ok := twinKey(&t.desc, &o.desc, j.without); ok && j.of.twins.proven(k) {
			return o
		}
	}
	return nil
}

// sketchMax is how many series a sketch keeps.
const sketchMax = 64

// sketch keeps a sample of the series that went by: those with the smallest hashes. Samples of the same
// series are the same, so two of them tell how much their wholes have in common.
type sketch struct {
	hashes []uint64 // sorted, unique
}

func (s *sketch) add(ls labels.Labels) {
	h := ls.Hash()
	n := len(s.hashes)
	if n == sketchMax && h >= s.hashes[n-1] {
		return
	}
	i, found := slices.BinarySearch(s.hashes, h)
	if found {
		return
	}
	if n == sketchMax {
		s.hashes = s.hashes[:n-1]
	}
	s.hashes = slices.Insert(s.hashes, i, h)
}

// compare returns how many series of a sample of both are in both, and how many the sample has.
func (s *sketch) compare(o *sketch) (shared, all int) {
	i, j := 0, 0
	for all < sketchMax && (i < len(s.hashes) || j < len(o.hashes)) {
		switch {
		case j == len(o.hashes) || i < len(s.hashes) && s.hashes[i] < o.hashes[j]:
			i++
		case i == len(s.hashes) || o.hashes[j] < s.hashes[i]:
			j++
		default:
			i, j, shared = i+1, j+1, shared+1
		}
		all++
	}
	return shared, all
}
