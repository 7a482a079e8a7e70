package compact

import (
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// agedWorld has a raw block past its retention, and its 5m block.
func agedWorld(t *testing.T) (w *world, raw, successor ulid.ULID) {
	t.Helper()
	w = newWorld(t)
	w.now = time.UnixMilli(60 * hour)
	raw = w.put(0, 48*hour, map[string]string{"x": "1"}, 1)
	if err := w.compactor(w.config()).RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id, m := range w.live() {
		if m.Resolution() == block.Resolution5m {
			successor = id
		}
	}
	if successor == (ulid.ULID{}) {
		t.Fatal("not downsampled:", w.shape())
	}
	w.now = time.UnixMilli(40 * 24 * hour)
	return w, raw, successor
}

func agedConfig(w *world) Config {
	cfg := w.config()
	cfg.Settings.Retention = map[int64]time.Duration{block.ResolutionRaw: 30 * 24 * time.Hour}
	return cfg
}

// Shows that a block past its retention goes when its successor was found whole.
func TestExpireWithSuccessor(t *testing.T) {
	w, raw, successor := agedWorld(t)
	if err := w.compactor(agedConfig(w)).RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if live := w.live(); live[raw] != nil || live[successor] == nil {
		t.Error(w.shape())
	}
}

// Shows that a block past its retention stays when an object of its successor is missing, whatever the metadata says:
// the successor is set aside, another one is made, and only then the block goes.
//
// Mutant it was seen to kill: doExpire marks without a look at the successors.
func TestExpireLooksAtTheSuccessor(t *testing.T) {
	w, raw, successor := agedWorld(t)
	if err := w.bkt.Bucket.Delete(t.Context(), block.Object(successor, "chunks/000001")); err != nil {
		t.Fatal(err)
	}
	if err := w.compactor(agedConfig(w)).RunOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ok, err := w.bkt.Exists(t.Context(), block.Object(successor, SetAsideFilename)); !ok || err != nil {
		t.Error("the successor is not set aside", err)
	}
	another := 0
	for id, m := range w.live() {
		if m.Resolution() == block.Resolution5m && id != successor {
			another++
		}
	}
	if another != 1 || w.live()[raw] != nil {
		t.Errorf("%d other successors; %v", another, w.shape())
	}
}

// Shows that a block past its retention stays while its successor was set aside by somebody since the plan was made.
func TestExpireSeesWhatWasSetAside(t *testing.T) {
	w, raw, successor := agedWorld(t)
	c := w.compactor(agedConfig(w))
	if err := c.eyes.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.bkt.Bucket.Upload(t.Context(), block.Object(successor, SetAsideFilename), strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	blocks, _, _ := c.eyes.seen()
	steps := Plan(blocks, c.cfg.Settings, w.now, nil).Steps
	if len(steps) == 0 || steps[0].Kind != KindExpire || len(steps[0].Successors) != 1 {
		t.Fatal(steps)
	}
	if err := c.do(t.Context(), steps[0]); err == nil {
		t.Error("carried out")
	}
	if w.live()[raw] == nil {
		t.Error("marked for deletion")
	}
}
