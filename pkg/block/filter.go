package block

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/thanos-io/objstore"
	"go.yaml.in/yaml/v2"
	"golang.org/x/sync/errgroup"
)

// IDLabel is the label by which requests and relabelling know a block.
const IDLabel = "__block_id"

// drop is a Filter that looks at one block at a time.
type drop struct {
	state State
	is    func(*Meta) bool
}

func (d drop) Filter(_ context.Context, metas map[ulid.ULID]*Meta, excluded func(ulid.ULID, State)) error {
	for id, m := range metas {
		if d.is(m) {
			delete(metas, id)
			excluded(id, d.state)
		}
	}
	return nil
}

// TimePartition keeps blocks that hold anything between two times in ms, which are asked for at each look because they
// may move with the clock.
func TimePartition(mint, maxt func() int64) Filter {
	return drop{StateTimeExcluded, func(m *Meta) bool { return m.MaxTime < mint() || m.MinTime > maxt() }}
}

// LabelShard keeps blocks whose external labels, with the block's id as __block_id, pass the relabelling.
func LabelShard(cfgs []*relabel.Config) Filter {
	return drop{StateLabelExcluded, func(m *Meta) bool {
		if len(cfgs) == 0 {
			return false
		}
		b := labels.NewBuilder(m.Labels())
		b.Set(IDLabel, m.ULID.String())
		return !relabel.ProcessBuilder(b, cfgs...) || b.Labels().IsEmpty()
	}}
}

// ParseSelector reads the relabelling that selects blocks. Only the actions keep, drop and hashmod are admitted: a
// selection does not change labels.
func ParseSelector(content []byte) ([]*relabel.Config, error) {
	var cfgs []*relabel.Config
	if err := yaml.Unmarshal(content, &cfgs); err != nil {
		return nil, fmt.Errorf("parse selector relabel config: %w", err)
	}
	for i, c := range cfgs {
		if c == nil {
			return nil, fmt.Errorf("selector relabel config: entry %d is empty", i+1)
		}
		switch c.Action {
		case relabel.Keep, relabel.Drop, relabel.HashMod:
		default:
			return nil, fmt.Errorf("selector relabel config: entry %d has action %q, use keep, drop or hashmod", i+1, c.Action)
		}
		if err := c.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("selector relabel config: entry %d: %w", i+1, err)
		}
	}
	return cfgs, nil
}

// ConsistencyDelay hides blocks that were uploaded less than delay ago, except those of the compactor and of repairs,
// which replace what is there already. now nil is time.Now.
func ConsistencyDelay(delay time.Duration, now func() time.Time) Filter {
	if now == nil {
		now = time.Now
	}
	return drop{StateTooFresh, func(m *Meta) bool {
		switch m.Thanos.Source {
		case SourceBucketRepair, SourceCompactor, SourceCompactorRepair:
			return false
		}
		since := m.Thanos.UploadTime
		if since.IsZero() {
			since = ulid.Time(m.ULID.Time())
		}
		return now().Sub(since) < delay
	}}
}

// DeletionMarks hides blocks that were marked for deletion more than a delay ago. The delay gives whatever replaces
// them time to be found by everyone.
type DeletionMarks struct {
	bkt         objstore.BucketReader
	delay       time.Duration
	concurrency int
	logger      log.Logger
	now         func() time.Time

	mu    sync.Mutex
	marks map[ulid.ULID]*DeletionMark
}

// NewDeletionMarks makes a DeletionMarks that reads concurrency marks at a time.
func NewDeletionMarks(bkt objstore.BucketReader, delay time.Duration, concurrency int, logger log.Logger) *DeletionMarks {
	return &DeletionMarks{bkt: bkt, delay: delay, concurrency: max(concurrency, 1), logger: logger, now: time.Now}
}

// Filter implements Filter. A mark that can't be read now counts as it did before; one that is malformed counts as
// none.
func (f *DeletionMarks) Filter(ctx context.Context, metas map[ulid.ULID]*Meta, excluded func(ulid.ULID, State)) error {
	before := f.Marks()
	marks := map[ulid.ULID]*DeletionMark{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(f.concurrency)
	for id := range metas {
		g.Go(func() error {
			m, err := ReadDeletionMark(ctx, f.bkt, id)
			if err != nil {
				level.Warn(f.logger).Log("msg", "deletion mark could not be read, the block counts as it did before", "block", id, "err", err)
				if m = before[id]; errors.Is(err, ErrMarkUndecodable) {
					m = nil
				}
			}
			if m != nil {
				mu.Lock()
				marks[id] = m
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f.mu.Lock()
	f.marks = marks
	f.mu.Unlock()
	for id, m := range marks {
		if f.now().Sub(time.Unix(m.DeletionTime, 0)) > f.delay {
			delete(metas, id)
			excluded(id, StateMarkedForDeletion)
		}
	}
	return nil
}

// Marks returns the marks found at the last look, those within the delay too. The map must not be changed.
func (f *DeletionMarks) Marks() map[ulid.ULID]*DeletionMark {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.marks
}

// Duplicates hides blocks whose data is in another block of the same external labels and resolution: those whose
// sources are a subset of another block's. Of equals the older one stays.
func Duplicates() Filter { return duplicates{} }

type duplicates struct{}

func (duplicates) Filter(_ context.Context, metas map[ulid.ULID]*Meta, excluded func(ulid.ULID, State)) error {
	type group struct {
		labels     string
		resolution int64
	}
	groups := map[group][]*Meta{}
	for _, m := range metas {
		g := group{m.Labels().String(), m.Resolution()}
		groups[g] = append(groups[g], m)
	}
	for _, ms := range groups {
		for _, m := range findDuplicates(ms) {
			delete(metas, m.ULID)
			excluded(m.ULID, StateDuplicate)
		}
	}
	return nil
}

// findDuplicates returns the blocks of a group that another one covers. Blocks are taken from the most sources to the
// fewest, so only those that stayed before can cover one; and whoever covers it has its first source.
func findDuplicates(ms []*Meta) (dups []*Meta) {
	slices.SortFunc(ms, func(a, b *Meta) int {
		if d := len(b.Compaction.Sources) - len(a.Compaction.Sources); d != 0 {
			return d
		}
		return a.ULID.Compare(b.ULID)
	})
	bySource := map[ulid.ULID][]map[ulid.ULID]bool{}
	for _, m := range ms {
		sources := m.Compaction.Sources
		if len(sources) == 0 {
			// A block that names no sources is its own.
			sources = []ulid.ULID{m.ULID}
		}
		covered := slices.ContainsFunc(bySource[sources[0]], func(set map[ulid.ULID]bool) bool {
			return !slices.ContainsFunc(sources, func(s ulid.ULID) bool { return !set[s] })
		})
		if covered {
			dups = append(dups, m)
			continue
		}
		set := make(map[ulid.ULID]bool, len(sources))
		for _, s := range sources {
			set[s] = true
		}
		for s := range set {
			bySource[s] = append(bySource[s], set)
		}
	}
	return dups
}
