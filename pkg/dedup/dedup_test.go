package dedup

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// point is a sample of a test: a float, or a histogram where h or fh is set.
type point struct {
	t  int64
	v  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

var stale = math.Float64frombits(value.StaleNaN)

// list walks over points.
type list struct {
	ps  []point
	i   int
	err error
}

func newList(ps []point) *list { return &list{ps: ps, i: -1} }

func (l *list) kind() chunkenc.ValueType {
	switch {
	case l.i < 0 || l.i >= len(l.ps):
		return chunkenc.ValNone
	case l.ps[l.i].h != nil:
		return chunkenc.ValHistogram
	case l.ps[l.i].fh != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

func (l *list) Next() chunkenc.ValueType {
	if l.i < len(l.ps) {
		l.i++
	}
	return l.kind()
}

//nolint:govet // The method of chunkenc.Iterator, not that of io.Seeker.
func (l *list) Seek(t int64) chunkenc.ValueType {
	for l.i < 0 || l.i < len(l.ps) && l.ps[l.i].t < t {
		l.i++
	}
	return l.kind()
}

func (l *list) At() (int64, float64) { return l.ps[l.i].t, l.ps[l.i].v }
func (l *list) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	return l.ps[l.i].t, l.ps[l.i].h.Copy()
}

func (l *list) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if l.ps[l.i].h != nil {
		return l.ps[l.i].t, l.ps[l.i].h.ToFloat(nil)
	}
	return l.ps[l.i].t, l.ps[l.i].fh.Copy()
}
func (l *list) AtT() int64 { return l.ps[l.i].t }
func (l *list) Err() error {
	if l.i >= len(l.ps) {
		return l.err
	}
	return nil
}

func merged(opts Options, replicas ...[]point) []point {
	its := make([]chunkenc.Iterator, len(replicas))
	for i, r := range replicas {
		its[i] = newList(r)
	}
	return drain(Merge(nil, its, opts))
}

func drain(it chunkenc.Iterator) (out []point) {
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		var p point
		switch kind {
		case chunkenc.ValFloat:
			p.t, p.v = it.At()
		case chunkenc.ValHistogram:
			p.t, p.h = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			p.t, p.fh = it.AtFloatHistogram(nil)
		}
		out = append(out, p)
	}
	return out
}

// parse reads "time:value time:value …" in seconds; the value may be "stale", and is the time if absent.
func parse(s string) (ps []point) {
	for f := range strings.FieldsSeq(s) {
		ts, vs, ok := strings.Cut(f, ":")
		t, err := strconv.ParseFloat(ts, 64)
		if err != nil {
			panic(err)
		}
		v := t
		if ok && vs == "stale" {
			v = stale
		} else if ok {
			if v, err = strconv.ParseFloat(vs, 64); err != nil {
				panic(err)
			}
		}
		ps = append(ps, point{t: int64(t * 1000), v: v})
	}
	return ps
}

func format(ps []point) string {
	var ss []string
	for _, p := range ps {
		s := strconv.FormatFloat(float64(p.t)/1000, 'f', -1, 64)
		switch {
		case value.IsStaleNaN(p.v):
			s += ":stale"
		case p.h != nil:
			s += fmt.Sprintf(":h%d", p.h.Count)
		case p.fh != nil:
			s += fmt.Sprintf(":fh%g", p.fh.Count)
		case p.v*1000 != float64(p.t):
			s += ":" + strconv.FormatFloat(p.v, 'g', -1, 64)
		}
		ss = append(ss, s)
	}
	return strings.Join(ss, " ")
}

