package indexheader

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"
)

// How many bytes are read at a time from one end to the other of a table.
const scanBytes = 64 << 10

// scanner reads a part of a file from one end to the other, in steps of the size of its buffer. Behind the end and
// after an error it reads zeros. Slices that it hands out are valid until the next call.
type scanner struct {
	r    io.ReaderAt
	pos  int64 // in the file, of buf[i]
	end  int64
	buf  []byte // what was read ahead; buf[:i] is used up
	i    int
	step int
	// sum is the checksum of all that was read, if summed.
	sum    uint32
	summed bool
	err    error // of the file
	short  bool  // there was less than was asked for
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, scanBytes); return &b }}

// scan makes a scanner over bytes pos..end of r that reads step bytes at a time. It is to be closed.
func scan(r io.ReaderAt, pos, end int64, step int) scanner {
	return scanner{r: r, pos: pos, end: end, buf: (*buffers.Get().(*[]byte))[:0], step: step}
}

func (s *scanner) close() {
	if cap(s.buf) <= scanBytes {
		b := s.buf
		buffers.Put(&b)
	}
	s.buf = nil
}

func (s *scanner) failed() bool { return s.err != nil || s.short }

// fill makes n bytes available, or those there are.
func (s *scanner) fill(n int) []byte {
	have := len(s.buf) - s.i
	if have >= n || s.failed() {
		return s.buf[s.i:]
	}
	from := s.pos + int64(have)
	more := min(int64(max(n-have, s.step)), s.end-from)
	if more <= 0 {
		return s.buf[s.i:]
	}
	copy(s.buf, s.buf[s.i:])
	s.buf, s.i = s.buf[:have], 0
	if total := have + int(more); total > cap(s.buf) {
		grown := make([]byte, have, total)
		copy(grown, s.buf)
		s.buf = grown
	}
	s.buf = s.buf[:have+int(more)]
	if _, err := s.r.ReadAt(s.buf[have:], from); err != nil {
		s.buf, s.err = s.buf[:have], err
		return s.buf
	}
	if s.summed {
		s.sum = crc32.Update(s.sum, castagnoli, s.buf[have:])
	}
	return s.buf
}

func (s *scanner) take(n int) {
	s.i += n
	s.pos += int64(n)
}

func (s *scanner) uvarint() uint64 {
	v, n := binary.Uvarint(s.fill(binary.MaxVarintLen64))
	if n <= 0 || s.failed() {
		s.short = true
		return 0
	}
	s.take(n)
	return v
}

// str reads a length and so many bytes.
func (s *scanner) str() []byte {
	n := s.uvarint()
	if s.failed() || n > uint64(s.end-s.pos) {
		s.short = true
		return nil
	}
	b := s.fill(int(n))
	if len(b) < int(n) {
		s.short = true
		return nil
	}
	s.take(int(n))
	return b[:n:n]
}

// skip passes over n bytes.
func (s *scanner) skip(n uint64) {
	if n > uint64(s.end-s.pos) {
		s.short = true
		return
	}
	for n > 0 && !s.failed() {
		b := s.fill(1)
		k := min(uint64(len(b)), n)
		s.take(int(k))
		n -= k
	}
}

// finish reads on to the end and returns the checksum of the whole.
func (s *scanner) finish() (uint32, error) {
	s.short = false
	s.skip(uint64(s.end - s.pos))
	return s.sum, s.err
}
