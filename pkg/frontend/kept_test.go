package frontend

import (
	"fmt"
	"net/http"
	"net/url"
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

// Shows, with a clock that is moved on by a minute 60 times, that a dashboard over a week that ends now makes the querier
// evaluate at most 2 % of its steps again: those that are new, and those that were too fresh to be kept. A mutant that keeps
// none of an answer that ends with fresh steps dies here.
func TestRefreshedDashboard(t *testing.T) {
	const week, step = 7 * 86_400, 300
	now := int64(1_700_000_000)
	f := newFake(t, Config{
		Now: func() time.Time { return time.Unix(now, 0) },
		Range: RangeConfig{
			Align: true, Split: SplitConfig{Interval: 86_400_000, Parallel: 4}, Cache: &memory{entries: map[string][]byte{}}, Freshness: time.Minute,
		},
	}, steps)
	asked, again := 0, 0
	for minute := range 61 {
		for _, query := range []string{"up", "sum(rate(x[5m]))"} {
			form := url.Values{"query": {query}, "start": {fmt.Sprint(now - week)}, "end": {fmt.Sprint(now)}, "step": {fmt.Sprint(step)}}
			if code, _, body := f.do(t, http.MethodPost, rangePath, form.Encode()); code != http.StatusOK {
				t.Fatalf("%d %s", code, body)
			}
			for _, a := range f.take() {
				start, _ := parseTime(a.Form.Get("start"))
				end, _ := parseTime(a.Form.Get("end"))
				if n := int((end-start)/step/1000) + 1; minute > 0 {
					again += n
				}
			}
			if minute > 0 {
				asked += week/step + 1
			}
		}
		now += 60
	}
	if again < 24 || float64(again) > 0.02*float64(asked) {
		t.Errorf("%d of %d steps are evaluated again", again, asked)
	}
	t.Logf("%d of %d steps are evaluated again: %.3f %%", again, asked, 100*float64(again)/float64(asked))
}
