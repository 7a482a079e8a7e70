package stream

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// readAll reads a block to its end, symbols and series.
func readAll(files Files, cfg Config) (series int, err error) {
	r, err := OpenReader(files, cfg)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	symbols, err := r.Symbols()
	for err == nil {
		_, err = symbols.Next()
	}
	if !errors.Is(err, io.EOF) {
		return 0, err
	}
	var s Series
	for {
		err := r.Read(&s)
		if errors.Is(err, io.EOF) {
			return series, nil
		}
		if err != nil {
			return series, err
		}
		series++
	}
}

// Each defect of a block is found and named with its file, part and kind; those that concern a series or a chunk can be
// passed over.
func TestDefects(t *testing.T) {
	// Mutants killed: no checksum of chunks, of series, of symbols.
	const series = 50
	f := func(name string, want CorruptError, skippable bool, harm func(dir string) error) {
		t.Helper()
		dir := t.TempDir()
		writeTheirs(t, dir, generate(t, 9, series), SegmentBytesMax)
		if err := harm(dir); err != nil {
			t.Fatal(err)
		}
		_, err := readAll(Dir(dir), Config{})
		c := AsCorrupt(err)
		if c == nil || c.File != want.File || c.Part != want.Part || c.Fault != want.Fault {
			t.Errorf("%s: %v", name, err)
			return
		}
		skipped := 0
		n, err := readAll(Dir(dir), Config{Skip: func(*CorruptError) bool { skipped++; return true }})
		if skippable && (err != nil || skipped == 0 || n == 0 && want.Part != "file" && want.Part != "header") {
			t.Errorf("%s: %d series read, %d defects passed over: %v", name, n, skipped, err)
		}
		if !skippable && err == nil {
			t.Errorf("%s can't be passed over", name)
		}
	}
	edit := func(file string, change func(b []byte) []byte) func(dir string) error {
		return func(dir string) error {
			path := filepath.Join(dir, filepath.FromSlash(file))
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, change(b), 0o666)
		}
	}
	flip := func(at func(b []byte) int) func(b []byte) []byte {
		return func(b []byte) []byte { b[at(b)] ^= 0x10; return b }
	}
	const index, chunks = "index", "chunks/000001"
	field := func(b []byte, i int) int { return int(binary.BigEndian.Uint64(b[len(b)-tocBytes+8*i:])) }

	f("no index", CorruptError{File: index, Part: "file", Fault: FaultMissing}, false,
		func(dir string) error { return os.Remove(filepath.Join(dir, index)) })
	f("no chunks", CorruptError{File: chunks, Part: "file", Fault: FaultMissing}, true,
		func(dir string) error { return os.Remove(filepath.Join(dir, "chunks", "000001")) })
	f("an empty index", CorruptError{File: index, Part: "file", Fault: FaultTruncated}, false, edit(index, func([]byte) []byte { return nil }))
	f("half an index", CorruptError{File: index, Part: "table of contents", Fault: FaultChecksum}, false,
		edit(index, func(b []byte) []byte { return b[:len(b)/2] }))
	f("another magic number", CorruptError{File: index, Part: "header", Fault: FaultFormat}, false, edit(index, flip(func([]byte) int { return 0 })))
	f("another version", CorruptError{File: index, Part: "header", Fault: FaultVersion}, false, edit(index, flip(func([]byte) int { return 4 })))
	f("a flipped table of contents", CorruptError{File: index, Part: "table of contents", Fault: FaultChecksum}, false,
		edit(index, flip(func(b []byte) int { return len(b) - 20 })))
	f("a flipped symbol", CorruptError{File: index, Part: "symbols", Fault: FaultOrder}, false,
		edit(index, flip(func(b []byte) int { return field(b, 0) + 40 })))
	f("a flipped last symbol", CorruptError{File: index, Part: "symbols", Fault: FaultChecksum}, false,
		edit(index, func(b []byte) []byte { b[field(b, 0)+4+int(binary.BigEndian.Uint32(b[field(b, 0):]))-1] |= 8; return b }))
	f("a flipped series", CorruptError{File: index, Part: "series", Fault: FaultChecksum}, true,
		edit(index, flip(func(b []byte) int { return (field(b, 1)+15)/16*16 + 5 })))
	f("a series without an end", CorruptError{File: index, Part: "series", Fault: FaultTruncated}, false,
		edit(index, func(b []byte) []byte { copy(b[(field(b, 1)+15)/16*16:], []byte{0xff, 0xff, 0x7f}); return b }))
	f("a flipped chunk", CorruptError{File: chunks, Part: "chunk", Fault: FaultChecksum}, true, edit(chunks, flip(func(b []byte) int { return len(b) / 2 })))
	f("half the chunks", CorruptError{File: chunks, Part: "chunk", Fault: FaultTruncated}, true,
		edit(chunks, func(b []byte) []byte { return b[:len(b)/2] }))
	f("a chunk file without a head", CorruptError{File: chunks, Part: "header", Fault: FaultTruncated}, true,
		edit(chunks, func([]byte) []byte { return nil }))
	f("a giant chunk", CorruptError{File: chunks, Part: "chunk", Fault: FaultTooLong}, true,
		edit(chunks, func(b []byte) []byte { copy(b[8:], []byte{0xff, 0xff, 0xff, 0xff, 0x7}); return b }))
}

