package store

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

func stored(ls ...labels.Labels) Cursor {
	slices.SortFunc(ls, labels.Compare)
	var ss []*Series
	for _, l := range ls {
		ss = append(ss, &Series{Labels: l, Chunks: []Chunk{chunk(1, 2, l.String())}})
	}
	return NewSliceCursor(ss)
}

// reference is what Relabel must hand out: all series relabelled and then sorted.
func reference(ls []labels.Labels, opt RelabelOptions) []string {
	var out []labels.Labels
	for _, l := range ls {
		b := labels.NewBuilder(l)
		opt.External.Range(func(x labels.Label) { b.Set(x.Name, x.Value) })
		b.Del(opt.Drop...)
		out = append(out, b.Labels())
	}
	slices.SortFunc(out, labels.Compare)
	ss := make([]string, len(out))
	for i := range out {
		ss[i] = out[i].String()
	}
	return ss
}

func labelsOf(t *testing.T, c Cursor) []string {
	t.Helper()
	defer c.Close()
	got := []string{}
	for c.Next() {
		got = append(got, c.At().Labels.String())
	}
	if c.Err() != nil {
		t.Errorf("unexpected error: %v", c.Err())
	}
	return got
}

// Over random label sets Relabel equals relabelling and sorting, both when it streams and when it sorts.
func TestRelabelRandom(t *testing.T) {
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		names := []string{"a", "b", "c", "d", "e"}
		set := map[string]labels.Labels{}
		for range 1 + rnd.IntN(25) {
			b := labels.NewBuilder(labels.FromStrings("M", string(rune('x'+rnd.IntN(2)))))
			for _, n := range names {
				if rnd.IntN(2) == 0 {
					b.Set(n, string(rune('1'+rnd.IntN(2))))
				}
			}
			set[b.Labels().String()] = b.Labels()
		}
		var ls []labels.Labels
		for _, l := range set {
			ls = append(ls, l)
		}
		ext := labels.NewBuilder(labels.EmptyLabels())
		for _, n := range []string{"A", "aa", "bb", "cc", "z"} {
			if rnd.IntN(3) == 0 {
				ext.Set(n, "E")
			}
		}
		opt := RelabelOptions{External: ext.Labels(), Drop: []string{"bb"}}
		if seed%2 == 1 { // labels that are stored, too
			ext.Set(names[rnd.IntN(5)], "E")
			opt = RelabelOptions{External: ext.Labels(), Drop: []string{names[rnd.IntN(5)]}, MayClash: true}
		}
		if got, want := labelsOf(t, Relabel(stored(ls...), opt)), reference(ls, opt); !slices.Equal(got, want) {
			t.Fatalf("seed %d, %+v:\ngot  %v\nwant %v", seed, opt, got, want)
		}
	}
}

// A label that turns up against the proof is sorted in if nothing after it has been handed out, and an
// error, never a wrong order, otherwise.
func TestRelabelSurprise(t *testing.T) {
	opt := RelabelOptions{External: labels.FromStrings("r", "1"), Drop: []string{"x"}}
	late := []labels.Labels{labels.FromStrings("a", "1"), labels.FromStrings("b", "1", "x", "1"), labels.FromStrings("b", "1", "x", "2"), labels.FromStrings("b", "2")}
	if got, want := labelsOf(t, Relabel(stored(late...), opt)), reference(late, opt); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	bad := []labels.Labels{labels.FromStrings("b", "1"), labels.FromStrings("b", "1", "c", "1"), labels.FromStrings("b", "1", "x", "2")}
	c := Relabel(stored(bad...), RelabelOptions{External: labels.FromStrings("A", "1"), Drop: []string{"x"}})
	for c.Next() {
	}
	if c.Err() == nil {
		t.Error("series that came too late for their place were handed out without an error")
	}
}

// What is held for sorting is charged to the budget and given back on Close; past it the cursor ends
// with an error of KindLimit.
func TestRelabelBudget(t *testing.T) {
	ls := []labels.Labels{labels.FromStrings("a", "1", "x", "1"), labels.FromStrings("a", "2"), labels.FromStrings("a", "3")}
	b := NewBudget("memory for sorting", 300)
	c := Relabel(stored(ls...), RelabelOptions{Drop: []string{"x"}, MayClash: true, Budget: b})
	if c.Next() || KindOf(c.Err()) != KindLimit {
		t.Errorf("three series passed a budget of 300 bytes, error %v", c.Err())
	}
	if b.Used() == 0 {
		t.Error("nothing was charged")
	}
	c.Close()
	if b.Used() != 0 {
		t.Errorf("%d bytes are still charged after Close", b.Used())
	}
	broken := Relabel(ErrCursor(errors.New("disk")), RelabelOptions{External: labels.FromStrings("r", "1")})
	if broken.Next() || broken.Err() == nil {
		t.Error("the error of the input was lost")
	}
}

// BenchmarkRelabel measures the streaming path: two external labels into 1,000 series.
func BenchmarkRelabel(b *testing.B) {
	var ss []*Series
	for i := range 1000 {
		ss = append(ss, &Series{Labels: labels.FromStrings("__name__", "m", "instance", string(rune('a'+i%26))+string(rune('a'+i/26)), "job", "node"), Chunks: []Chunk{chunk(1, 2, "x")}})
	}
	b.ReportAllocs()
	for b.Loop() {
		c := Relabel(NewSliceCursor(ss), RelabelOptions{External: labels.FromStrings("cluster", "eu", "replica", "a")})
		for c.Next() {
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/series")
}
