package indexheader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/prometheus/prometheus/tsdb/index"
)

// Range is a byte range of the index: a posting list with its length in front and its checksum behind. There may be
// a few more bytes at the end.
type Range struct{ Start, End int64 }

// Len returns the length in bytes.
func (r Range) Len() int64 { return r.End - r.Start }

// Reader answers from an index header. It comes from a Pool, which may take its memory away while nobody uses it.
//
// Whoever uses it calls Hold, then Open, and Release at the end. What answers from the file, all that is below Release,
// may be called in parallel, but only between an Open that succeeded and Release.
type Reader struct {
	pool  *Pool
	path  string
	build func(context.Context) error

	mu       sync.Mutex
	holds    int
	opening  chan struct{} // closed when the one who opens it is done; nil if nobody does
	closed   bool
	lastUsed time.Time

	// These are set while mu is held and holds is not 0, and taken away when it is. The file may stay open as long as c is
	// there.
	c    *content
	file readerAtCloser

	unreadable atomic.Bool // see Err
}

type readerAtCloser interface {
	io.ReaderAt
	io.Closer
}

// Hold keeps the Reader from being closed until Release. It never waits.
func (r *Reader) Hold() {
	r.mu.Lock()
	r.holds++
	r.mu.Unlock()
}

// Release undoes one Hold.
func (r *Reader) Release() {
	r.mu.Lock()
	r.holds--
	last := r.holds == 0
	if last && (r.c == nil || r.unreadable.Load() || r.pool.files.Load() > filesKept) {
		r.closeFileLocked()
	}
	r.lastUsed = time.Now()
	r.mu.Unlock()
	if last {
		r.pool.released(r)
	}
}

