package compact

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

const hour = int64(time.Hour / time.Millisecond)

// ranges are the lengths in ms that blocks grow through. The first one is what a block may be cut from.
var ranges = []int64{1 * hour, 2 * hour, 8 * hour, 2 * 24 * hour, 14 * 24 * hour}

// MaxLevel is the largest value of Settings.Level.
const MaxLevel = 4

const (
	// How old data is when it is downsampled to five minutes, and to an hour, in ms. A block that is this long is
	// downsampled at once.
	downsampleAfter5m = 40 * hour
	downsampleAfter1h = 10 * 24 * hour
	// A window of time is closed so long after its end, in ms, also if no newer block was seen. A block that comes
	// later still is merged with its peers later.
	quietAfter = 8 * hour
	// A block with more tombstones than this part of its series is rewritten.
	tombstonesPart = 0.05
	// The part of IndexBytesMax that the indexes of the blocks of one merge may have together.
	indexBytesPart = 0.85
	// The default of Settings.InputsMax. A day of two-hour blocks of two replicas is 24.
	defaultInputsMax = 64
)

// Settings are what Plan goes by. The zero value keeps everything forever, and merges overlaps of one source only.
type Settings struct {
	// Level is the largest level that blocks are merged to: 4 is 14 days, 3 is 2 days, 2 is 8 hours, 1 is 2 hours,
	// 0 merges overlaps only.
	Level int
	// Vertical merges blocks that overlap in time. Without it, such blocks are left as they are, unless one of them
	// holds nothing of its own.
	Vertical bool
	// Downsample makes blocks of 5m and 1h.
	Downsample bool
	// Retention is how long the data of each resolution (in ms) is kept; 0 is forever.
	Retention map[int64]time.Duration
	// IndexBytesMax is the largest size an index may have; 0 is no limit. The biggest block of a merge that could get
	// past it is marked against compaction.
	IndexBytesMax int64
	// InputsMax bounds the blocks of one merge; 0 is 64.
	InputsMax int
}

// Block is what Plan knows of a block.
type Block struct {
	// Meta is the metadata, its labels without those that tell replicas apart.
	Meta *block.Meta
	// Replica is what was taken off the labels.
	Replica string
	// Deleting says that the block is marked for deletion. It takes no part in anything.
	Deleting bool
	// NoCompact and NoDownsample are the block's marks.
	NoCompact, NoDownsample bool
	// SetAside says that the block can't be read. It is not worked on, and nothing is deleted because of it.
	SetAside bool
	// IndexBytes is the size of the index; 0 is what the metadata states.
	IndexBytes int64

	// What Plan notes on its own copy of the block.
	ids  []ulid.ULID // the sources, in order, each once
	held bool        // past its retention and still needed: merged no more
	out  bool        // no merge may have it
	used bool        // in a run
}

func (b *Block) indexBytes() int64 {
	if b.IndexBytes > 0 {
		return b.IndexBytes
	}
	return b.Meta.FileSize(block.IndexFilename)
}

// length is the time the block spans, in ms.
func (b *Block) length() int64 { return b.Meta.MaxTime - b.Meta.MinTime }

// sources are the blocks that this one was made of, itself if it names none.
func (b *Block) sources() []ulid.ULID {
	if s := b.Meta.Compaction.Sources; len(s) > 0 {
		return s
	}
	return []ulid.ULID{b.Meta.ULID}
}

// Kind is what a step does.
type Kind string

// The kinds of steps, in the order in which a plan lists them.
const (
	// KindExpire marks a block for deletion that is past its retention.
	KindExpire Kind = "expire"
	// KindCollect marks a block for deletion whose data is in Cover.
	KindCollect Kind = "collect"
	// KindNoCompact marks a block against compaction, for the size of its index.
	KindNoCompact Kind = "no-compact"
	// KindMerge makes one block of Inputs and marks these for deletion.
	KindMerge Kind = "merge"
	// KindDownsample makes a block of the next resolution.
	KindDownsample Kind = "downsample"
)

// Step is a small piece of work. Carrying it out twice does no harm.
type Step struct {
	Kind Kind `json:"kind"`
	// Group is the key of the group that the inputs are of.
	Group string `json:"group"`
	// Resolution is that of the inputs in ms.
	Resolution int64 `json:"resolution"`
	// Inputs are the blocks it is about: several for a merge, one for everything else.
	Inputs []ulid.ULID `json:"inputs"`
	// Cover is the block that holds the data of the input, for KindCollect.
	Cover ulid.ULID `json:"cover,omitzero"`
	// Successors are the blocks that hold the data of the input at the coarser resolution that must have it, for
	// KindExpire. There are none where no retention asks for one.
	Successors []ulid.ULID `json:"successors,omitempty"`
	// Vertical says that inputs overlap in time.
	Vertical bool `json:"vertical,omitempty"`
	// Reason says why, for people.
	Reason string `json:"reason"`
}

// Key is what a failure of the step is kept under: the group for a merge, because it is the group that waits then, and
// the block for everything else.
func (s Step) Key() string {
	if s.Kind == KindMerge {
		return s.Group
	}
	return string(s.Kind) + " " + s.Inputs[0].String()
}

// Target is the resolution in ms of what the step makes.
func (s Step) Target() int64 {
	if s.Kind == KindDownsample {
		return coarser(s.Resolution)
	}
	return s.Resolution
}

