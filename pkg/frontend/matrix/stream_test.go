package matrix

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// Shows that an answer that is read while it comes, in whatever pieces, is the one that is read at once: with many
// short series, with some that are longer than slabs, and with all that may stand beside. So is one that was kept, and the
// length that an answer is said to have is that of its text. Mutants that die here: more does not take the rest along; a
// slab is no longer than the rest; Keep leaves out the comma between pieces.
func TestReadAndKept(t *testing.T) {
	for seed := range uint64(24) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		steps := []int{1, 3, 40, 1500}[rnd.IntN(4)]
		p := generate(rnd, 1_700_000_000_000, 15_000, steps, rnd.IntN(30_000/(steps+100)+1))
		if rnd.IntN(2) == 0 {
			p.Warnings, p.Infos, p.Data.Stats = []string{"a", "ü<"}, []string{"b"}, []byte(`{"samples":1}`)
		}
		in := text(t, p)
		whole := decode(t, in)
		var r io.Reader = bytes.NewReader(in)
		switch rnd.IntN(3) {
		case 0:
			r = iotest.HalfReader(r)
		case 1:
			r = iotest.DataErrReader(r)
		}
		a, err := Read(r)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if d := cmp.Diff(written(t, whole), written(t, a)); d != "" {
			t.Fatalf("seed %d: read: %s", seed, d)
		}
		if n := int64(len(written(t, a))); a.EncodedBytes() != n {
			t.Fatalf("seed %d: %d bytes are said to be %d", seed, n, a.EncodedBytes())
		}
		a.Stats = nil
		b := a.Keep(nil)
		if a.KeepBytes() < len(b) {
			t.Errorf("seed %d: %d bytes kept, at most %d were expected", seed, len(b), a.KeepBytes())
		}
		back, err := Kept(b)
		if err != nil {
			t.Fatalf("seed %d: kept: %v", seed, err)
		}
		if d := cmp.Diff(written(t, a), written(t, back)); d != "" {
			t.Fatalf("seed %d: kept: %s", seed, d)
		}
		middle := int64(1_700_000_000_000) + int64(steps)*7_500
		cut := Join(a.Between(0, middle), a.Between(middle+1, math.MaxInt64))
		if back, err = Kept(cut.Keep(nil)); err != nil {
			t.Fatalf("seed %d: kept: %v", seed, err)
		}
		if d := cmp.Diff(written(t, a), written(t, back)); d != "" {
			t.Fatalf("seed %d: cut, joined and kept: %s", seed, d)
		}
	}
}

func written(t *testing.T, a *Answer) string {
	t.Helper()
	var b strings.Builder
	if err := a.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// An answer that ends too early is refused wherever it ends, and the error of a reader is the one that is told.
func TestReadRefuses(t *testing.T) {
	in := text(t, generate(rand.New(rand.NewPCG(1, 1)), 1_700_000_000_000, 15_000, 5, 4))
	for i := range in {
		if _, err := Read(bytes.NewReader(in[:i])); !errors.Is(err, ErrSyntax) {
			t.Errorf("cut at %d: %v", i, err)
		}
		broken := errors.New("broken")
		if _, err := Read(io.MultiReader(bytes.NewReader(in[:i]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("broken at %d: %v", i, err)
		}
	}
}

// What was kept and is cut off anywhere, or has something behind it, is refused.
func TestKeptRefuses(t *testing.T) {
	a := decode(t, text(t, generate(rand.New(rand.NewPCG(1, 1)), 1_700_000_000_000, 15_000, 5, 4)))
	a.Infos = []string{"i"}
	b := a.Keep(nil)
	for i := range b {
		if _, err := Kept(b[:i]); !errors.Is(err, ErrSyntax) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if _, err := Kept(append(b, 0)); !errors.Is(err, ErrSyntax) {
		t.Errorf("with one more byte: %v", err)
	}
}

// FuzzRead shows that what is read while it comes is refused or read as Decode does it.
func FuzzRead(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 5 {
		f.Add(text(f, generate(rnd, 1_700_000_000_000, 15_000, 10, 3)))
	}
	f.Add([]byte(usualHead + `{"metric":{},"values":[[1.5,"1"],[20,"2"],[30,"NaN"]]} ] ,"stats":{}},"warnings":["w"] } `))
	f.Add([]byte(usualHead + `]}} x`))
	f.Fuzz(func(t *testing.T, b []byte) {
		want, wantErr := Decode(b)
		got, err := Read(iotest.OneByteReader(bytes.NewReader(b)))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("Decode: %v, Read: %v", wantErr, err)
		}
		if err == nil && written(t, want) != written(t, got) {
			t.Fatalf("Decode: %s\nRead: %s", written(t, want), written(t, got))
		}
	})
}

// FuzzKept shows that no bytes make reading what was kept fail in another way than with an error.
func FuzzKept(f *testing.F) {
	f.Add(decode(f, text(f, generate(rand.New(rand.NewPCG(1, 1)), 1_700_000_000_000, 15_000, 5, 4))).Keep(nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Kept(b); err != nil && !errors.Is(err, ErrSyntax) {
			t.Fatal(err)
		}
	})
}
