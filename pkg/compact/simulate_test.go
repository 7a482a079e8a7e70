package compact

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// simulation is a bucket on paper that lives for some months, with outages of everything.
type simulation struct {
	rnd    *rand.Rand
	set    Settings
	now    int64
	nextID int
	blocks []*Block
	// uploads are the blocks that were ever made by writers; their ids tell their place in sources.
	uploads []*block.Meta
	sources []simulatedSource
	// late are blocks that wait for the end of an uploader's outage.
	late []*Block
	// stale are steps of plans that are carried out later, when the bucket is not what it was.
	stale []Step
	done  map[Kind]int
}

// simulatedSource is what there is of an uploaded block.
type simulatedSource struct {
	// best is the finest resolution, as an index of resolutions, at which a readable block has its samples.
	best int
	// lost are the resolutions at which it was lost to damage, or to the settings of its time.
	lost [3]bool
}

var resolutions = []int64{block.ResolutionRaw, block.Resolution5m, block.Resolution1h}

func newSimulation(seed uint64) *simulation {
	s := &simulation{rnd: rand.New(rand.NewPCG(seed, 5)), done: map[Kind]int{}}
	s.choose()
	return s
}

// choose chooses the settings.
func (s *simulation) choose() {
	pick := func(ds ...int) time.Duration { return time.Duration(ds[s.rnd.IntN(len(ds))]) * 24 * time.Hour }
	s.set = Settings{
		Level: 1 + s.rnd.IntN(4), Vertical: s.rnd.IntN(2) == 0, Downsample: s.rnd.IntN(5) > 0,
		Retention: map[int64]time.Duration{
			block.ResolutionRaw: pick(0, 2, 3, 7, 30, 60), block.Resolution5m: pick(0, 10, 20, 40, 90), block.Resolution1h: pick(0, 5, 30, 60, 100),
		},
	}
	if s.rnd.IntN(4) == 0 {
		s.set.InputsMax = 2 + s.rnd.IntN(5)
	}
}

func (s *simulation) id() ulid.ULID {
	s.nextID++
	return testID(s.nextID)
}

// upload adds the blocks of two hours of each writer; some writers stop for days and then upload what they kept.
func (s *simulation) upload(writers int, outage []int64) {
	for w := range writers {
		if s.rnd.IntN(200) == 0 {
			outage[w] = s.now + int64(s.rnd.IntN(80))*hour
		}
		m := &block.Meta{}
		m.ULID, m.MinTime, m.MaxTime = s.id(), s.now-2*hour, s.now
		m.Compaction.Level, m.Compaction.Sources = 1, []ulid.ULID{m.ULID}
		// Writers 1 and 2 are replicas of which the label was removed, or a mistake.
		m.Thanos.Labels = map[string]string{"writer": strconv.Itoa(w / 2)}
		b := &Block{Meta: m}
		s.uploads = append(s.uploads, m)
		for len(s.sources) <= s.nextID {
			s.sources = append(s.sources, simulatedSource{})
		}
		if s.now < outage[w] {
			s.late = append(s.late, b)
			continue
		}
		s.blocks = append(s.blocks, b)
		s.late = slices.DeleteFunc(s.late, func(l *Block) bool {
			mine := l.Meta.Thanos.Labels["writer"] == strconv.Itoa(w/2)
			if mine {
				s.blocks = append(s.blocks, l)
			}
			return mine
		})
	}
}

// compact plans, and carries out what was planned now, and what was planned before and is late. Steps fail at random,
// and may have marked nothing, or only some of their inputs.
func (s *simulation) compact(failures int) {
	p := Plan(s.blocks, s.set, time.UnixMilli(s.now), func(string) bool { return s.rnd.IntN(100) < failures/2 })
	steps, later := s.stale, []Step(nil)
	for _, st := range p.Steps {
		switch at := s.rnd.IntN(100); {
		case at >= failures:
			steps = append(steps, st)
		case at%4 == 0:
			later = append(later, st)
		}
	}
	s.stale = later
	s.carryOut(steps, failures)
}

