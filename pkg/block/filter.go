package block

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v2"
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