// Shows each rule of DESIGN.md on streams that can be checked by eye. (It kills the mutants: no fill; half an interval
// left out; markers of the first replica kept in any case; markers of the others kept in any case.)
func TestStay(t *testing.T) {
	f := func(name, want string, replicas ...string) {
		t.Helper()
		var ps [][]point
		for _, r := range replicas {
			ps = append(ps, parse(r))
		}
		if got := format(merged(Options{}, ps...)); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	f("one alone", "0 15 30 90", "0 15 30 90")
	f("both complete", "0 15 30 45 60 75", "0 15 30 45 60 75", "5 20 35 50 65 80")
	f("one scrape missed", "0 15 30 50 60 75 90", "0 15 30 60 75 90", "5 20 35 50 65 80 95")
	f("the second missed one", "0 15 30 45 60 75 90", "0 15 30 45 60 75 90", "5 20 35 65 80 95")
	f("hole after the first sample", "0 20 35 50 60 75 90 105", "0 60 75 90 105", "5 20 35 50 65 80 95 110")
	f("outage", "0 15 30 50 65 80 95 110 125 140 155 300 315", "0 15 30 300 315", "5 20 35 50 65 80 95 110 125 140 155 290:stale")
	f("starts later", "0 15 30 45 60", "0 15 30 45 60", "35 50 65")
	f("starts earlier", "0 15 35 50 65", "35 50 65", "0 15 30 45 60")
	f("follows the end", "0 15 30 45 65 80", "0 15 30 45", "5 20 35 50 65 80")
	f("both missing", "0 15 30 90 105 115", "0 15 30 90 105", "5 20 35 100 115")
	f("three", "0 15 30 50 65 90 105", "0 15 30", "5 20 35 50 65", "0.5 90 105")
	f("the second's hole is the third's", "0 15 30 50 71 86 100 120 135", "0 15 30 120 135", "5 20 35 50 100 115 130", "11 26 41 56 71 86 101 116 131")
	f("an odd sample", "0 15 30 31 45 60 75", "0 15 30 31 45 60 75", "7 22 37 52 67")
	f("two samples, and one that knows the interval", "0 15.5 30.5 45.5 60 75", "0 60", "0.5 15.5 30.5 45.5 60.5 75")
	f("nobody knows the interval", "0 60", "0 60", "30")

	f("copies", "0 15 30 45 60 75 90", "0 15 45 60 90", "0 15 30 45 75 90")
	f("irregular copies", "0 7 60 61 65 190 200", "0 7 60 61 190 200", "0 7 60 65 190 200")
	f("copies that disagree", "0:1 15:2 30:3 45:9 60:10", "0:1 15:2 30:3 45:9 60:10", "0:1 15:5 30:6 45:7 60:10")

	f("stale and alive", "0 15 30 50 65", "0 15 30 32:stale", "5 20 35 50 65")
	f("stale on the one stayed on", "0 15 30 50 65", "0 15 30 45:stale", "5 20 35 50 65")
	f("stale in both", "0 15 30 45:stale", "0 15 30 45:stale", "5 20 35 50:stale")
	f("back from stale", "0 15 30 45:stale 300 315", "0 15 30 45:stale 300 315", "5 20 35 50:stale 305 320")
	f("copies back at once", "0 15 30:stale 45 60", "0 15 30:stale 45 60", "0 15 30:stale 45 60")
	f("copies back at once, one cut", "0 15 30:stale 45 60", "0 15 30:stale 45 60", "15 30:stale")
	f("copies back at once beside one alive", "0 15 35 45 60", "0 15 30:stale 45 60", "0 15 30:stale 45 60", "5 20 35 50 65")
	f("stale while another lives", "0 15 30 45 60 75 97 127", "0 15 30 45 60 75 90:stale", "22 52 67 82 97 127")
	f("stale before the start", "15 30", "0:stale 15 30", "5:stale 20 35")
	f("stale while late", "0 15 30 35:stale", "0 15 30", "5 20 35:stale")
	f("failed, and gone at the next", "0 15 30 50 65:stale", "0 15 30 45:stale", "5 20 35 50 65:stale")
	f("stale long after", "0 15 30 50 65 80", "0 15 30", "5 20 35 50 65 80")

	f("a restart that the other saw", "0:100 15:200 30:300 50:7 65:8", "0:100 15:200 30:300", "5:100 20:200 35:300 50:7 65:8")
	f("a restart that nobody saw", "0:100 15:200 30:300 90:7 105:8", "0:100 15:200 30:300", "90:7 105:8")
	f("own restart", "0:100 15:200 30:1 45:2", "0:100 15:200 30:1 45:2", "5:100 20:200 35:1 50:2")
}

// Shows that chain takes all samples, and of equal times the first replica's.
func TestChain(t *testing.T) {
	got := format(merged(Options{Mode: Chain}, parse("0 15:1 30"), parse("5 15:2 40")))
	if want := "0 5 15:1 30 40"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Shows that histograms of both kinds and floats pass through, also mixed, and that a hint about resets is
// taken back where the replica changes.
func TestHistograms(t *testing.T) {
	h := func(sec int64, count uint64) point {
		return point{t: sec * 1000, h: &histogram.Histogram{
			Count: count, ZeroCount: count, ZeroThreshold: 0.1, Sum: float64(count), CounterResetHint: histogram.NotCounterReset,
		}}
	}
	fh := func(sec int64, count uint64) point {
		p := h(sec, count)
		return point{t: p.t, fh: p.h.ToFloat(nil)}
	}
	a := []point{h(0, 1), h(15, 2), h(30, 3), h(45, 4), h(60, 5), h(75, 6), {t: 90_000, v: 1}}
	b := []point{h(80, 6), h(95, 7), fh(110, 8), fh(125, 9)}
	for range 20 {
		last := b[len(b)-1]
		b = append(b, fh(last.t/1000+15, uint64(last.fh.Count)+1))
	}
	got := merged(Options{}, a, b)
	if want := "0:h1 15:h2 30:h3 45:h4 60:h5 75:h6 90:1 110:fh8 125:fh9 140:fh10"; !strings.HasPrefix(format(got), want+" ") {
		t.Fatalf("got %s, want %s", format(got), want)
	}
	hints := []histogram.CounterResetHint{}
	for _, p := range got[7:10] {
		hints = append(hints, p.fh.CounterResetHint)
	}
	if want := []histogram.CounterResetHint{histogram.UnknownCounterReset, histogram.NotCounterReset, histogram.NotCounterReset}; !cmp.Equal(hints, want) {
		t.Errorf("hints: got %v, want %v", hints, want)
	}
	if got[1].h.CounterResetHint != histogram.NotCounterReset {
		t.Errorf("hint of the first replica: %v", got[1].h.CounterResetHint)
	}
}

// Shows that the error of a replica is reported, and that it may be the second one's.
func TestErr(t *testing.T) {
	broken := errors.New("broken")
	for _, order := range [][2]int{{0, 1}, {1, 0}} {
		ls := []chunkenc.Iterator{newList(parse("0 15 30 45")), &list{ps: parse("5 20"), i: -1, err: broken}}
		it := Merge(nil, []chunkenc.Iterator{ls[order[0]], ls[order[1]]}, Options{})
		drain(it)
		if !errors.Is(it.Err(), broken) {
			t.Errorf("got error %v", it.Err())
		}
		if it.Next() != chunkenc.ValNone {
			t.Error("a sample after the error")
		}
	}
}

// Shows that Seek finds the same samples as Next does, and that a reused iterator forgets its past.
func TestSeek(t *testing.T) {
	a, b := parse("0 15 30 60 75 90 105 120"), parse("5 20 35 50 65 80 95 110 125")
	all := merged(Options{}, a, b)
	var reuse chunkenc.Iterator
	for from := int64(0); from <= 130_000; from += 5_000 {
		reuse = Merge(reuse, []chunkenc.Iterator{newList(a), newList(b)}, Options{})
		var got []point
		if reuse.Seek(from) != chunkenc.ValNone {
			at, v := reuse.At()
			got = append([]point{{t: at, v: v}}, drain(reuse)...)
		}
		want := all[min(len(all), slices.IndexFunc(append(slices.Clone(all), point{t: math.MaxInt64}), func(p point) bool { return p.t >= from })):]
		if format(got) != format(want) {
			t.Errorf("from %d: got %s, want %s", from, format(got), format(want))
		}
	}
}

// Shows what flags may say.
func TestParseMode(t *testing.T) {
	f := func(s string, want Mode, ok bool) {
		t.Helper()
		got, err := ParseMode(s)
		if got != want || (err == nil) != ok {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	f("", Stay, true)
	f("penalty", Stay, true)
	f("chain", Chain, true)
	f("other", Stay, false)
}