// carryOut does what the Compactor does: a step whose inputs are gone is abandoned, and so is one that rests on blocks
// that are gone or set aside. Two compactors may do the same at once: then each makes an output.
func (s *simulation) carryOut(steps []Step, failures int) {
	there := map[ulid.ULID]*Block{}
	for _, b := range s.blocks {
		there[b.Meta.ULID] = b
	}
	gone := map[ulid.ULID]bool{}
	reliable := func(id ulid.ULID) bool { return there[id] != nil && !gone[id] && !there[id].SetAside }
	for _, st := range steps {
		if slices.ContainsFunc(st.Inputs, func(id ulid.ULID) bool { return there[id] == nil || gone[id] }) {
			continue
		}
		if st.Kind == KindCollect && !reliable(st.Cover) || slices.ContainsFunc(st.Successors, func(id ulid.ULID) bool { return !reliable(id) }) {
			continue
		}
		s.done[st.Kind]++
		inputs := make([]*Block, len(st.Inputs))
		for i, id := range st.Inputs {
			inputs[i] = there[id]
		}
		twice := s.rnd.IntN(400) < failures
		for n := 1; n == 1 || n == 2 && twice; n++ {
			for _, b := range outcomes(st, inputs, s.id()) {
				there[b.Meta.ULID] = b
			}
		}
		if st.Kind != KindNoCompact && st.Kind != KindDownsample {
			crashed := st.Kind == KindMerge && s.rnd.IntN(100) < failures
			for _, id := range st.Inputs {
				gone[id] = !crashed || s.rnd.IntN(2) == 0 // a crash keeps some inputs from being marked
			}
		}
	}
	s.blocks = s.blocks[:0:0]
	for id, b := range there {
		if !gone[id] {
			s.blocks = append(s.blocks, b)
		}
	}
	slices.SortFunc(s.blocks, func(a, b *Block) int { return a.Meta.ULID.Compare(b.Meta.ULID) })
}

// damage sets a block aside, or mends or marks it, or other settings are chosen.
func (s *simulation) damage() {
	if len(s.blocks) == 0 || s.rnd.IntN(300) > 0 {
		return
	}
	i := s.rnd.IntN(len(s.blocks))
	b := *s.blocks[i]
	switch s.rnd.IntN(6) {
	case 0:
		b.NoCompact = true
	case 1:
		b.NoDownsample = true
	case 2, 3:
		b.SetAside, b.NoCompact, b.NoDownsample = true, true, true
	case 4:
		for i, b := range s.blocks {
			if b.SetAside {
				c := *b
				c.SetAside, c.NoCompact, c.NoDownsample = false, false, false
				s.blocks[i] = &c
			}
		}
		return
	case 5:
		s.choose()
		s.stale = nil // a restart forgets them
	}
	s.blocks[i] = &b
	// What is not there now could not be kept.
	s.see()
	for i := range s.sources {
		for res := range min(s.sources[i].best, len(resolutions)) {
			s.sources[i].lost[res] = true
		}
	}
}

// see finds out at which resolution each source can be read.
func (s *simulation) see() {
	for len(s.sources) <= s.nextID {
		s.sources = append(s.sources, simulatedSource{})
	}
	for i := range s.sources {
		s.sources[i].best = len(resolutions)
	}
	for _, blocks := range [][]*Block{s.blocks, s.late} {
		for _, b := range blocks {
			if b.SetAside {
				continue
			}
			res := slices.Index(resolutions, b.Meta.Resolution())
			for _, id := range b.sources() {
				src := &s.sources[id.Time()]
				src.best = min(src.best, res)
			}
		}
	}
}

// covered tells whether the settings want a time at a resolution.
func (s *simulation) covered(res, maxt int64) bool {
	r := s.set.Retention[res]
	return (res == block.ResolutionRaw || s.set.Downsample) && (r == 0 || maxt+r.Milliseconds() >= s.now)
}

// missing returns an uploaded span of time that some retention covers, and that no block holds that can be read, at the
// resolution of that retention or a finer one.
func (s *simulation) missing() string {
	s.see()
	for _, m := range s.uploads {
		src := s.sources[m.ULID.Time()]
		for i, res := range resolutions {
			if src.best > i && !src.lost[i] && s.covered(res, m.MaxTime) {
				return fmt.Sprintf("block %s, hours %d to %d, retention of %s %s, now hour %d", m.ULID, m.MinTime/hour, m.MaxTime/hour, resolutionName(res), s.set.Retention[res], s.now/hour)
			}
		}
	}
	return ""
}

// settle carries out plans until there is none, with nothing failing.
func (s *simulation) settle(t *testing.T) {
	t.Helper()
	for round := 0; ; round++ {
		p := Plan(s.blocks, s.set, time.UnixMilli(s.now), nil)
		if len(p.Steps) == 0 {
			return
		}
		if round > 200 {
			t.Fatalf("still %v", p.Steps)
		}
		s.carryOut(p.Steps, 0)
	}
}

