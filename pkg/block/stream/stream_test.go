package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// testSeries is a series of a generated block.
type testSeries struct {
	labels labels.Labels
	chunks []chunks.Meta
}

// generate makes n series with labels of several kinds and a few chunks each.
func generate(t testing.TB, seed uint64, n int) []testSeries {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 3))
	seen := map[string]bool{}
	var all []testSeries
	for len(all) < n {
		b := labels.NewScratchBuilder(4)
		b.Add("__name__", fmt.Sprintf("metric_%d", rnd.IntN(7)))
		b.Add("instance", fmt.Sprintf("host-%05d", rnd.IntN(3*n)))
		if rnd.IntN(3) > 0 {
			b.Add("zone", string(rune('a'+rnd.IntN(5))))
		}
		b.Sort()
		ls := b.Labels()
		if seen[ls.String()] {
			continue
		}
		seen[ls.String()] = true
		s := testSeries{labels: ls}
		at := rnd.Int64N(2000) - 1000
		for range 1 + rnd.IntN(4) {
			c := chunkenc.NewXORChunk()
			app, err := c.Appender()
			if err != nil {
				t.Fatal(err)
			}
			m := chunks.Meta{Chunk: c, MinTime: at}
			for range 1 + rnd.IntN(120) {
				app.Append(at, rnd.NormFloat64())
				m.MaxTime = at
				at += 1 + rnd.Int64N(30000)
			}
			s.chunks = append(s.chunks, m)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b testSeries) int { return labels.Compare(a.labels, b.labels) })
	return all
}

func symbolsOf(all []testSeries) []string {
	var symbols []string
	for _, s := range all {
		s.labels.Range(func(l labels.Label) { symbols = append(symbols, l.Name, l.Value) })
	}
	slices.Sort(symbols)
	return slices.Compact(symbols)
}

// writeTheirs writes a block with Prometheus's writers.
func writeTheirs(t testing.TB, dir string, all []testSeries, segmentBytes int64) {
	t.Helper()
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"), chunks.WithSegmentSize(segmentBytes))
	if err != nil {
		t.Fatal(err)
	}
	iw, err := index.NewWriter(t.Context(), filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbolsOf(all) {
		if err := iw.AddSymbol(s); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range all {
		cs := slices.Clone(s.chunks)
		if err := cw.WriteChunks(cs...); err != nil {
			t.Fatal(err)
		}
		if err := iw.AddSeries(storage.SeriesRef(i), s.labels, cs...); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(cw.Close(), iw.Close()); err != nil {
		t.Fatal(err)
	}
}

// copyBlock reads a block with a Reader and writes it with a Writer.
func copyBlock(from Files, to string, rc Config, wc WriterConfig) (Stats, error) {
	r, err := OpenReader(from, rc)
	if err != nil {
		return Stats{}, err
	}
	defer r.Close()
	w, err := NewWriter(to, wc)
	if err != nil {
		return Stats{}, err
	}
	defer w.Abort()
	symbols, err := r.Symbols()
	if err != nil {
		return Stats{}, err
	}
	for {
		s, err := symbols.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = w.AddSymbol(s)
		}
		if err != nil {
			return Stats{}, err
		}
	}
	var s Series
	for {
		err := r.Read(&s)
		if errors.Is(err, io.EOF) {
			return w.Close()
		}
		if err == nil {
			err = w.AddSeries(s.Labels, s.Chunks)
		}
		if err != nil {
			return Stats{}, err
		}
	}
}

// A block that Prometheus's writers wrote, read and written again, is the same block byte for byte: whether
// postings fit memory or are sorted outside of it, with windows shorter than what is read, and in one chunk file or several.
func TestCopyIsIdentical(t *testing.T) {
	// Mutants killed: postings sorted by value before name; seal without the number of entries; no padding of postings.
	f := func(n int, segmentBytes int64, rc Config, wc WriterConfig) {
		t.Helper()
		theirs, ours := t.TempDir(), t.TempDir()
		all := generate(t, uint64(n), n)
		writeTheirs(t, theirs, all, segmentBytes)
		wc.SegmentBytes = segmentBytes
		stats, err := copyBlock(Dir(theirs), ours, rc, wc)
		if err != nil {
			t.Fatal(err)
		}
		if stats.Series != uint64(n) {
			t.Errorf("%d series, want %d", stats.Series, n)
		}
		same(t, theirs, ours)
	}
	f(1, SegmentBytesMax, Config{}, WriterConfig{})
	f(300, SegmentBytesMax, Config{}, WriterConfig{})
	f(300, SegmentBytesMax, Config{WindowBytes: 1}, WriterConfig{PostingsHeld: 7})
	f(2000, 20_000, Config{WindowBytes: 300}, WriterConfig{PostingsHeld: 1000})
}

// same fails unless two block directories hold the same files but for meta.json.
func same(t *testing.T, want, got string) {
	t.Helper()
	for _, pattern := range []string{"index", "chunks/*", "*"} {
		a, _ := filepath.Glob(filepath.Join(want, pattern))
		b, _ := filepath.Glob(filepath.Join(got, pattern))
		if len(a) != len(b) || len(a) == 0 {
			t.Fatalf("%s: %d files, want %d: %v", pattern, len(b), len(a), b)
		}
		for i := range a {
			if st, err := os.Stat(a[i]); err != nil || st.IsDir() {
				continue
			}
			x, err := os.ReadFile(a[i])
			if err != nil {
				t.Fatal(err)
			}
			y, err := os.ReadFile(b[i])
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(x, y) {
				at := 0
				for at < min(len(x), len(y)) && x[at] == y[at] {
					at++
				}
				t.Errorf("%s: %d bytes, want %d; they differ from byte %d on", filepath.Base(b[i]), len(y), len(x), at)
			}
		}
	}
}

// Labels gives back the strings that the series were written with, and chunks their bytes.
func TestReadLabels(t *testing.T) {
	dir := t.TempDir()
	all := generate(t, 5, 200)
	writeTheirs(t, dir, all, SegmentBytesMax)
	r, err := OpenReader(Dir(dir), Config{WindowBytes: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var (
		s Series
		b = labels.NewScratchBuilder(0)
	)
	for _, want := range all {
		if err := r.Read(&s); err != nil {
			t.Fatal(err)
		}
		got, err := r.Labels(&b, &s)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.labels.String(), got.String()); diff != "" {
			t.Fatal(diff)
		}
		for i, c := range s.Chunks {
			if w := want.chunks[i]; !bytes.Equal(w.Chunk.Bytes(), c.Data) || w.MinTime != c.MinTime || w.MaxTime != c.MaxTime || c.Encoding != chunkenc.EncXOR {
				t.Fatalf("%s: chunk %d differs", got, i)
			}
		}
	}
	if err := r.Read(&s); !errors.Is(err, io.EOF) {
		t.Errorf("after the last series: %v", err)
	}
}
