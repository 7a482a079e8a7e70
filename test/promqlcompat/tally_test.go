package promqlcompat

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// tally counts what came out.
type tally struct {
	// Asked are the questions. To some of them the answer was not empty, some were refused, by all alike.
	Asked, Answered, Refused int64
	// Excluded counts the answers that differ for a known reason.
	Excluded map[string]int64
	// Different are the answers that differ for none.
	Different []string
}

func (t *tally) exclude(engine, reason string) {
	if t.Excluded == nil {
		t.Excluded = map[string]int64{}
	}
	t.Excluded["engine "+engine+", "+reason]++
}

func (t *tally) excluded() (n int64) {
	for _, m := range t.Excluded {
		n += m
	}
	return n
}

// String writes the counts.
func (t *tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d queries with 2 engines: %d (%.1f %%) answered with something, %d refused; %d answers (%.2f %%) excluded, %d different",
		t.Asked, t.Answered, 100*float64(t.Answered)/float64(t.Asked), t.Refused, t.excluded(), 100*float64(t.excluded())/float64(2*t.Asked), len(t.Different))
	for _, reason := range slices.Sorted(maps.Keys(t.Excluded)) {
		fmt.Fprintf(&b, "\n  %6d %s", t.Excluded[reason], reason)
	}
	return b.String()
}

// sharesFrom is from how many questions on shares of them are judged.
const sharesFrom = 500

// judge fails a test whose answers differ, or whose questions show too little.
func (t *tally) judge(tb testing.TB) {
	tb.Helper()
	tb.Log(t)
	for _, d := range t.Different {
		tb.Error(d)
	}
	if t.Asked < sharesFrom {
		return
	}
	if 100*t.Answered < 60*t.Asked {
		tb.Errorf("only %d of %d answers are not empty, want 60 %%", t.Answered, t.Asked)
	}
	if 100*t.excluded() > 2*t.Asked {
		tb.Errorf("%d answers to %d questions are excluded, want no more than 2 %%", t.excluded(), t.Asked)
	}
}
