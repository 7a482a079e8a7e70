package bucket

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// Shows that a store that finds index headers on disk opens those of the newest blocks first, no more than it may, and
// none where they are to be opened at their use. (Blocks in another order fail it.)
func TestWarm(t *testing.T) {
	bkt, dir := objstore.NewInMemBucket(), t.TempDir()
	data := storetest.Data{Series: []storetest.Input{{Labels: labels.FromStrings("__name__", "a"), Samples: []storetest.Sample{{T: 1000, V: 1}, {T: 2000, V: 1}, {T: 900_000, V: 2}, {T: 901_000, V: 2}}}}}
	for i, part := range []func(int64) bool{func(t int64) bool { return t < 10_000 }, func(t int64) bool { return t > 10_000 }} {
		writeBlock(t, bkt, data, part, func(m *block.Meta) { m.Compaction.Level = i + 1 })
	}
	opened := func(cfg Config, bytes int64) (old, newest bool) {
		t.Helper()
		cfg.DataDir = dir
		s := open(t, bkt, cfg)
		s.Warm(t.Context(), bytes)
		ms := s.Blocks()
		if len(ms) != 2 {
			t.Fatalf("%d blocks", len(ms))
		}
		set := s.blocks.Load().byID
		for _, m := range ms {
			loaded := set[m.ULID].header.Loaded()
			if m.MinTime > 10_000 {
				newest = loaded
			} else {
				old = loaded
			}
		}
		return old, newest
	}
	s := open(t, bkt, Config{DataDir: dir}) // which fetches them
	size := s.blocks.Load().byID[s.Blocks()[0].ULID].header.FileSize()
	if size == 0 {
		t.Fatal("no header on disk")
	}
	f := func(cfg Config, bytes int64, wantOld, wantNewest bool) {
		t.Helper()
		if old, newest := opened(cfg, bytes); old != wantOld || newest != wantNewest {
			t.Errorf("%d bytes: the old one is open: %v, the newest: %v", bytes, old, newest)
		}
	}
	f(Config{}, 10*size, true, true)
	f(Config{}, size+size/2, false, true)
	f(Config{}, 0, false, false)
	f(Config{IndexHeaderIdleTimeout: time.Hour}, 10*size, false, false)
	f(Config{IndexHeadersOnUse: true}, 10*size, false, false)
}
