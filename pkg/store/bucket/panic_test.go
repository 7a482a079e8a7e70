package bucket

import (
	"strings"
	"testing"

	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/storetest"
)

// Shows that a panic while blocks are opened fails the block that it is about, and nothing else.
func TestPanicOfOneBlock(t *testing.T) {
	bkt := objstore.NewInMemBucket()
	writeBlock(t, bkt, storetest.Data{Series: []storetest.Input{{Labels: ls("__name__", "up"), Samples: []storetest.Sample{{T: 1000, V: 1}}}}}, always, func(*block.Meta) {})
	s := open(t, bkt, Config{})
	for _, strategy := range []store.PartialResponse{store.Warn, store.Abort} {
		req := upRequest(strategy)
		ts, _ := s.targets(req.Matchers, nil, func(g *blockGroup) []*loaded { return g.overlapping(0, 10_000) })
		share := s.memory.newShare(0)
		c := s.newCursor(t.Context(), req, ts[0].block, s.newAccount("t"), "t", 1, share)
		reached := false
		each([]*cursor{c, c}, 1, func(i int, _ *cursor) {
			if i == 0 {
				panic("oh no")
			}
			reached = true
		})
		err := c.Err()
		if ws := c.Warnings(); strategy == store.Warn && len(ws) == 1 {
			err = ws[0]
		}
		if err == nil || !strings.Contains(err.Error(), "oh no") || !reached || !c.ended {
			t.Errorf("%v: got %v, went on: %v", strategy, err, reached)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		share.leave()
	}
}
