package frontend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/koios-metrics/koios/pkg/frontend/matrix"
)

// testAnswer is an answer with a point at each step from start to end, in ms, whose value is given.
func testAnswer(t testing.TB, start, end, step int64, value func(t int64) int, notes ...string) *matrix.Answer {
	t.Helper()
	var points []string
	for at := start; at <= end; at += step {
		points = append(points, fmt.Sprintf(`[%s,"%d"]`, formatTime(at), value(at)))
	}
	text := `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[` + strings.Join(points, ",") + `]}]}`
	if len(notes) > 0 {
		text += `,"infos":["` + strings.Join(notes, `","`) + `"]`
	}
	a, err := matrix.Decode([]byte(text + "}"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func textOf(t testing.TB, a *matrix.Answer) string {
	t.Helper()
	var b bytes.Buffer
	if err := a.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Shows that whatever is added to an entry in whatever order, extents stay apart and in order, what is added last is what is
// found, nothing is lost but parts of annotated extents, and what covers a range together with the gaps is the range. The
// entry goes through its bytes each time. A mutant that keeps the old extent where two overlap dies here.
func TestExtentsCover(t *testing.T) {
	const step = 10
	rnd := rand.New(rand.NewPCG(7, 8))
	for range 400 {
		var es []extent
		known := map[int64]int{}     // the value last added, by time
		doubtful := map[int64]bool{} // steps that an annotated extent had
		for version := range 12 {
			start := rnd.Int64N(60) * step
			end := start + rnd.Int64N(20)*step
			e := extent{start: start, end: end, answer: testAnswer(t, start, end, step, func(int64) int { return version })}
			if rnd.IntN(5) == 0 {
				e.answer = testAnswer(t, start, end, step, func(int64) int { return version }, "PromQL info")
			}
			for _, old := range es {
				if old.annotated() && old.start <= end && start <= old.end {
					for at := old.start; at <= old.end; at += step {
						doubtful[at] = true
					}
				}
			}
			es = addExtents(es, []extent{e}, step)
			for at := start; at <= end; at += step {
				known[at] = version
				delete(doubtful, at)
			}
			var err error
			if es, err = decodeExtents(encodeExtents(es), step); err != nil {
				t.Fatal(err)
			}
			from := rnd.Int64N(60) * step
			checkCover(t, es, from, from+rnd.Int64N(30)*step, step, known, doubtful)
		}
	}
}

func checkCover(t *testing.T, es []extent, from, to, step int64, known map[int64]int, doubtful map[int64]bool) {
	t.Helper()
	for i := 1; i < len(es); i++ {
		if es[i].start <= es[i-1].end {
			t.Fatalf("extents overlap: %d to %d, %d to %d", es[i-1].start, es[i-1].end, es[i].start, es[i].end)
		}
	}
	use, gaps := cover(es, from, to, step)
	seen := map[int64]int{}
	for _, e := range use {
		for at := e.start; at <= e.end; at += step {
			seen[at]++
			want := testAnswer(t, at, at, step, func(at int64) int { return known[at] }, e.answer.Infos...)
			if d := textOf(t, e.answer.Between(at, at)); d != textOf(t, want) {
				t.Fatalf("at %d: %s, want %s", at, d, textOf(t, want))
			}
		}
	}
	for _, g := range gaps {
		for at := g.start; at <= g.end; at += step {
			seen[at]++
			inAnnotated := slices.ContainsFunc(es, func(e extent) bool { return e.annotated() && e.start <= at && at <= e.end })
			if _, ok := known[at]; ok && !doubtful[at] && !inAnnotated {
				t.Fatalf("at %d there is a gap, though it was added", at)
			}
		}
	}
	for at := from; at <= to; at += step {
		if seen[at] != 1 {
			t.Fatalf("%d to %d: %d comes %d times", from, to, at, seen[at])
		}
		delete(seen, at)
	}
	if len(seen) > 0 {
		t.Fatalf("%d to %d: there is more: %v", from, to, seen)
	}
}

// Shows that bytes that are no entry are an error and never more: whatever is read can be written again.
func FuzzDecodeExtents(f *testing.F) {
	b := encodeExtents([]extent{
		{0, 50, testAnswer(f, 0, 50, 10, func(int64) int { return 1 })},
		{70, 70, testAnswer(f, 70, 70, 10, func(int64) int { return 2 }, "PromQL info")},
	})
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Add([]byte{entryVersion, 0, 20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	for i := range b {
		damaged := slices.Clone(b)
		damaged[i] ^= 4
		if _, err := decodeExtents(damaged, 10); !errors.Is(err, errEntry) {
			f.Errorf("byte %d is another one: %v", i, err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// With a checksum that is right, or all would be refused for that. Points are believed then.
		if len(b) >= entryHead {
			b = slices.Clone(b)
			binary.BigEndian.PutUint64(b[1:], xxhash.Sum64(b[entryHead:]))
		}
		es, err := decodeExtents(b, 10)
		if err != nil {
			if !errors.Is(err, errEntry) {
				t.Fatal(err)
			}
			return
		}
		if _, err := decodeExtents(encodeExtents(es), 10); err != nil {
			t.Error(err)
		}
	})
}
