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
	// origin is the time span of every block that was ever uploaded, by its id.
	origin map[ulid.ULID][2]int64
	// late are blocks that wait for the end of an uploader's outage.
	late []*Block
	log  []string
}

func newSimulation(seed uint64) *simulation {
	s := &simulation{rnd: rand.New(rand.NewPCG(seed, 5)), origin: map[ulid.ULID][2]int64{}}
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
	return s
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
		s.origin[m.ULID] = [2]int64{m.MinTime, m.MaxTime}
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

// compact carries out a plan. Steps fail at random, and may have marked nothing, or only some of their inputs.
func (s *simulation) compact(failures int) {
	p := Plan(s.blocks, s.set, time.UnixMilli(s.now), func(string) bool { return s.rnd.IntN(100) < failures/2 })
	for _, st := range p.Steps {
		if s.rnd.IntN(100) < failures {
			continue
		}
		s.log = append(s.log, fmt.Sprintf("%d %s %v", s.now/hour, st.Kind, st.Inputs))
		before := s.blocks
		s.blocks = apply(s.blocks, st, s.id())
		if st.Kind == KindMerge && s.rnd.IntN(100) < failures {
			// The output is there, and a crash kept some inputs from being marked.
			for _, b := range before {
				if slices.Contains(st.Inputs, b.Meta.ULID) && s.rnd.IntN(2) == 0 {
					s.blocks = append(s.blocks, b)
				}
			}
		}
	}
}

// damage sets a block aside, or marks it.
func (s *simulation) damage() {
	if len(s.blocks) == 0 || s.rnd.IntN(300) > 0 {
		return
	}
	i := s.rnd.IntN(len(s.blocks))
	b := *s.blocks[i]
	switch s.rnd.IntN(3) {
	case 0:
		b.NoCompact = true
	case 1:
		b.NoDownsample = true
	case 2:
		b.SetAside, b.NoCompact, b.NoDownsample = true, true, true
	}
	s.blocks[i] = &b
}

// missing returns an uploaded span of time that some retention covers and that no block holds.
func (s *simulation) missing() string {
	held := map[ulid.ULID]bool{}
	for _, b := range append(slices.Clone(s.blocks), s.late...) {
		for _, src := range b.sources() {
			held[src] = true
		}
	}
	for id, span := range s.origin {
		if held[id] {
			continue
		}
		for res, r := range s.set.Retention {
			if res != block.ResolutionRaw && !s.set.Downsample {
				continue
			}
			if r == 0 || span[1]+r.Milliseconds() >= s.now {
				return fmt.Sprintf("block %s, hours %d to %d, retention of %s %s, now hour %d", id, span[0]/hour, span[1]/hour, resolutionName(res), r, s.now/hour)
			}
		}
	}
	return ""
}

// Shows that whatever the retention, and whatever fails for however long, there is no time range without data that some
// retention covers: uploads come late, the compactor is down for weeks, its groups fail, its outputs are there without
// their inputs being marked, blocks are set aside and marked. A block that is marked for deletion counts as gone at once.
//
// Mutant it was seen to kill: an expired block needs no successor (expire in retention.go without its check).
func TestRetentionLeavesNoHole(t *testing.T) {
	runs := uint64(20)
	if text := os.Getenv("KOIOS_COMPACT_SIMULATIONS"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		runs = n
	}
	var merged, downsampled, expired int
	for seed := range runs {
		s := newSimulation(seed)
		writers := 1 + s.rnd.IntN(4)
		outage := make([]int64, writers)
		days := 20 + s.rnd.IntN(50)
		failures := []int{0, 10, 50, 90}[s.rnd.IntN(4)]
		down := int64(0)
		every := []int64{8, 24}[s.rnd.IntN(2)] * hour
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
		for _, l := range s.log {
			switch {
			case contains(l, KindMerge):
				merged++
			case contains(l, KindDownsample):
				downsampled++
			case contains(l, KindExpire):
				expired++
			}
		}
	}
	t.Logf("%d runs: %d merges, %d downsamplings, %d expired", runs, merged, downsampled, expired)
	if merged == 0 || downsampled == 0 || expired == 0 {
		t.Error("the runs did not do what they are about")
	}
}

func contains(line string, k Kind) bool {
	var at int64
	var kind string
	_, _ = fmt.Sscanf(line, "%d %s", &at, &kind)
	return kind == string(k)
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
		for round := 0; ; round++ {
			p := Plan(s.blocks, s.set, time.UnixMilli(s.now), nil)
			if len(p.Steps) == 0 {
				break
			}
			if round > 200 {
				t.Fatalf("seed %d: still %v", seed, p.Steps)
			}
			for _, st := range p.Steps {
				s.blocks = apply(s.blocks, st, s.id())
			}
		}
		if todo := Count(s.blocks, s.set, time.UnixMilli(s.now)); todo != (Todo{}) {
			t.Errorf("seed %d: nothing planned, yet %+v to do", seed, todo)
		}
	}
}
