package bulk

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// A block that was written is one that Prometheus opens: all series, each with all samples, none going back.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	spec := Spec{From: 1_700_006_400_000, Interval: 15_000, Samples: 300, Series: Counters("requests_total", 200), External: map[string]string{"replica": "a"}}
	id, err := Write(t.Context(), dir, spec)
	if err != nil {
		t.Fatal(err)
	}
	b, err := tsdb.OpenBlock(nil, dir+"/"+id.String(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	q, err := tsdb.NewBlockQuerier(b, b.MinTime(), b.MaxTime())
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "requests_total"))
	series := 0
	for ; set.Next(); series++ {
		samples, last := 0, int64(0)
		for it := set.At().Iterator(nil); it.Next() == chunkenc.ValFloat; samples++ {
			at, _ := it.At()
			if at <= last {
				t.Fatalf("%s goes back from %d to %d", set.At().Labels(), last, at)
			}
			last = at
		}
		if samples != spec.Samples {
			t.Errorf("%s has %d samples, want %d", set.At().Labels(), samples, spec.Samples)
		}
	}
	if set.Err() != nil || series != len(spec.Series) {
		t.Errorf("%d series, want %d; error %v", series, len(spec.Series), set.Err())
	}
}
