package answer

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
)

const (
	// tolerance is how far two values may lie apart, as a part of the larger one, or of 1 if both are
	// smaller.
	tolerance = 1e-9
	// shownDiffs is how many differences are written out.
	shownDiffs = 8
)

// Diff tells where two answers differ, "" if they don't. Series are compared by labels, whatever their
// order is; ordered answers, such as those of sort(), in their order too.
func Diff(want, got *Answer, ordered bool) string {
	if want.Type != got.Type {
		return fmt.Sprintf("type %s, want %s", got.Type, want.Type)
	}
	var d diffs
	if ordered {
		d.order(want.Series, got.Series)
	}
	ws, gs := sorted(want.Series), sorted(got.Series)
	for len(ws) > 0 || len(gs) > 0 {
		switch {
		case len(gs) == 0 || (len(ws) > 0 && ws[0].key() < gs[0].key()):
			d.addf("missing: {%s}", ws[0].key())
			ws = ws[1:]
		case len(ws) == 0 || gs[0].key() < ws[0].key():
			d.addf("not asked for: {%s}", gs[0].key())
			gs = gs[1:]
		default:
			d.points(ws[0].key(), ws[0].Points, gs[0].Points)
			ws, gs = ws[1:], gs[1:]
		}
	}
	return d.String()
}

func sorted(ss []Series) []Series {
	return slices.SortedStableFunc(slices.Values(ss), func(a, b Series) int { return strings.Compare(a.key(), b.key()) })
}

// diffs collects differences and writes out the first ones.
type diffs struct {
	shown []string
	more  int
}

func (d *diffs) addf(format string, args ...any) {
	if len(d.shown) == shownDiffs {
		d.more++
		return
	}
	d.shown = append(d.shown, fmt.Sprintf(format, args...))
}

// String returns all differences as text.
func (d *diffs) String() string {
	s := strings.Join(d.shown, "\n")
	if d.more > 0 {
		s += fmt.Sprintf("\n… and %d more", d.more)
	}
	return s
}

func (d *diffs) order(want, got []Series) {
	for i := range min(len(want), len(got)) {
		if want[i].key() != got[i].key() {
			d.addf("at place %d is {%s}, want {%s}", i, got[i].key(), want[i].key())
			return
		}
	}
}

func (d *diffs) points(key string, want, got []Point) {
	if len(want) != len(got) {
		d.addf("{%s} has %d points, want %d; first different time %s", key, len(got), len(want), firstOff(want, got))
		return
	}
	for i := range want {
		if want[i].Millis != got[i].Millis {
			d.addf("{%s} has a point at %d, want %d", key, got[i].Millis, want[i].Millis)
			return
		}
		if !samePoint(want[i], got[i]) {
			d.addf("{%s} at %d is %s, want %s", key, got[i].Millis, got[i], want[i])
			return
		}
	}
}

func firstOff(want, got []Point) string {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(want):
			return fmt.Sprintf("%d (not asked for)", got[i].Millis)
		case i >= len(got) || want[i].Millis != got[i].Millis:
			return fmt.Sprint(want[i].Millis)
		}
	}
	return "none"
}

// String writes the value of the point.
func (p Point) String() string {
	switch {
	case p.Histogram != nil:
		return p.Histogram.String()
	case p.Text != "":
		return p.Text
	default:
		return fmt.Sprint(p.Value)
	}
}

func samePoint(a, b Point) bool {
	if (a.Histogram == nil) != (b.Histogram == nil) || a.Text != b.Text {
		return false
	}
	if a.Histogram != nil {
		return sameHistogram(a.Histogram, b.Histogram)
	}
	return Close(a.Value, b.Value)
}

func sameHistogram(a, b *model.SampleHistogram) bool {
	if !Close(float64(a.Count), float64(b.Count)) || !Close(float64(a.Sum), float64(b.Sum)) || len(a.Buckets) != len(b.Buckets) {
		return false
	}
	for i, x := range a.Buckets {
		y := b.Buckets[i]
		if x.Boundaries != y.Boundaries || !Close(float64(x.Lower), float64(y.Lower)) ||
			!Close(float64(x.Upper), float64(y.Upper)) || !Close(float64(x.Count), float64(y.Count)) {
			return false
		}
	}
	return true
}

// Close tells whether two values are the same but for rounding.
func Close(a, b float64) bool {
	switch {
	case math.IsNaN(a) || math.IsNaN(b):
		return math.IsNaN(a) && math.IsNaN(b)
	case math.IsInf(a, 0) || math.IsInf(b, 0):
		return a == b
	default:
		return math.Abs(a-b) <= tolerance*max(1, math.Abs(a), math.Abs(b))
	}
}
