package bucket

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
)

// A gateway lists what its blocks were compacted from, with closed times, for two days after a compaction, going by
// the newest block. (Killed: mutants that list them forever, and that leave times open.)
func TestParentsAreListed(t *testing.T) {
	id := func(n byte, age time.Duration) (u ulid.ULID) {
		if err := u.SetTime(uint64((1000*time.Hour - age).Milliseconds())); err != nil {
			t.Fatal(err)
		}
		u[15] = n
		return u
	}
	made := func(id ulid.ULID, mint, maxt int64, parents ...tsdb.BlockDesc) *loaded {
		m := &block.Meta{}
		m.ULID, m.MinTime, m.MaxTime, m.Compaction.Parents = id, mint, maxt, parents
		return &loaded{meta: m}
	}
	parent := func(n byte, mint, maxt int64) tsdb.BlockDesc {
		return tsdb.BlockDesc{ULID: id(n, 100*time.Hour), MinTime: mint, MaxTime: maxt}
	}
	fresh, old, newest := id(1, 48*time.Hour), id(2, 48*time.Hour+time.Millisecond), id(3, 0)
	g := &blockGroup{labels: labels.FromStrings("r", "a"), tiers: []tier{{0, []*loaded{
		made(old, 0, 200, parent(11, 0, 100), parent(12, 100, 200)),
		made(fresh, 200, 400, parent(13, 200, 300), parent(14, 300, 400)),
		made(newest, 400, 500),
	}}}}
	want := []store.ParentBlock{
		{Child: fresh, ID: parent(13, 0, 0).ULID, MinTime: 200, MaxTime: 299},
		{Child: fresh, ID: parent(14, 0, 0).ULID, MinTime: 300, MaxTime: 399},
	}
	if d := cmp.Diff(want, g.served().Parents); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if n := len(g.served().Blocks); n != 3 {
		t.Errorf("%d blocks, want 3", n)
	}
}
