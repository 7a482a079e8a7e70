package frontend

import (
	"net/http"
	"testing"
	"time"
)

// Where ranges are not aligned, one that does not end with a step is found again all the same, and so is a range that
// ends at another time behind the same step.
func TestUnalignedRangesAreKept(t *testing.T) {
	kept := &memory{entries: map[string][]byte{}}
	f := newFake(t, Config{
		Now:   func() time.Time { return time.Unix(10_000, 0) },
		Range: RangeConfig{Split: SplitConfig{Interval: 3600_000, Parallel: 1}, Cache: kept, Freshness: time.Minute},
	}, steps)
	for i, form := range []string{"query=up&start=1003&end=1047&step=20", "query=up&start=1003&end=1047&step=20", "query=up&start=1023&end=1045&step=20"} {
		code, _, body := f.do(t, http.MethodPost, rangePath, form)
		if asked := len(f.take()); code != http.StatusOK || asked != map[bool]int{true: 1}[i == 0] {
			t.Errorf("%s: %d, the querier was asked %d times: %s", form, code, asked, body)
		}
	}
}
