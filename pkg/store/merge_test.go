package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

func chunk(mint, maxt int64, data string) Chunk {
	return Chunk{MinTime: mint, MaxTime: maxt, Raw: Payload{Encoding: chunkenc.EncXOR, Data: []byte(data)}}
}

func series(text string, cs ...Chunk) *Series {
	return &Series{Labels: labels.FromStrings("l", text), Chunks: cs}
}

func show(t *testing.T, c Cursor) string {
	t.Helper()
	all, ws, err := Drain(c)
	s := ""
	for _, x := range all {
		s += x.Labels.Get("l") + "["
		for i := range x.Chunks {
			s += fmt.Sprintf("%d-%d:%s ", x.Chunks[i].MinTime, x.Chunks[i].MaxTime, x.Chunks[i].Raw.Data)
		}
		s += "] "
	}
	for _, w := range ws {
		s += "warning " + w.Error() + " "
	}
	if err != nil {
		s += "error " + err.Error()
	}
	return s
}

// Merge joins equal series, puts their chunks in order and drops equal chunks, also where the inputs cut
// a series at different places; warnings add up and an error ends it.
func TestMerge(t *testing.T) {
	a, b, c := chunk(1, 5, "a"), chunk(6, 9, "b"), chunk(6, 9, "c")
	f := func(want string, in ...Cursor) {
		t.Helper()
		if got := show(t, Merge(in)); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	cur := func(ss ...*Series) Cursor { return NewSliceCursor(ss) }
	f("")
	f("", cur())
	f("", cur(), cur(), cur())
	f("x[1-5:a ] ", cur(series("x", a)))
	f("x[1-5:a 6-9:b ] y[1-5:a ] z[6-9:b ] ", cur(series("x", b), series("z", b)), cur(series("x", a), series("y", a)))
	f("x[1-5:a 6-9:b 6-9:c ] ", cur(series("x", a, b)), cur(series("x", a, c)), cur(series("x", a)))
	// One input cuts the series in two, the other does not.
	f("x[1-5:a 6-9:b ] x[6-9:c ] y[1-5:a ] ", cur(series("x", a), series("x", b), series("x", c), series("y", a)), cur(series("x", a, b)))
	f("x[1-5:a ] x[6-9:b 6-9:c ] ", cur(series("x", a), series("x", b)), cur(series("x", a), series("x", c)), cur())
	f("x[1-5:a ] warning w1 warning w2 ", NewSliceCursor([]*Series{series("x", a)}, errors.New("w1")), NewSliceCursor(nil, errors.New("w2")))
	f("error broken", cur(series("x", a)), ErrCursor(errors.New("broken")))
}

// Of equal chunks of several replicas Merge keeps one, in the name of the first of those that are known, in
// whatever order the inputs come. Where an input cuts the series so that the first is seen too late, the chunk
// comes again in its name, and SortChunks over all parts tells the same as without cuts. (Seen to die: comparing
// replicas as plain strings; keeping the first to come; dropping what was handed out before, whoever's it is.)
func TestMergeReplicas(t *testing.T) {
	in := func(replica string, cs ...Chunk) []Chunk {
		cs = slices.Clone(cs)
		for i := range cs {
			cs[i].Replica = replica
		}
		return cs
	}
	c1, c2, c3 := chunk(1, 5, "a"), chunk(6, 9, "b"), chunk(6, 9, "c")
	inputs := map[string][]*Series{
		"a":       {series("x", in("a", c1)...), series("x", in("a", c2)...)},
		"b":       {series("x", in("b", c1, c2, c3)...)},
		"unknown": {series("x", in("", c1, c3)...), series("y", in("", c1)...)},
	}
	for _, order := range [][]string{{"a", "b", "unknown"}, {"a", "unknown", "b"}, {"b", "a", "unknown"}, {"b", "unknown", "a"}, {"unknown", "a", "b"}, {"unknown", "b", "a"}} {
		var cursors []Cursor
		for _, name := range order {
			cursors = append(cursors, NewSliceCursor(inputs[name]))
		}
		all, _, err := Drain(Merge(cursors))
		if err != nil {
			t.Fatal(err)
		}
		parts := map[string][]Chunk{}
		for _, s := range all {
			parts[s.Labels.Get("l")] = append(parts[s.Labels.Get("l")], s.Chunks...)
		}
		got := ""
		for _, l := range []string{"x", "y"} {
			for _, c := range SortChunks(parts[l]) {
				got += fmt.Sprintf("%s %d:%s of %q; ", l, c.MinTime, c.Raw.Data, c.Replica)
			}
		}
		if want := `x 1:a of "a"; x 6:b of "a"; x 6:c of "b"; y 1:a of ""; `; got != want {
			t.Errorf("%v:\ngot  %s\nwant %s", order, got, want)
		}
	}
}

// Whatever the number of inputs, Merge hands out the union of their series once each, in order.
func TestMergeRandom(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		all := map[string]bool{}
		var in []Cursor
		for range rnd.IntN(12) {
			set := map[string]bool{}
			for range rnd.IntN(20) {
				set[fmt.Sprintf("%02d", rnd.IntN(30))] = true
			}
			var ss []*Series
			for _, k := range sortedKeys(set) {
				all[k] = true
				ss = append(ss, series(k, chunk(1, 2, "same")))
			}
			in = append(in, NewSliceCursor(ss))
		}
		var got []string
		m := Merge(in)
		for m.Next() {
			got = append(got, m.At().Labels.Get("l"))
			if len(m.At().Chunks) != 1 {
				t.Errorf("seed %d: %d chunks, want the equal ones once", seed, len(m.At().Chunks))
			}
		}
		if want := sortedKeys(all); !slices.Equal(got, want) {
			t.Fatalf("seed %d: got %v, want %v", seed, got, want)
		}
	}
}

func sortedKeys(m map[string]bool) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

// BenchmarkMerge merges inputs that hold the same 1,000 series of 10 chunks, as HA replicas of receivers do.
func BenchmarkMerge(b *testing.B) {
	for _, inputs := range []int{2, 8} {
		b.Run(fmt.Sprintf("inputs=%d", inputs), func(b *testing.B) {
			var ss []*Series
			for i := range 1000 {
				s := &Series{Labels: labels.FromStrings("__name__", "requests_total", "instance", fmt.Sprintf("host-%04d", i), "job", "node")}
				for j := range int64(10) {
					s.Chunks = append(s.Chunks, chunk(j*100, j*100+99, fmt.Sprintf("%0150d", i)))
				}
				ss = append(ss, s)
			}
			b.ReportAllocs()
			for b.Loop() {
				in := make([]Cursor, inputs)
				for i := range in {
					in[i] = NewSliceCursor(ss)
				}
				m := Merge(in)
				n := 0
				for m.Next() {
					n += len(m.At().Chunks)
				}
				if n != 10_000 {
					b.Fatalf("%d chunks, want 10000", n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(1000*inputs), "ns/series")
		})
	}
}