// FileSize returns the size of the file in bytes; 0 if it is not there. It may be called without Hold.
func (r *Reader) FileSize() int64 {
	st, err := os.Stat(r.path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// Loaded tells whether Open has nothing to read.
func (r *Reader) Loaded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.c != nil
}

// Open makes the Reader ready for use by its holder. The first one to open it reads the file, and fetches it before
// that if it is not there or is damaged; others wait for it. An error that wraps ErrCorrupt says that the index in the
// bucket is damaged.
func (r *Reader) Open(ctx context.Context) error {
	for {
		r.mu.Lock()
		if r.c != nil {
			err := r.openFileLocked()
			r.mu.Unlock()
			if err == nil {
				return nil
			}
			// The file went away from under us; it can be fetched again.
			r.mu.Lock()
			r.c = nil
		}
		wait := r.opening
		if wait == nil {
			done := make(chan struct{})
			r.opening = done
			r.mu.Unlock()
			err := r.load(ctx)
			r.mu.Lock()
			r.opening = nil
			r.mu.Unlock()
			close(done)
			return err
		}
		r.mu.Unlock()
		select {
		case <-wait:
			// If that went wrong it may have been for reasons of its own, such as the end of a request.
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *Reader) openFileLocked() error {
	if r.file != nil {
		return nil
	}
	if r.unreadable.Load() {
		return errUnreadable
	}
	f, err := os.Open(r.path)
	if err != nil {
		return err
	}
	r.setFileLocked(f)
	return nil
}

func (r *Reader) setFileLocked(f readerAtCloser) {
	r.closeFileLocked()
	r.file = f
	r.pool.files.Add(1)
}

func (r *Reader) closeFileLocked() {
	if r.file != nil {
		_ = r.file.Close() // it was only read
		r.file = nil
		r.pool.files.Add(-1)
	}
}

// load reads the file into memory, as far as it is kept there.
func (r *Reader) load(ctx context.Context) error {
	start := time.Now()
	c, f, err := r.read()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrCorrupt) {
		if errors.Is(err, ErrCorrupt) {
			r.pool.damaged(r.path, err)
		}
		if err = r.fetch(ctx); err == nil {
			c, f, err = r.read()
		}
		if errors.Is(err, ErrCorrupt) {
			// What was just fetched is wrong in the bucket. It may be put right there, so it is not kept.
			_ = os.Remove(r.path)
		}
	}
	r.pool.loaded(start, err)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.c = c
	r.setFileLocked(f)
	r.unreadable.Store(false)
	r.mu.Unlock()
	r.pool.opened(r, c.bytes)
	return nil
}

func (r *Reader) read() (*content, readerAtCloser, error) {
	f, err := os.Open(r.path)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil {
		var c *content
		if c, err = readContent(f, st.Size(), r.pool.cfg.Sampling); err == nil {
			return c, f, nil
		}
	}
	_ = f.Close()
	return nil, nil, fmt.Errorf("open %s: %w", r.path, err)
}

func (r *Reader) fetch(ctx context.Context) error {
	start := time.Now()
	if err := r.build(ctx); err != nil {
		return fmt.Errorf("fetch index header: %w", err)
	}
	r.pool.metrics.download.Observe(time.Since(start).Seconds())
	return nil
}

// unload gives the memory back if nobody holds the Reader.
func (r *Reader) unload() (ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holds > 0 || r.c == nil {
		return false
	}
	r.c = nil
	r.closeFileLocked()
	return true
}

// Close gives up the Reader. Nobody may hold it, and none of its methods be called any more.
func (r *Reader) Close() error {
	r.pool.forget(r)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.c = nil
	r.closeFileLocked()
	if r.pool.cfg.Forget && !r.closed {
		r.closed = true
		if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// errUnreadable says that the file was well when it was verified and is not any more.
var errUnreadable = corruptf("the index header on disk can't be read any more")

// Err tells whether Postings or Values met something in the file that can't be read, though all of it was verified when
// it was opened: what they answered may lack something then. The file is verified again, and fetched if need be, once
// nobody holds the Reader and somebody opens it.
func (r *Reader) Err() error {
	if r.unreadable.Load() {
		return errUnreadable
	}
	return nil
}

// IndexVersion returns the version of the index: in version 2 a series reference counts 16 bytes, in version 1 one.
func (r *Reader) IndexVersion() int { return r.c.version }

// IndexSize returns the size of the index in bytes.
func (r *Reader) IndexSize() int64 { return r.c.indexSize }

// LabelNames returns the names of all labels, sorted. The slice must not be changed.
func (r *Reader) LabelNames() []string { return r.c.names }

// HasLabel tells whether any series has a label of this name.
func (r *Reader) HasLabel(name string) bool {
	_, ok := slices.BinarySearch(r.c.names, name)
	return ok
}

// Symbol returns a symbol by its reference. Whoever looks many up does so with Symbols.
func (r *Reader) Symbol(ref uint32) (string, error) {
	s := r.c.symbolScanner(r.file, ref)
	defer s.close()
	for range ref % symbolSampling {
		if r.c.version == index.FormatV2 {
			s.skip(s.uvarint())
		}
	}
	b := s.str()
	if s.err != nil {
		return "", s.err
	}
	if s.short || r.c.version == index.FormatV2 && ref >= r.c.symbols.count {
		return "", corruptf("symbol %d lies outside of the symbol table", ref)
	}
	return string(b), nil
}

// symbolScanner reads from the group that a symbol is in, or, in version 1, from the symbol on.
func (c *content) symbolScanner(f io.ReaderAt, ref uint32) scanner {
	if c.version == index.FormatV1 {
		pos := int64(ref) + c.symbolShift
		if pos < c.symbols.pos || pos >= c.symbols.end {
			pos = c.symbols.end
		}
		return scan(f, pos, c.symbols.end, 64)
	}
	g := int(ref / symbolSampling)
	if g >= len(c.symbolAt) {
		return scan(f, c.symbols.end, c.symbols.end, 1)
	}
	pos, end := c.symbols.pos+int64(c.symbolAt[g]), c.symbols.end
	if g+1 < len(c.symbolAt) {
		end = c.symbols.pos + int64(c.symbolAt[g+1])
	}
	return scan(f, pos, end, scanBytes)
}

// AllPostings returns where the list of all series is.
func (r *Reader) AllPostings() (Range, bool) { return r.Postings("", "") }

// Postings returns where the list of the series with a label is; false if there is none, or the file can't be read (see
// Err).
func (r *Reader) Postings(name, value string) (Range, bool) {
	if r.c.ranges != nil {
		rg, ok := r.c.ranges[name][value]
		return rg, ok
	}
	t := r.c.tables[name]
	if t == nil {
		return Range{}, false
	}
	// The last sample that is not behind the value.
	lo, hi := 0, len(t.samples)
	for lo < hi {
		mid := (lo + hi) / 2
		s := scan(r.file, r.c.table.pos+int64(t.samples[mid]), r.c.table.end, probeBytes)
		_, v, _, ok := s.entry()
		behind := ok && asString(v) > value
		s.close()
		if !ok {
			r.unreadable.Store(true)
			return Range{}, false
		}
		if behind {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo == 0 {
		return Range{}, false
	}
	step := probeBytes
	if lo < len(t.samples) {
		step += int(min(t.samples[lo]-t.samples[lo-1], scanBytes))
	}
	s := scan(r.file, r.c.table.pos+int64(t.samples[lo-1]), r.c.table.end, step)
	defer s.close()
	for {
		n, v, off, ok := s.entry()
		if !ok || asString(n) != name || asString(v) > value {
			if s.err != nil {
				r.unreadable.Store(true)
			}
			return Range{}, false
		}
		if asString(v) == value {
			return r.c.rangeFrom(off, &s), true
		}
	}
}

// How many bytes are read for one entry, at first.
const probeBytes = 256

// CountValues returns how many values a label has.
func (r *Reader) CountValues(name string) int {
	if r.c.ranges != nil {
		return len(r.c.ranges[name])
	}
	if t := r.c.tables[name]; t != nil {
		return t.count
	}
	return 0
}

// Values calls f with every value of a label, in order, and where its list is, until f returns false or the file can't be
// read (see Err). The value is valid until f returns.
func (r *Reader) Values(name string, f func(value string, rg Range) bool) {
	if m := r.c.ranges[name]; m != nil {
		vs := make([]string, 0, len(m))
		for v := range m {
			vs = append(vs, v)
		}
		slices.Sort(vs)
		for _, v := range vs {
			if !f(v, m[v]) {
				return
			}
		}
		return
	}
	t := r.c.tables[name]
	if t == nil {
		return
	}
	// The last of the samples is the last entry; what lies behind it is read for where its list ends.
	length := int(t.samples[len(t.samples)-1]-t.samples[0]) + 2*probeBytes
	s := scan(r.file, r.c.table.pos+int64(t.samples[0]), r.c.table.end, min(length, scanBytes))
	defer s.close()
	// A list ends where the next one starts, so each value waits for the entry behind it.
	_, v, off, ok := s.entry()
	var value []byte
	for range t.count {
		if !ok {
			r.unreadable.Store(true)
			return
		}
		value = append(value[:0], v...)
		rg := Range{Start: int64(off), End: r.c.postingsEnd}
		if _, v, off, ok = s.entry(); ok && off <= uint64(r.c.postingsEnd) {
			rg.End = int64(off)
		}
		if !f(asString(value), rg) {
			return
		}
	}
}

// rangeFrom returns the range of the list at off, which the next entry of the table ends.
func (c *content) rangeFrom(off uint64, s *scanner) Range {
	rg := Range{Start: int64(off), End: c.postingsEnd}
	if _, _, o, ok := s.entry(); ok && o <= uint64(c.postingsEnd) {
		rg.End = int64(o)
	}
	return rg
}

func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
