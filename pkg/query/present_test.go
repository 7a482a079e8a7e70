package query

import (
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/koios-metrics/koios/pkg/chunk/xor"
	"github.com/koios-metrics/koios/pkg/dedup"
)

// Shows that where the first replica of a generated pair is steady, the merged stream has a sample, and no marker, in
// every window that is looked back over, so that counting series may take the first. (Without the look at
// markers it fails, and so it does when a pause of the whole span counts as steady.)
func TestSteadyAsDedup(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	found := 0
	for i := range 3000 {
		cs := haPair(r)
		from, to := cs[0].MinTime, cs[len(cs)-1].MaxTime
		read := reading{merge: dedup.Options{}, reach: dedup.Reach(0)}
		span := []int64{5 * 60_000, 60_000, 20_000, 8_000}[i%4]
		read.maxt = from + r.Int64N(to-from)
		read.mint = read.maxt - span + 1 - r.Int64N(60)*span/4
		se := &series{labels: labels.FromStrings("__name__", "x"), chunks: cs, reading: &read}
		var m merged
		m.reset(se)
		w, err := m.sources[0].Around(read.mint, read.maxt, false, 0)
		if err != nil {
			t.Fatal(err)
		}
		in := xor.Samples{Times: w.Times, Values: w.Values}.Between(read.mint, read.maxt)
		if len(w.Marks) > 0 || !steady(in.Times, read.mint, read.maxt, span) {
			continue
		}
		found++
		var plain batch
		if err := plain.decodeAny(se); err != nil {
			t.Fatal(err)
		}
		ends := append([]int64{read.mint + span - 1, read.maxt}, plain.samples.Times...)
		for _, at := range ends {
			for end := at - 1; end <= at; end++ {
				if end < read.mint+span-1 || end > read.maxt {
					continue
				}
				in := plain.samples.Between(end-span+1, end)
				if in.Len() == 0 || value.IsStaleNaN(in.Values[in.Len()-1]) {
					t.Fatalf("pair %d: nothing merged from %d to %d, of %d samples from %d to %d", i, end-span+1, end, plain.samples.Len(), read.mint, read.maxt)
				}
			}
		}
	}
	if found < 300 {
		t.Errorf("only %d pairs were steady", found)
	}
}
