package compact

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// randomGroup makes blocks of few sources, so that much is shared.
func randomGroup(rnd *rand.Rand) (blocks []*Block) {
	for i := range 1 + rnd.IntN(12) {
		m := &block.Meta{}
		m.ULID = testID(100 + i)
		for range 1 + rnd.IntN(6) {
			m.Compaction.Sources = append(m.Compaction.Sources, testID(rnd.IntN(10)))
		}
		b := &Block{Meta: m, SetAside: rnd.IntN(8) == 0}
		b.ids = sortedSources(b)
		blocks = append(blocks, b)
	}
	return blocks
}

func sourcesOf(blocks []*Block) map[ulid.ULID]bool {
	set := map[ulid.ULID]bool{}
	for _, b := range blocks {
		for _, id := range b.Meta.Compaction.Sources {
			set[id] = true
		}
	}
	return set
}

// Shows that what is found by sorted sources is what a look at every pair finds: the blocks whose data is in another
// one, and the blocks that hold the data of one together.
//
// Mutants it was seen to kill are in test/mutants/table.txt.
func TestSourcesAsByEveryPair(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	held, duplicate := 0, 0
	for range 20_000 {
		blocks := randomGroup(rnd)
		scene := ""
		for _, b := range blocks {
			scene += fmt.Sprintf("%v %v; ", b.ids, b.SetAside)
		}
		dups := duplicates(blocks)
		for _, b := range blocks {
			want := slices.ContainsFunc(blocks, func(a *Block) bool {
				all := sourcesOf([]*Block{a})
				return !a.SetAside && covers(a, b) && !slices.ContainsFunc(b.ids, func(id ulid.ULID) bool { return !all[id] })
			})
			cover, got := dups[b.Meta.ULID]
			if want != got {
				t.Fatalf("%s: %v is a duplicate %v: want %v", scene, b.ids, got, want)
			}
			if _, ok := dups[cover]; got && ok {
				t.Fatalf("%s: the cover of %v goes too", scene, b.ids)
			}
			if got {
				duplicate++
			}
		}
		reliable := slices.DeleteFunc(slices.Clone(blocks), func(b *Block) bool { return b.SetAside })
		h, all := newHoldings(blocks), sourcesOf(reliable)
		for range 3 {
			one := randomGroup(rnd)[0]
			want := !slices.ContainsFunc(one.ids, func(id ulid.ULID) bool { return !all[id] })
			found := h.cover(one)
			if want != (found != nil) {
				t.Fatalf("%s: %v is held by %d: want %v", scene, one.ids, len(found), want)
			}
			together := sourcesOf(found)
			if want && slices.ContainsFunc(one.ids, func(id ulid.ULID) bool { return !together[id] }) {
				t.Fatalf("%s: %v is not held by %v", scene, one.ids, together)
			}
			if want {
				held++
			}
		}
	}
	if held == 0 || duplicate == 0 {
		t.Error("nothing was held, or no duplicate")
	}
}