// Group is a set of blocks that may be merged with each other: those of equal external labels and resolution.
type Group struct {
	Key        string
	Labels     map[string]string
	Resolution int64
	// Blocks are copies, sorted by time; those marked for deletion are left out.
	Blocks []*Block
	// LeftOut are the blocks that are left as they are, with the reason.
	LeftOut map[ulid.ULID]string
	// Stuck is why a person should look at the group; "" is that nobody needs to.
	Stuck string
}

// Planned is what Plan decided.
type Planned struct {
	// Steps are sorted by kind. No two of them that make or delete something have an input in common.
	Steps []Step
	// Groups are sorted by key.
	Groups []*Group
}

// GroupKey names a group: its resolution and labels.
func GroupKey(resolution int64, labels map[string]string) string {
	return string(appendGroupKey(nil, resolution, labels, nil))
}

// appendGroupKey appends the name of a group. names is room for the names of labels.
func appendGroupKey(b []byte, resolution int64, labels map[string]string, names []string) []byte {
	b = append(append(b, resolutionName(resolution)...), '{')
	for name := range labels {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(append(append(b, name...), '='), labels[name])
	}
	return append(b, '}')
}

func resolutionName(resolution int64) string {
	switch resolution {
	case block.ResolutionRaw:
		return "raw"
	case block.Resolution5m:
		return "5m"
	case block.Resolution1h:
		return "1h"
	}
	return (time.Duration(resolution) * time.Millisecond).String()
}

// coarser is the resolution that data of this one is downsampled to; 0 is none.
func coarser(resolution int64) int64 {
	switch resolution {
	case block.ResolutionRaw:
		return block.Resolution5m
	case block.Resolution5m:
		return block.Resolution1h
	}
	return 0
}

// Plan decides what is to be done with the blocks of a bucket at a time. It changes nothing, and the same arguments give
// the same plan. Groups that wait after a failure are left out of merges, so that their blocks are downsampled as they
// are; waiting may be nil.
func Plan(blocks []*Block, s Settings, now time.Time, waiting func(group string) bool) Planned {
	if s.InputsMax <= 1 {
		s.InputsMax = defaultInputsMax
	}
	p := &planner{settings: s, now: now.UnixMilli(), waiting: waiting}
	for _, f := range families(blocks) {
		p.family(f)
	}
	slices.SortFunc(p.groups, func(a, b *Group) int { return cmp.Compare(a.Key, b.Key) })
	order := []Kind{KindExpire, KindCollect, KindNoCompact, KindMerge, KindDownsample}
	slices.SortStableFunc(p.steps, func(a, b Step) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(a.Group, b.Group))
	})
	return Planned{Steps: p.steps, Groups: p.groups}
}

type planner struct {
	settings Settings
	now      int64
	waiting  func(string) bool
	steps    []Step
	groups   []*Group
}

// family are the groups of equal labels, by resolution. What is deleted in one depends on what there is in the others.
type family map[int64]*Group

// families sorts copies of blocks into groups, leaving out those on their way out.
func families(blocks []*Block) []family {
	byLabels := map[string]family{}
	copies := make([]Block, len(blocks))
	var key []byte
	var names [16]string
	for i, b := range blocks {
		if b.Deleting {
			continue
		}
		ls, res := b.Meta.Thanos.Labels, b.Meta.Resolution()
		key = appendGroupKey(key[:0], block.ResolutionRaw, ls, names[:0])
		f := byLabels[string(key)]
		if f == nil {
			f = family{}
			byLabels[string(key)] = f
		}
		g := f[res]
		if g == nil {
			g = &Group{Key: GroupKey(res, ls), Labels: ls, Resolution: res, LeftOut: map[ulid.ULID]string{}}
			f[res] = g
		}
		copies[i] = *b
		copies[i].ids = sortedSources(b)
		g.Blocks = append(g.Blocks, &copies[i])
	}
	fs := make([]family, 0, len(byLabels))
	for _, key := range slices.Sorted(maps.Keys(byLabels)) {
		f := byLabels[key]
		for _, g := range f {
			slices.SortFunc(g.Blocks, byTime)
		}
		fs = append(fs, f)
	}
	return fs
}

func byTime(a, b *Block) int {
	return cmp.Or(cmp.Compare(a.Meta.MinTime, b.Meta.MinTime), cmp.Compare(a.Meta.MaxTime, b.Meta.MaxTime), a.Meta.ULID.Compare(b.Meta.ULID))
}

// family plans the groups of one set of labels: from the coarsest resolution to the finest, because the finer ones may
// go only if the coarser ones stay.
func (p *planner) family(f family) {
	stays := map[int64]*holdings{} // what is there after this plan, by resolution
	for _, res := range slices.Backward(slices.Sorted(maps.Keys(f))) {
		g := f[res]
		p.groups = append(p.groups, g)
		live := p.expire(g, p.collect(g), stays)
		stays[res] = newHoldings(live)
		if p.waiting == nil || !p.waiting(g.Key) {
			p.merge(g, live)
		}
		p.downsample(g, live, stays)
	}
}

func (p *planner) step(g *Group, kind Kind, reason string, inputs ...*Block) *Step {
	ids := make([]ulid.ULID, len(inputs))
	for i, b := range inputs {
		ids[i] = b.Meta.ULID
	}
	p.steps = append(p.steps, Step{Kind: kind, Group: g.Key, Resolution: g.Resolution, Inputs: ids, Reason: reason})
	return &p.steps[len(p.steps)-1]
}