// kept returns a block that nobody wants any more and that is there. What may not be downsampled, at any resolution, is
// kept as long as a coarser retention covers it.
func (s *simulation) kept() string {
	blocked := map[ulid.ULID]bool{}
	for _, b := range s.blocks {
		if b.NoDownsample {
			for _, id := range b.sources() {
				blocked[id] = true
			}
		}
	}
	for _, b := range s.blocks {
		wanted := slices.ContainsFunc(b.sources(), func(id ulid.ULID) bool { return blocked[id] }) &&
			slices.ContainsFunc(resolutions, func(res int64) bool { return s.covered(res, b.Meta.MaxTime) })
		r := s.set.Retention[b.Meta.Resolution()]
		if r != 0 && b.Meta.MaxTime+r.Milliseconds() < s.now && !wanted {
			return fmt.Sprintf("block %s of %s, hours %d to %d, now hour %d", b.Meta.ULID, resolutionName(b.Meta.Resolution()), b.Meta.MinTime/hour, b.Meta.MaxTime/hour, s.now/hour)
		}
	}
	return ""
}

// Shows that whatever the retention, and whatever fails for however long, there is no time range without data that some
// retention covers, at that retention's resolution or a finer one: uploads come late, the compactor is down for weeks,
// its groups fail, its steps are carried out when the bucket has changed since or by two at once, its outputs are there
// without their inputs being marked, blocks are set aside, mended and marked, settings are changed. A block that is
// marked for deletion counts as gone at once. In the end, with nothing failing, what nobody wants is gone.
// make campaign-retention runs a thousand of them.
//
// Mutants it was seen to kill are in test/mutants/table.txt.
func TestRetentionLeavesNoHole(t *testing.T) {
	first, runs := uint64(0), uint64(8)
	for name, dst := range map[string]*uint64{"KOIOS_COMPACT_SIMULATIONS": &runs, "FIRST": &first} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			*dst = n
		}
	}
	done := map[Kind]int{}
	for seed := first; seed < first+runs; seed++ {
		s := newSimulation(seed)
		writers := 1 + s.rnd.IntN(4)
		outage := make([]int64, writers)
		days := 20 + s.rnd.IntN(100)
		failures := []int{0, 10, 50, 90}[s.rnd.IntN(4)]
		down := int64(0)
		every := []int64{2, 8, 24}[s.rnd.IntN(3)] * hour
		for s.now = 2 * hour; s.now < int64(days)*24*hour; s.now += 2 * hour {
			s.upload(writers, outage)
			s.damage()
			if s.rnd.IntN(400) == 0 {
				down = s.now + int64(s.rnd.IntN(30*24))*hour
			}
			if s.now < down || s.now%every != 0 {
				continue
			}
			s.compact(failures)
			if m := s.missing(); m != "" {
				t.Fatalf("seed %d: gone: %s; settings %+v", seed, m, s.set)
			}
		}
		s.settle(t)
		if m := s.missing(); m != "" {
			t.Fatalf("seed %d: gone in the end: %s; settings %+v", seed, m, s.set)
		}
		if k := s.kept(); k != "" {
			t.Fatalf("seed %d: kept: %s; settings %+v", seed, k, s.set)
		}
		for k, n := range s.done {
			done[k] += n
		}
		if n := seed - first + 1; n%100 == 0 {
			t.Logf("%d runs: %v", n, done)
		}
	}
	t.Logf("%d runs: %v", runs, done)
	for _, k := range []Kind{KindMerge, KindDownsample, KindExpire, KindCollect} {
		if done[k] == 0 {
			t.Errorf("no step of kind %s: the runs did not do what they are about", k)
		}
	}
}

// Shows that planning ends: with nothing failing, each group is down to what its level leaves, and no step is planned
// again that was carried out.
func TestPlansEnd(t *testing.T) {
	for seed := range uint64(10) {
		s := newSimulation(seed)
		outage := make([]int64, 3)
		for s.now = 2 * hour; s.now < 40*24*hour; s.now += 2 * hour {
			s.upload(3, outage)
		}
		s.now += 100 * hour
		s.settle(t)
		if todo := Count(s.blocks, s.set, time.UnixMilli(s.now)); todo != (Todo{}) {
			t.Errorf("seed %d: nothing planned, yet %+v to do", seed, todo)
		}
	}
}
