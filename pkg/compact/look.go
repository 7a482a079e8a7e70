package compact

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// eyes look at the bucket and remember what this process did to it since.
type eyes struct {
	fetcher      *block.Fetcher
	deletions    *block.DeletionMarks
	noCompact    *block.NoCompactMarks
	noDownsample *block.NoDownsampleMarks
	replicas     *replicaLabels
	garbage      *garbage
	now          func() time.Time

	mu      sync.Mutex
	blocks  []*Block
	view    block.View
	looked  time.Time
	err     error // of the last look
	looking sync.Mutex
	// done are the results of steps, by the time they ended: a look that began before may not have seen them.
	done []result
}

// result is what a step changed.
type result struct {
	at      time.Time
	made    *Block
	removed []ulid.ULID
	marked  map[ulid.ULID]func(*Block)
}

func newEyes(bkt objstore.BucketReader, cfg *Config, logger log.Logger, reg prometheus.Registerer) (*eyes, error) {
	e := &eyes{
		deletions:    block.NewDeletionMarks(bkt, cfg.DeleteDelay/2, max(cfg.MetaFetchConcurrency, 1), logger),
		noCompact:    block.NewNoCompactMarks(bkt, max(cfg.MetaFetchConcurrency, 1), logger),
		noDownsample: block.NewNoDownsampleMarks(bkt, max(cfg.MetaFetchConcurrency, 1), logger),
		replicas:     &replicaLabels{names: cfg.ReplicaLabels},
		garbage:      &garbage{},
		now:          cfg.Now,
	}
	filters := []block.Filter{e.replicas, block.TimePartition(cfg.MinTime, cfg.MaxTime), block.LabelShard(cfg.Selector)}
	if cfg.ConsistencyDelay > 0 { // without one, a clock that is ahead elsewhere hides nothing
		filters = append(filters, block.ConsistencyDelay(cfg.ConsistencyDelay, cfg.Now))
	}
	var err error
	e.fetcher, err = block.NewFetcher(bkt, block.FetcherConfig{
		Discovery: cfg.Discovery, Concurrency: cfg.MetaFetchConcurrency, CacheDir: cfg.DataDir + "/meta-syncer",
		Filters: append(filters, e.deletions, e.noCompact, e.noDownsample, e.garbage),
	}, logger, reg)
	return e, err
}

// replicaLabels is a Filter that takes the labels off metadata that tell replicas apart, and remembers which replica a
// block is of. A block of which no label is left gets the first of them, with a value of its own.
type replicaLabels struct {
	names []string
	of    map[ulid.ULID]string
}

// Filter implements block.Filter.
func (f *replicaLabels) Filter(_ context.Context, metas map[ulid.ULID]*block.Meta, _ func(ulid.ULID, block.State)) error {
	f.of = map[ulid.ULID]string{}
	for id, m := range metas {
		replica := map[string]string{}
		for _, n := range f.names {
			if v, ok := m.Thanos.Labels[n]; ok {
				replica[n] = v
			}
		}
		if len(replica) == 0 {
			continue
		}
		c := m.Clone()
		for n := range replica {
			delete(c.Thanos.Labels, n)
		}
		if len(c.Thanos.Labels) == 0 {
			c.Thanos.Labels[f.names[0]] = "deduped"
		}
		metas[id] = c
		f.of[id] = labels.FromMap(replica).String()
	}
	return nil
}

// garbage is a Filter that counts the blocks whose data is in another one. They are planned away, so it keeps them.
type garbage struct{ metas map[ulid.ULID]*block.Meta }

// Filter implements block.Filter.
func (f *garbage) Filter(_ context.Context, metas map[ulid.ULID]*block.Meta, excluded func(ulid.ULID, block.State)) error {
	f.metas = map[ulid.ULID]*block.Meta{}
	blocks := make([]*Block, 0, len(metas))
	for _, m := range metas {
		blocks = append(blocks, &Block{Meta: m})
	}
	for _, fam := range families(blocks) {
		for _, g := range fam {
			for id := range duplicates(g.Blocks) {
				f.metas[id] = metas[id]
				delete(metas, id)
				excluded(id, block.StateDuplicate)
			}
		}
	}
	return nil
}

// setAsideDetails begins the details of the marks of a block that is set aside.
const setAsideDetails = "set aside by koios: "

// look reads what has changed in the bucket.
func (e *eyes) look(ctx context.Context) error {
	e.looking.Lock()
	defer e.looking.Unlock()
	began := e.now()
	v, err := e.fetcher.Fetch(ctx)
	e.mu.Lock()
	e.err = err
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("look at the bucket: %w", err)
	}
	deletions, noCompact, noDownsample := e.deletions.Marks(), e.noCompact.Marks(), e.noDownsample.Marks()
	blocks := make([]*Block, 0, len(v.Metas))
	maps.Copy(v.Metas, e.garbage.metas)
	for id, m := range v.Metas {
		b := &Block{Meta: m, Replica: e.replicas.of[id], Deleting: deletions[id] != nil}
		// Either mark may have been there before, with other details.
		if nc := noCompact[id]; nc != nil {
			b.NoCompact = true
			b.SetAside = strings.HasPrefix(nc.Details, setAsideDetails)
		}
		if nd := noDownsample[id]; nd != nil {
			b.NoDownsample = true
			b.SetAside = b.SetAside || strings.HasPrefix(nd.Details, setAsideDetails)
		}
		blocks = append(blocks, b)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var later []result
	for _, r := range e.done {
		if !r.at.Before(began) {
			later = append(later, r)
			blocks = r.applyTo(blocks)
		}
	}
	e.blocks, e.view, e.looked, e.done = blocks, v, began, later
	return nil
}

// applyTo returns the blocks as they are after a result. Blocks are replaced, not changed.
func (r result) applyTo(blocks []*Block) []*Block {
	out := make([]*Block, 0, len(blocks)+1)
	gone := map[ulid.ULID]bool{}
	for _, id := range r.removed {
		gone[id] = true
	}
	for _, b := range blocks {
		id := b.Meta.ULID
		if r.made != nil && id == r.made.Meta.ULID {
			continue
		}
		mark := r.marked[id]
		if gone[id] || mark != nil {
			c := *b
			b = &c
			b.Deleting = b.Deleting || gone[id]
			if mark != nil {
				mark(b)
			}
		}
		out = append(out, b)
	}
	if r.made != nil {
		out = append(out, r.made)
	}
	return out
}

// note remembers what a step changed.
func (e *eyes) note(r result) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r.at = e.now()
	e.done = append(e.done, r)
	e.blocks = r.applyTo(e.blocks)
}

// seen returns the blocks as they are known, and when they were looked at. The blocks are shared.
func (e *eyes) seen() ([]*Block, block.View, time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.blocks, e.view, e.looked
}

// lastError is the error of the last look, nil if that went well.
func (e *eyes) lastError() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}
