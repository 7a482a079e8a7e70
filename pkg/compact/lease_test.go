package compact

import (
	"errors"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// Shows that a step is leased to one compactor at a time, that a lease given back or not renewed is free, and that
// steps that only write marks need none.
func TestLeases(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now()
	a, b := w.compactor(w.config()), w.compactor(w.config())
	la, lb := a.newLeases(t.Context()), b.newLeases(t.Context())
	if la.cond == nil {
		t.Fatal("no conditional writes on a file system")
	}
	st := Step{Kind: KindMerge, Group: "g", Inputs: []ulid.ULID{testID(1), testID(2)}}
	release, err := la.take(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lb.take(t.Context(), st); !errors.Is(err, errLeased) {
		t.Errorf("taken twice: %v", err)
	}
	other := Step{Kind: KindMerge, Group: "g", Inputs: []ulid.ULID{testID(3), testID(4)}}
	r, err := lb.take(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	r()
	release()
	r, err = lb.take(t.Context(), st)
	if err != nil {
		t.Errorf("given back, yet %v", err)
	}
	w.now = w.now.Add(2 * defaultLeaseLength)
	r2, err := la.take(t.Context(), st)
	if err != nil {
		t.Errorf("not renewed, yet %v", err)
	}
	r2()
	r()
	if r, err = la.take(t.Context(), Step{Kind: KindExpire, Inputs: []ulid.ULID{testID(9)}}); err != nil {
		t.Error(err)
	}
	r()
	w.now = w.now.Add(2 * leaseAgeMax)
	if err := la.sweep(t.Context()); err != nil {
		t.Error(err)
	}
}

// Shows that a compactor leaves a step to the one that has its lease, and does it when that one is gone.
func TestLeasedStepIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.put(0, 2*hour, map[string]string{"x": "1"}, 1)
	w.put(2*hour, 4*hour, map[string]string{"x": "1"}, 1)
	w.now = time.UnixMilli(20 * hour)
	a, b := w.compactor(w.config()), w.compactor(w.config())
	blocks := func() int { return len(w.live()) }
	if err := a.eyes.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	known, _, _ := a.eyes.seen()
	st := Plan(known, a.cfg.Settings, w.now, nil).Steps[0]
	if _, err := a.newLeases(t.Context()).take(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	if err := b.RunOnce(t.Context()); err != nil || blocks() != 2 {
		t.Errorf("%d blocks, %v", blocks(), err)
	}
	w.now = w.now.Add(2 * defaultLeaseLength)
	if err := b.RunOnce(t.Context()); err != nil || blocks() != 1 {
		t.Errorf("%d blocks, %v", blocks(), err)
	}
}
