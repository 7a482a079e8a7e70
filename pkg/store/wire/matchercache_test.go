package wire

import (
	"fmt"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/koios-metrics/koios/proto/storepb"
)

// Shows that a regular expression is compiled once while it is kept, that the one used longest ago makes room, that
// equal texts of another type or label are not taken for it, and that errors are not kept. (Killed: mutants without
// the type in the key, and without the move to the front.)
func TestMatcherCache(t *testing.T) {
	c := NewMatcherCache(2, prometheus.NewRegistry())
	d := Decoder{Compiled: c}
	ask := func(typ storepb.LabelMatcher_Type, name, value string, hit bool) {
		t.Helper()
		before := testutil.ToFloat64(c.hits)
		ms, err := d.matchers([]*storepb.LabelMatcher{{Type: typ, Name: name, Value: value}})
		if err != nil {
			t.Fatal(err)
		}
		if m := ms[0]; int(m.Type) != int(typ) || m.Name != name || m.Value != value || m.Matches("ab") != (typ == storepb.LabelMatcher_RE) {
			t.Errorf("got %s", m)
		}
		if got := testutil.ToFloat64(c.hits) > before; got != hit {
			t.Errorf("%s %s%q: hit %v", typ, name, value, got)
		}
	}
	const re, nre = storepb.LabelMatcher_RE, storepb.LabelMatcher_NRE
	ask(re, "a", "a.", false)
	ask(nre, "a", "a.", false)
	ask(re, "a", "a.", true)
	ask(re, "b", "a.", false) // the negated one goes
	ask(re, "a", "a.", true)
	ask(nre, "a", "a.", false)
	for range 2 {
		if _, err := d.matchers([]*storepb.LabelMatcher{{Type: re, Name: "a", Value: "("}}); err == nil {
			t.Error("no error")
		}
	}
	if _, err := d.matchers([]*storepb.LabelMatcher{{Type: storepb.LabelMatcher_EQ, Name: "a", Value: "b"}}); err != nil {
		t.Error(err)
	}
	if items, gone := testutil.ToFloat64(c.items), testutil.ToFloat64(c.evicted); items != 2 || gone != 2 {
		t.Errorf("%v kept, %v gone", items, gone)
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 100 {
				if _, err := d.matchers([]*storepb.LabelMatcher{{Type: re, Name: "a", Value: fmt.Sprint((i + j) % 5)}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if len(c.byKey) != 2 || c.order.Len() != 2 {
		t.Errorf("%d and %d kept", len(c.byKey), c.order.Len())
	}
}