// A series again, and series that are not sorted, are defects too.
func TestUnsortedSeries(t *testing.T) {
	for _, swap := range []bool{false, true} {
		dir := t.TempDir()
		all := generate(t, 3, 20)
		writeTheirs(t, dir, all, SegmentBytesMax)
		r, err := OpenReader(Dir(dir), Config{})
		if err != nil {
			t.Fatal(err)
		}
		// What was read last is made greater than all that follow, or the same as the next.
		var s Series
		if err := r.Read(&s); err != nil {
			t.Fatal(err)
		}
		if swap {
			r.last = []uint32{1 << 31}
		} else {
			from := r.pos
			if err := r.Read(&s); err != nil {
				t.Fatal(err)
			}
			r.pos = from
		}
		err = r.Read(&s)
		if c := AsCorrupt(err); c == nil || c.Fault != FaultOrder {
			t.Errorf("swapped %v: %v", swap, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The Writer refuses what would make a block that readers refuse.
func TestWriterRefuses(t *testing.T) {
	chunk := []Chunk{{MinTime: 1, MaxTime: 2, Encoding: 1, Data: []byte{0, 0}}}
	f := func(name string, fill func(w *Writer) error) {
		t.Helper()
		w, err := NewWriter(t.TempDir(), WriterConfig{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Abort()
		for _, s := range []string{"a", "b", "c"} {
			if err := w.AddSymbol([]byte(s)); err != nil {
				t.Fatal(err)
			}
		}
		if fill(w) == nil {
			t.Errorf("%s is taken", name)
		}
	}
	f("a symbol out of order", func(w *Writer) error { return w.AddSymbol([]byte("b")) })
	f("a symbol after series", func(w *Writer) error {
		if err := w.AddSeries([]uint32{0, 1}, chunk); err != nil {
			t.Fatal(err)
		}
		return w.AddSymbol([]byte("d"))
	})
	f("a series again", func(w *Writer) error {
		if err := w.AddSeries([]uint32{0, 1}, chunk); err != nil {
			t.Fatal(err)
		}
		return w.AddSeries([]uint32{0, 1}, chunk)
	})
	f("a series without labels", func(w *Writer) error { return w.AddSeries(nil, chunk) })
	f("a series without chunks", func(w *Writer) error { return w.AddSeries([]uint32{0, 1}, nil) })
	f("unsorted names", func(w *Writer) error { return w.AddSeries([]uint32{1, 0, 0, 1}, chunk) })
	f("an unknown symbol", func(w *Writer) error { return w.AddSeries([]uint32{0, 3}, chunk) })
	f("overlapping chunks", func(w *Writer) error { return w.AddSeries([]uint32{0, 1}, slices.Repeat(chunk, 2)) })
}

// memory holds the files of a block.
type memory map[string][]byte

func (m memory) Open(name string) (File, error) {
	b, ok := m[name]
	if !ok {
		return nil, os.ErrNotExist
	}
	return memoryFile(b), nil
}

type memoryFile []byte

func (f memoryFile) Size() int64  { return int64(len(f)) }
func (f memoryFile) Close() error { return nil }

func (f memoryFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f)) {
		return 0, io.EOF
	}
	n := copy(p, f[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Any bytes for the files of a block give series or a CorruptError. The checksum of the table of contents is made
// right, so that what is behind it is reached.
func FuzzReader(f *testing.F) {
	dir := f.TempDir()
	writeTheirs(f, dir, generate(f, 4, 5), SegmentBytesMax)
	index, err := os.ReadFile(filepath.Join(dir, "index"))
	if err != nil {
		f.Fatal(err)
	}
	chunks, err := os.ReadFile(filepath.Join(dir, "chunks", "000001"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(index, chunks)
	f.Add(index[:60], chunks[:9])
	f.Fuzz(func(t *testing.T, index, chunks []byte) {
		if n := len(index); n >= tocBytes {
			index = appendChecked(slices.Clone(index[:n-4]), n-tocBytes)
		}
		for _, skip := range []func(*CorruptError) bool{nil, func(*CorruptError) bool { return true }} {
			_, err := readAll(memory{"index": index, "chunks/000001": chunks}, Config{WindowBytes: 64, Skip: skip})
			if err != nil && AsCorrupt(err) == nil {
				t.Fatal(err)
			}
		}
	})
}
