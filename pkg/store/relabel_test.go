package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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

// Every chunk is named after the labels that its series loses, external ones before stored ones of the same
// name, whether series stream or are sorted; what an inner Store has named is kept. The chunks that came stay
// as they were. (Seen to die: names taken from stored labels first; naming the chunks in place.)
func TestRelabelNamesReplicas(t *testing.T) {
	f := func(want string, opt RelabelOptions, named string, ls ...labels.Labels) {
		t.Helper()
		var in []*Series
		for _, l := range ls {
			c := chunk(1, 2, l.String())
			c.Replica = named
			in = append(in, &Series{Labels: l, Chunks: []Chunk{c}})
		}
		slices.SortFunc(in, func(a, b *Series) int { return labels.Compare(a.Labels, b.Labels) })
		all, _, err := Drain(Relabel(NewSliceCursor(in), opt))
		got := ""
		for _, s := range all {
			got += s.Labels.String() + " " + strings.ReplaceAll(s.Chunks[0].Replica, "\x00", ",") + "; "
		}
		if got != want || err != nil {
			t.Errorf("got  %s (%v)\nwant %s", got, err, want)
		}
		for _, s := range in {
			if s.Chunks[0].Replica != named {
				t.Errorf("the input's chunk was renamed to %q", s.Chunks[0].Replica)
			}
		}
	}
	ext := labels.FromStrings("c", "eu", "q", "7", "r", "a")
	m, m1, m2 := labels.FromStrings("n", "m"), labels.FromStrings("n", "m", "r", "b", "s", "1"), labels.FromStrings("n", "m", "s", "2")
	f(`{c="eu", n="m", q="7"} r,a,; `, RelabelOptions{External: ext, Drop: []string{"r"}}, "", m)
	f(`{c="eu", n="m", q="7", r="a"} ; `, RelabelOptions{External: ext, Drop: []string{"s"}}, "", m)
	f(`{c="eu", n="m"} q,7,r,a,; `, RelabelOptions{External: ext, Drop: []string{"s", "r", "q"}}, "", m)
	f(`{c="eu", n="m"} q,7,r,a,; {c="eu", n="m"} q,7,r,a,s,1,; {c="eu", n="m"} q,7,r,a,s,2,; `,
		RelabelOptions{External: ext, Drop: []string{"s", "r", "q"}, MayClash: true}, "", m, m1, m2)
	f(`{n="m"} ; {n="m"} s,2,; {n="m", r="b"} s,1,; `, RelabelOptions{Drop: []string{"s"}, MayClash: true}, "", m, m1, m2)
	f(`{c="eu", n="m", q="7"} a,1,r,a,; {c="eu", n="m", q="7"} a,1,r,a,s,2,; `, RelabelOptions{External: ext, Drop: []string{"r", "s"}, MayClash: true}, "a\x001\x00", m, m2)
	f(`{n="m"} a,1,; `, RelabelOptions{Drop: []string{"r"}}, "a\x001\x00", m)
}

// Names join alike in whatever order the labels were removed, and an unknown replica is the last.
func TestReplicas(t *testing.T) {
	ls := labels.FromStrings("a", "1", "b", "2", "c", "3", "d", "4")
	whole := ReplicaOf(ls, []string{"c", "a", "b"})
	if want := "a\x001\x00b\x002\x00c\x003\x00"; whole != want {
		t.Errorf("got %q, want %q", whole, want)
	}
	one := func(n string) string { return ReplicaOf(ls, []string{n}) }
	for _, p := range [][3]string{{"a", "b", "c"}, {"c", "b", "a"}, {"b", "c", "a"}} {
		if got := JoinReplicas(JoinReplicas(one(p[0]), one(p[1])), JoinReplicas(one(p[2]), whole)); got != whole {
			t.Errorf("%v: got %q, want %q", p, got, whole)
		}
	}
	if ReplicaOf(ls, []string{"e"}) != "" || JoinReplicas("", one("a")) != one("a") || JoinReplicas(one("a"), "") != one("a") {
		t.Error("nothing removed is not told as nothing")
	}
	if CompareReplicas("", "a") <= 0 || CompareReplicas("a", "") >= 0 || CompareReplicas("a", "b") >= 0 || CompareReplicas("a", "a") != 0 || CompareReplicas("", "") != 0 {
		t.Error("order of replicas")
	}
}

// InReplica names chunks without a name, lent ones and kept ones, and leaves the lender's as they are.
func TestInReplica(t *testing.T) {
	other := chunk(3, 4, "y")
	other.Replica = "b"
	in := []*Series{series("1", chunk(1, 2, "x"), other), series("2", chunk(1, 2, "x"))}
	c := InReplica(NewSliceCursor(in), "a")
	for c.Next() {
		for _, s := range []*Series{c.At(), Keep(c), c.At()} {
			if s.Chunks[0].Replica != "a" || len(s.Chunks) > 1 && s.Chunks[1].Replica != "b" {
				t.Errorf("series %s: got %q", s.Labels, s.Chunks[0].Replica)
			}
		}
	}
	if in[0].Chunks[0].Replica != "" || in[1].Chunks[0].Replica != "" {
		t.Error("the lender's chunks were named")
	}
	if plain := NewSliceCursor(in); InReplica(plain, "") != Cursor(plain) {
		t.Error("no replica needs no cursor")
	}
}

// A name is one string however often it comes, and no more of them are held than the bound.
func TestInterner(t *testing.T) {
	var in Interner
	a, b := []byte("a"), []byte("b")
	if in.String(a) != "a" || in.String(b) != "b" {
		t.Error("another string")
	}
	if n := testing.AllocsPerRun(100, func() { in.String(a); in.String(b); in.String(b) }); n != 0 {
		t.Errorf("%v allocations for known names, want 0", n)
	}
	for i := range 3 * internedMax {
		if s := fmt.Sprint(i); in.String([]byte(s)) != s {
			t.Fatalf("another string for %s", s)
		}
	}
	if len(in.all) > internedMax {
		t.Errorf("%d names are held, want at most %d", len(in.all), internedMax)
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
