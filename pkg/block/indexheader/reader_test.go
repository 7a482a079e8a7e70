package indexheader

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-kit/log"
	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"
)

var id = ulid.MustParse("01HF00000000000000000000AB")

// writeIndex writes the index of series {__name__="m", i="n", mod="n%7"} and returns its path.
func writeIndex(t testing.TB, series int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "index")
	w, err := index.NewWriter(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	symbols := map[string]bool{"__name__": true, "m": true, "i": true, "mod": true}
	var all []labels.Labels
	for i := range series {
		n, mod := fmt.Sprint(i), fmt.Sprint(i%7)
		symbols[n], symbols[mod] = true, true
		all = append(all, labels.FromStrings("__name__", "m", "i", n, "mod", mod))
	}
	var sorted []string
	for s := range symbols {
		sorted = append(sorted, s)
	}
	slices.Sort(sorted)
	for _, s := range sorted {
		if err := w.AddSymbol(s); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(all, labels.Compare)
	for i, ls := range all {
		if err := w.AddSeries(storage.SeriesRef(i), ls, chunks.Meta{MinTime: 1, MaxTime: 2}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func buildFrom(t testing.TB, indexPath string) (string, error) {
	t.Helper()
	bkt := objstore.NewInMemBucket()
	f, err := os.Open(indexPath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := bkt.Upload(t.Context(), id.String()+"/index", f); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), id.String(), Filename)
	return path, build(t.Context(), bkt, id, 0, path)
}

// open opens a header on disk.
func open(path string, sampling int) (*Reader, error) {
	p := NewPool(nil, Config{Sampling: sampling}, log.NewNopLogger(), nil)
	r := &Reader{pool: p, path: path, build: func(context.Context) error { return errNoBucket }}
	var err error
	r.Hold()
	r.c, r.file, err = r.read()
	return r, err
}

var errNoBucket = errors.New("no bucket")

// parse opens a header in memory.
func parse(b []byte, sampling int) (*Reader, error) {
	c, err := readContent(bytes.NewReader(b), int64(len(b)), max(sampling, 1))
	return &Reader{c: c, file: inMemory{bytes.NewReader(b)}}, err
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

// Shows that the header knows the same symbols, names, values and posting lists as the index itself, at any sampling.
func TestReaderEqualsIndex(t *testing.T) {
	for _, series := range []int{0, 1, 31, 32, 33, 500} {
		indexPath := writeIndex(t, series)
		ir, err := index.NewFileReader(indexPath, index.DecodePostingsRaw)
		if err != nil {
			t.Fatal(err)
		}
		defer ir.Close()
		ranges, err := ir.PostingsRanges()
		if err != nil {
			t.Fatal(err)
		}
		path, err := buildFrom(t, indexPath)
		if err != nil {
			t.Fatal(err)
		}
		for _, sampling := range []int{1, 2, 32, 1000} {
			r, err := open(path, sampling)
			if err != nil {
				t.Fatal(err)
			}
			names, err := ir.LabelNames(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(names, append([]string{}, r.LabelNames()...)); diff != "" && len(names) > 0 {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			for _, name := range append(names, "") {
				var want, got []string
				if name == "" {
					want = []string{""}
				} else if want, err = ir.SortedLabelValues(context.Background(), name, nil); err != nil {
					t.Fatal(err)
				}
				r.Values(name, func(v string, rg Range) bool {
					v = strings.Clone(v)
					got = append(got, v)
					one, ok := r.Postings(name, v)
					if !ok || one != rg {
						t.Errorf("postings of %s=%q: %v %v, in a walk %v", name, v, one, ok, rg)
					}
					// The index's own range leaves out the length and the checksum, and padding of up to 3 bytes may follow.
					w := ranges[labels.Label{Name: name, Value: v}]
					if d := rg.End - 4 - w.End; rg.Start != w.Start-4 || d < 0 || d > 3 {
						t.Errorf("postings of %s=%q: %v, index %v", name, v, rg, w)
					}
					return true
				})
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("values of %q (-want +got):\n%s", name, diff)
				}
				for _, absent := range []string{"", "!", "zzz", "1x", "00"} {
					if _, ok := r.Postings(name, absent); ok && name != "" {
						t.Errorf("%s=%q found", name, absent)
					}
				}
			}
			if r.HasLabel("nope") || (series > 0) != r.HasLabel("mod") {
				t.Error("HasLabel is wrong")
			}
			symbols := r.Symbols()
			it, ref := ir.Symbols(), uint32(0)
			for it.Next() {
				for _, lookup := range []func(uint32) (string, error){r.Symbol, symbols.Lookup} {
					if s, err := lookup(ref); err != nil || s != it.At() {
						t.Errorf("symbol %d: %q %v, want %q", ref, s, err, it.At())
					}
				}
				ref++
			}
			for _, behind := range []uint32{ref, ref + 31, ref + 1000, 1<<32 - 1} {
				if _, err := r.Symbol(behind); !errors.Is(err, ErrCorrupt) {
					t.Errorf("symbol behind the last: %v", err)
				}
				if _, err := symbols.Lookup(behind); !errors.Is(err, ErrCorrupt) {
					t.Errorf("symbol behind the last: %v", err)
				}
			}
			st, _ := os.Stat(indexPath)
			if r.IndexSize() != st.Size() || r.IndexVersion() != 2 {
				t.Errorf("size %d, version %d", r.IndexSize(), r.IndexVersion())
			}
			r.Release()
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// Shows the layout of the file, byte by byte where it is fixed.
func TestLayout(t *testing.T) {
	indexPath := writeIndex(t, 10)
	raw, err := os.ReadFile(indexPath)
	if err != nil {
		t.Fatal(err)
	}
	toc, err := index.NewTOCFromByteSlice(bytesOf(raw))
	if err != nil {
		t.Fatal(err)
	}
	path, err := buildFrom(t, indexPath)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{0xBA, 0xAA, 0xD7, 0x92, 1, 2}
	want = binary.BigEndian.AppendUint64(want, toc.PostingsTable)
	want = append(want, raw[toc.Symbols:toc.Series]...)
	table := uint64(len(want))
	want = append(want, raw[toc.PostingsTable:]...)
	tail := binary.BigEndian.AppendUint64(nil, 14)
	tail = binary.BigEndian.AppendUint64(tail, table)
	want = append(want, binary.BigEndian.AppendUint32(tail, crc32.Checksum(tail, castagnoli))...)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Shows that a table which is not sorted is read too. The two names are swapped in place; they are of equal length.
func TestUnsortedTable(t *testing.T) {
	path, err := buildFrom(t, writeIndex(t, 40))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sorted, err := parse(slices.Clone(b), 0)
	if err != nil {
		t.Fatal(err)
	}
	// Rename mod to aaa, which sorts before __name__'s successors: the table is not in order any more.
	pos := int(binary.BigEndian.Uint64(b[len(b)-tocLen+8:]))
	n := int(binary.BigEndian.Uint32(b[pos:]))
	content := b[pos+4 : pos+4+n]
	copy(content, strings.ReplaceAll(string(content), "\x03mod", "\x03aaa"))
	binary.BigEndian.PutUint32(b[pos+4+n:], crc32.Checksum(content, castagnoli))
	r, err := parse(b, 0)
	if err != nil {
		t.Fatal(err)
	}
	if r.c.ranges == nil {
		t.Fatal("took the table for sorted")
	}
	if diff := cmp.Diff([]string{"__name__", "aaa", "i"}, r.LabelNames()); diff != "" {
		t.Error(diff)
	}
	for name, as := range map[string]string{"i": "i", "mod": "aaa", "": ""} {
		var vs []string
		r.Values(as, func(v string, rg Range) bool {
			vs = append(vs, strings.Clone(v))
			if want, ok := sorted.Postings(name, v); !ok || want != rg {
				t.Errorf("%s=%q: %v, sorted %v", name, v, rg, want)
			}
			return true
		})
		if !slices.IsSorted(vs) || len(vs) == 0 {
			t.Errorf("values of %s: %q", name, vs)
		}
	}
}

// Shows that an index which was cut short or damaged is refused, and leaves no file.
func TestBuildRefusesDamage(t *testing.T) {
	raw, err := os.ReadFile(writeIndex(t, 100))
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, b []byte) {
		t.Helper()
		p := filepath.Join(t.TempDir(), "index")
		if err := os.WriteFile(p, b, 0o666); err != nil {
			t.Fatal(err)
		}
		path, err := buildFrom(t, p)
		if err == nil {
			_, err = open(path, 0)
		} else if _, serr := os.Stat(path); serr == nil {
			t.Errorf("%s: left a file", what)
		}
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	f("empty", nil)
	f("only the start", raw[:20])
	f("half", raw[:len(raw)/2])
	f("last byte missing", raw[:len(raw)-1])
	flip := func(i int) []byte { b := slices.Clone(raw); b[i] ^= 0x55; return b }
	f("magic", flip(0))
	f("version", flip(4))
	f("symbols", flip(20))
	f("table of contents", flip(len(raw)-20))
	f("postings table", flip(len(raw)-indexTOCLen-10))
	f("nonsense", []byte(strings.Repeat("nonsense", 100)))
	bkt := objstore.NewInMemBucket()
	if err := build(t.Context(), bkt, id, 0, filepath.Join(t.TempDir(), "x", Filename)); err == nil || !bkt.IsObjNotFoundErr(errors.Unwrap(err)) {
		t.Errorf("absent index: %v", err)
	}
}

// Shows that no bytes break the reader. The checksums are made right, so that the bytes behind them are reached.
func FuzzReader(f *testing.F) {
	path, err := buildFrom(f, writeIndex(f, 40))
	if err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-30])
	f.Fuzz(func(t *testing.T, b []byte) {
		fixChecksums(b)
		r, err := parse(b, 2)
		if err != nil {
			return
		}
		within := func(rg Range) {
			if rg.Start < 0 || rg.End > r.IndexSize() || rg.Len() < 0 {
				t.Fatalf("a list from %d to %d in an index of %d bytes", rg.Start, rg.End, r.IndexSize())
			}
		}
		for _, n := range append(slices.Clone(r.LabelNames()), "", "x") {
			r.Values(n, func(v string, rg Range) bool {
				within(rg)
				if found, ok := r.Postings(n, v); !ok || found != rg {
					t.Fatalf("%s=%q is at %v (%v), and at %v", n, v, found, ok, rg)
				}
				return true
			})
			if rg, ok := r.Postings(n, "5"); ok {
				within(rg)
			}
		}
		if err := r.Err(); err != nil {
			t.Fatalf("not readable after all of it was verified: %v", err)
		}
		symbols := r.Symbols()
		for ref := range uint32(50) {
			_, _ = r.Symbol(ref * 3)
			_, _ = symbols.Lookup(ref * 3)
		}
	})
}

// Shows that no bytes break what makes a header of an index, and that what it makes can be read. The checksums are made
// right, so that the bytes behind them are reached.
func FuzzBuild(f *testing.F) {
	raw, err := os.ReadFile(writeIndex(f, 40))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, int64(0))
	f.Add(raw, int64(len(raw)))
	f.Add(raw, int64(100))
	f.Add(raw[:len(raw)-10], int64(0))
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, stated int64) {
		b = slices.Clone(b)
		if n := len(b) - indexTOCLen; n > 0 {
			sum := func(content, sum []byte) { binary.BigEndian.PutUint32(sum, crc32.Checksum(content, castagnoli)) }
			toc := b[n:]
			for _, at := range []uint64{binary.BigEndian.Uint64(toc), binary.BigEndian.Uint64(toc[40:])} {
				if at < uint64(n) && at+8 < uint64(n) {
					if end := at + 4 + uint64(binary.BigEndian.Uint32(b[at:])); end+4 <= uint64(n) {
						sum(b[at+4:end], b[end:])
					}
				}
			}
			sum(toc[:48], toc[48:])
		}
		bkt := objstore.NewInMemBucket()
		if err := bkt.Upload(t.Context(), id.String()+"/index", bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), Filename)
		if err := build(t.Context(), bkt, id, stated, path); err != nil {
			if _, err := os.Stat(path); err == nil {
				t.Fatal("left a file after a failure")
			}
			return
		}
		r, err := open(path, 2)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		defer r.Release()
		for _, n := range r.LabelNames() {
			r.Values(n, func(_ string, rg Range) bool {
				if rg.Start < 0 || rg.Len() < 0 || rg.End > int64(len(b)) {
					t.Fatalf("a list from %d to %d in an index of %d bytes", rg.Start, rg.End, len(b))
				}
				return true
			})
		}
	})
}

func fixChecksums(b []byte) {
	fix := func(content, sum []byte) { binary.BigEndian.PutUint32(sum, crc32.Checksum(content, castagnoli)) }
	if len(b) < headerLen+tocLen+indexTOCLen {
		return
	}
	toc := b[len(b)-tocLen:]
	itoc := b[len(b)-tocLen-indexTOCLen : len(b)-tocLen]
	fix(itoc[:48], itoc[48:])
	for _, off := range []uint64{binary.BigEndian.Uint64(toc), binary.BigEndian.Uint64(toc[8:])} {
		if off+4 > uint64(len(b)) || off > 1<<40 {
			continue
		}
		n := uint64(binary.BigEndian.Uint32(b[off:]))
		if off+4+n+4 <= uint64(len(b)) {
			fix(b[off+4:off+4+n], b[off+4+n:])
		}
	}
	fix(toc[:16], toc[16:])
}

// BenchmarkPostings looks one of 100,000 values up.
func BenchmarkPostings(b *testing.B) {
	path, err := buildFrom(b, writeIndex(b, 100_000))
	if err != nil {
		b.Fatal(err)
	}
	r, err := open(path, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := r.Postings("i", "77777"); !ok {
			b.Fatal("not found")
		}
	}
}

// BenchmarkOpen reads a header of 100,000 values.
func BenchmarkOpen(b *testing.B) {
	path, err := buildFrom(b, writeIndex(b, 100_000))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r, err := open(path, 0)
		if err != nil {
			b.Fatal(err)
		}
		r.Release()
	}
}

// BenchmarkSymbols looks symbols up, as the series of a block ask for them: one after the other, and anywhere.
func BenchmarkSymbols(b *testing.B) {
	path, err := buildFrom(b, writeIndex(b, 100_000))
	if err != nil {
		b.Fatal(err)
	}
	r, err := open(path, 0)
	if err != nil {
		b.Fatal(err)
	}
	for _, how := range []struct {
		name string
		step uint32
	}{{"near", 1}, {"anywhere", 7919}} {
		b.Run(how.name, func(b *testing.B) {
			s := r.Symbols()
			ref := uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				ref = (ref + how.step) % 100_000
				if _, err := s.Lookup(ref); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkValues walks over 100,000 values.
func BenchmarkValues(b *testing.B) {
	path, err := buildFrom(b, writeIndex(b, 100_000))
	if err != nil {
		b.Fatal(err)
	}
	r, err := open(path, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		r.Values("i", func(string, Range) bool { n++; return true })
		if n != 100_000 {
			b.Fatal(n)
		}
	}
}
