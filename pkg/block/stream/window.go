package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// window shows a file piece by piece. Going forward it reads each byte once.
type window struct {
	file  File
	name  string
	size  int64
	bytes int // read at once, at least
	buf   []byte
	off   int64 // of buf in the file
}

func openWindow(files Files, name string, bytes int) (*window, error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &CorruptError{File: name, Part: "file", Fault: FaultMissing}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return &window{file: f, name: name, size: f.Size(), bytes: bytes}, nil
}

// at returns n bytes from off on; they are valid until the next call. The caller has checked them against size.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off >= w.off && off+int64(n) <= w.off+int64(len(w.buf)) {
		return w.buf[off-w.off:][:n], nil
	}
	want := int(min(int64(max(n, w.bytes)), w.size-off))
	if want < n {
		return nil, w.corrupt("file", off, FaultTruncated, fmt.Sprintf("%d bytes wanted, %d left", n, want))
	}
	if cap(w.buf) < want {
		w.buf = make([]byte, want)
	}
	w.buf = w.buf[:want]
	w.off = off
	got, err := w.file.ReadAt(w.buf, off)
	if got < want {
		w.buf = w.buf[:0]
		if err == nil || errors.Is(err, io.EOF) {
			return nil, w.corrupt("file", off, FaultTruncated, fmt.Sprintf("%d bytes read of %d", got, want))
		}
		return nil, fmt.Errorf("read %s at %d: %w", w.name, off, err)
	}
	return w.buf[:n], nil
}

// upTo returns at most n bytes from off on, fewer if limit comes first.
func (w *window) upTo(off int64, n int, limit int64) ([]byte, error) {
	return w.at(off, int(max(0, min(int64(n), limit-off, w.size-off))))
}

func (w *window) corrupt(part string, off int64, fault Fault, detail string) *CorruptError {
	return &CorruptError{File: w.name, Part: part, Offset: off, Fault: fault, Detail: detail}
}

// decoder takes numbers from bytes. After the first that is cut off or too long, bad is set and all are zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || d.bad {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 || d.bad {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// ordinal is an uvarint of 32 bits.
func (d *decoder) ordinal() uint32 {
	v := d.uvarint()
	if v > 1<<32-1 {
		d.bad = true
	}
	return uint32(v)
}
