package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	// A symbol is a label name or value. Prometheus has no limit, and a value of megabytes has been seen; past this
	// it is damage.
	symbolBytesMax = 16 << 20
	// Of so many symbols the offset of one is kept in memory for look-ups: 1.2 MiB for 5 million.
	symbolsApart = 32
)

// Symbols reads the symbol table of an index in order. It has a window of its own, so it may be used beside the Reader
// that it came from, but not after that is closed.
type Symbols struct {
	w       *window
	begin   int64 // of the section
	pos     int64
	end     int64
	count   uint32
	n       uint32
	crc     uint32
	last    []byte
	offsets []int64 // of each symbolsApart-th, if kept
	keep    bool
}

// openSymbols reads the head of the symbol section at off.
func openSymbols(w *window, off int64) (*Symbols, error) {
	if w.size-off < 12 {
		return nil, w.corrupt("symbols", off, FaultTruncated, "")
	}
	b, err := w.at(off, 8)
	if err != nil {
		return nil, err
	}
	s := &Symbols{w: w, begin: off, pos: off + 8, end: off + 4 + int64(binary.BigEndian.Uint32(b)), count: binary.BigEndian.Uint32(b[4:])}
	if s.end+4 > w.size || s.end < s.pos {
		return nil, w.corrupt("symbols", off, FaultTruncated, fmt.Sprintf("the section would end at %d of %d", s.end+4, w.size))
	}
	s.crc = crc32.Update(0, castagnoli, b[4:8])
	return s, nil
}

// Len is the number of symbols that the table promises.
func (s *Symbols) Len() int { return int(s.count) }

// Next returns the next symbol, valid until the next call; io.EOF after the last. It is a *CorruptError if the table is
// not sorted or its checksum is wrong, which is known only at its end.
func (s *Symbols) Next() ([]byte, error) {
	if s.n == s.count {
		return nil, s.finish()
	}
	head, err := s.w.upTo(s.pos, binary.MaxVarintLen32, s.end)
	if err != nil {
		return nil, err
	}
	l, n := binary.Uvarint(head)
	if n <= 0 || l > uint64(s.end-s.pos) {
		return nil, s.w.corrupt("symbols", s.begin, FaultFormat, fmt.Sprintf("symbol %d of %d at %d has no length that fits", s.n+1, s.count, s.pos))
	}
	if l > symbolBytesMax {
		return nil, s.w.corrupt("symbols", s.begin, FaultTooLong, fmt.Sprintf("symbol %d is %d bytes long, at most %d are read", s.n+1, l, symbolBytesMax))
	}
	if s.pos+int64(n)+int64(l) > s.end {
		return nil, s.w.corrupt("symbols", s.begin, FaultFormat, fmt.Sprintf("symbol %d of %d reaches past the section", s.n+1, s.count))
	}
	b, err := s.w.at(s.pos, n+int(l))
	if err != nil {
		return nil, err
	}
	s.crc = crc32.Update(s.crc, castagnoli, b)
	symbol := b[n:]
	if s.n > 0 && string(s.last) >= string(symbol) {
		return nil, s.w.corrupt("symbols", s.begin, FaultOrder, fmt.Sprintf("symbol %d is not after the one before", s.n+1))
	}
	if s.keep && s.n%symbolsApart == 0 {
		s.offsets = append(s.offsets, s.pos)
	}
	s.last = append(s.last[:0], symbol...)
	s.pos += int64(len(b))
	s.n++
	return s.last, nil
}

func (s *Symbols) finish() error {
	if s.pos != s.end {
		return s.w.corrupt("symbols", s.begin, FaultFormat, fmt.Sprintf("%d bytes after the last symbol", s.end-s.pos))
	}
	sum, err := s.w.at(s.end, 4)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(sum) != s.crc {
		return s.w.corrupt("symbols", s.begin, FaultChecksum, "")
	}
	return io.EOF
}

// lookup finds symbols by their ordinals. Ordinals in ascending order cost one pass over the table.
type lookup struct {
	w       *window
	offsets []int64
	count   uint32
	// Where the last one was found: the symbol with the ordinal next begins at pos.
	next uint32
	pos  int64
}

// at returns a symbol, valid until the next call.
func (l *lookup) at(ordinal uint32) ([]byte, error) {
	if ordinal >= l.count {
		return nil, fmt.Errorf("symbol %d of %d: no such symbol", ordinal, l.count)
	}
	if ordinal < l.next || ordinal-l.next >= symbolsApart || l.pos == 0 {
		l.next = ordinal / symbolsApart * symbolsApart
		l.pos = l.offsets[ordinal/symbolsApart]
	}
	for {
		head, err := l.w.upTo(l.pos, binary.MaxVarintLen32, l.w.size)
		if err != nil {
			return nil, err
		}
		n, k := binary.Uvarint(head)
		if k <= 0 || n > symbolBytesMax {
			return nil, l.w.corrupt("symbols", l.pos, FaultFormat, "changed since it was read")
		}
		at := l.pos + int64(k)
		l.pos = at + int64(n)
		l.next++
		if l.next > ordinal {
			return l.w.at(at, int(n))
		}
	}
}
