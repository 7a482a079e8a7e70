package compact

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
)

// Shows since when groups are behind, and when they may be done: a group that always has something to do is behind since
// it first had, one that had nothing in between begins anew; those that wait longest are told, and the time to the end
// follows from the bytes ahead and the pace of the steps that ended.
func TestPace(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	var p pace
	p.plan(map[string]bool{"a": true, "b": true}, at(0))
	p.plan(map[string]bool{"a": true}, at(10))
	p.plan(map[string]bool{"a": true, "b": true}, at(20))
	if d := cmp.Diff(map[string]time.Time{"a": at(0), "b": at(20)}, p.behind); d != "" {
		t.Errorf("behind (-want +got):\n%s", d)
	}
	if l := p.longest(at(30)); l != 30*time.Second {
		t.Error("longest", l)
	}
	steps := []Step{
		{Kind: KindExpire, Group: "c", Inputs: []ulid.ULID{testID(9)}},
		{Kind: KindMerge, Group: "a", Inputs: []ulid.ULID{testID(1)}},
		{Kind: KindMerge, Group: "b", Inputs: []ulid.ULID{testID(2)}},
		{Kind: KindDownsample, Group: "a", Inputs: []ulid.ULID{testID(3)}},
	}
	bytes := func(st Step) int64 {
		return map[ulid.ULID]int64{testID(1): 1000, testID(2): 100, testID(3): 900}[st.Inputs[0]]
	}
	if etas := p.etas(steps, bytes, 2, at(0)); len(etas) != 0 {
		t.Error("known before anything ended:", etas)
	}
	p.ended(1000, 10*time.Second) // 100 bytes a second
	p.ended(0, time.Second)
	want := map[string]time.Time{"a": at(10), "b": at(5).Add(500 * time.Millisecond)}
	if d := cmp.Diff(want, p.etas(steps, bytes, 2, at(0))); d != "" {
		t.Errorf("etas (-want +got):\n%s", d)
	}
	p.ended(1000, 5*time.Second)
	if p.rate <= 100 || p.rate >= 200 {
		t.Errorf("rate %v is not between the old one and that of the last step", p.rate)
	}
}
