package indexheader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb/index"
)

// Of so many symbols the position of one is kept in memory.
const symbolSampling = 32

// layout is where things are in an index header and its index.
type layout struct {
	version     int   // of the index
	indexSize   int64 // in bytes
	postingsEnd int64 // the posting lists end here in the index
	symbolShift int64 // from an offset in the index to one in the file; index version 1 only
	symbols     section
	table       section
}

// section is a part of the file with a count in front and a checksum behind.
type section struct {
	count    uint32
	pos, end int64  // of the entries
	sum      uint32 // of the count and the entries
}

// readLayout reads what is at the start and the end of an index header. That is enough to tell a file that was cut
// short; the tables are not looked at.
func readLayout(r io.ReaderAt, size int64) (layout, error) {
	if size < headerLen+indexTOCLen+tocLen {
		return layout{}, corruptf("index header of %d bytes is too short", size)
	}
	head, tail := make([]byte, headerLen), make([]byte, indexTOCLen+tocLen)
	if _, err := r.ReadAt(head, 0); err != nil {
		return layout{}, err
	}
	end := size - tocLen
	if _, err := r.ReadAt(tail, end-indexTOCLen); err != nil && err != io.EOF {
		return layout{}, err
	}
	if m := binary.BigEndian.Uint32(head); m != magic {
		return layout{}, corruptf("index header starts with %#x, not with its magic number", m)
	}
	if head[4] != headerVersion {
		return layout{}, corruptf("index header has version %d, only %d is known", head[4], headerVersion)
	}
	l := layout{version: int(head[5])}
	if l.version != index.FormatV1 && l.version != index.FormatV2 {
		return layout{}, corruptf("index has version %d, known are 1 and 2", l.version)
	}
	toc := tail[indexTOCLen:]
	if crc32.Checksum(toc[:16], castagnoli) != binary.BigEndian.Uint32(toc[16:]) {
		return layout{}, corruptf("checksum of the index header's table of contents is wrong")
	}
	symbolsPos, tablePos := binary.BigEndian.Uint64(toc), binary.BigEndian.Uint64(toc[8:])
	if symbolsPos < headerLen || symbolsPos >= tablePos || tablePos > uint64(end-indexTOCLen) {
		return layout{}, corruptf("index header of %d bytes has symbols at %d and postings table at %d", size, symbolsPos, tablePos)
	}
	indexTOC, err := index.NewTOCFromByteSlice(bytesOf(tail[:indexTOCLen]))
	if err != nil {
		return layout{}, corruptf("table of contents of the index: %v", err)
	}
	tableOff := binary.BigEndian.Uint64(head[6:])
	if tableOff != indexTOC.PostingsTable || tableOff > 1<<62 {
		return layout{}, corruptf("index header puts the postings table at %d, the index at %d", tableOff, indexTOC.PostingsTable)
	}
	l.indexSize = int64(tableOff) + end - int64(tablePos)
	l.postingsEnd = int64(tableOff)
	// Indexes of old have another table between the posting lists and theirs.
	if t := indexTOC.LabelIndicesTable; t > indexTOC.Postings && t < tableOff {
		l.postingsEnd = int64(t)
	}
	l.symbolShift = int64(symbolsPos) - int64(indexTOC.Symbols)
	if l.symbols, err = readSection(r, int64(symbolsPos), int64(tablePos)); err != nil {
		return layout{}, fmt.Errorf("symbol table: %w", err)
	}
	// Each symbol takes a byte at least, so a count beyond that is wrong, and memory for it not asked for.
	if n := l.symbols.end - l.symbols.pos; int64(l.symbols.count) > n {
		return layout{}, corruptf("symbol table of %d bytes counts %d symbols", n, l.symbols.count)
	}
	if l.table, err = readSection(r, int64(tablePos), end-indexTOCLen); err != nil {
		return layout{}, fmt.Errorf("postings offset table: %w", err)
	}
	return l, nil
}

func readSection(r io.ReaderAt, pos, limit int64) (section, error) {
	var b [8]byte
	if limit-pos < 12 {
		return section{}, corruptf("section at %d has %d bytes", pos, limit-pos)
	}
	if _, err := r.ReadAt(b[:], pos); err != nil {
		return section{}, err
	}
	n := int64(binary.BigEndian.Uint32(b[:]))
	if n < 4 || pos+4+n+4 > limit {
		return section{}, corruptf("section at %d of %d bytes reaches over the end", pos, n)
	}
	s := section{count: binary.BigEndian.Uint32(b[4:]), pos: pos + 8, end: pos + 4 + n}
	if _, err := r.ReadAt(b[:4], s.end); err != nil {
		return section{}, err
	}
	s.sum = binary.BigEndian.Uint32(b[:4])
	return s, nil
}

// scan reads the entries of the section, and the count first so that it is in the checksum.
func (s section) scan(r io.ReaderAt) scanner {
	sc := scan(r, s.pos-4, s.end, scanBytes)
	sc.summed = true
	sc.skip(4)
	return sc
}

// verify reads the section to its end and compares the checksum.
func (s section) verify(sc *scanner) error {
	sum, err := sc.finish()
	if err != nil {
		return err
	}
	if sum != s.sum {
		return corruptf("checksum of the section at %d is wrong", s.pos-8)
	}
	return nil
}

// content is what is in memory of an index header.
type content struct {
	layout
	symbolAt []uint32 // where each symbolSampling-th symbol is, from symbols.pos on; index version 2 only
	names    []string
	// tables holds the entries of a sorted table, sampled.
	tables map[string]*valueTable
	// ranges holds all entries of a table that is not sorted, as those of index version 1 may be.
	ranges map[string]map[string]Range
	// nameOf holds names by the references of their symbols, as far as they were looked up.
	nameOf atomic.Pointer[map[uint32]string]
	bytes  int64 // about what it takes
}

// valueTable is where the entries of one label name are.
type valueTable struct {
	// samples are positions of entries, from table.pos on: the first, every n-th, and the last.
	samples []uint32
	count   int
}

// readContent reads the tables of an index header once, from one end to the other, and verifies their checksums.
func readContent(r io.ReaderAt, size int64, sampling int) (*content, error) {
	l, err := readLayout(r, size)
	if err != nil {
		return nil, err
	}
	c := &content{layout: l}
	if err := c.sampleSymbols(r); err != nil {
		return nil, fmt.Errorf("symbol table: %w", err)
	}
	sorted, err := c.sampleTable(r, sampling)
	if err == nil && !sorted {
		err = c.copyTable(r)
	}
	if err != nil {
		return nil, fmt.Errorf("postings offset table: %w", err)
	}
	c.bytes += 512 + int64(len(c.symbolAt))*4 + int64(min(len(c.names), namesKept))*nameBytes
	for _, n := range c.names {
		c.bytes += int64(len(n)) + 120
	}
	for _, t := range c.tables {
		t.samples = slices.Clip(t.samples)
		c.bytes += int64(len(t.samples)) * 4
	}
	return c, nil
}

func (c *content) sampleSymbols(r io.ReaderAt) error {
	sc := c.symbols.scan(r)
	defer sc.close()
	if c.version == index.FormatV2 {
		c.symbolAt = make([]uint32, 0, (c.symbols.count+symbolSampling-1)/symbolSampling)
		for i := range c.symbols.count {
			if i%symbolSampling == 0 {
				c.symbolAt = append(c.symbolAt, uint32(sc.pos-c.symbols.pos))
			}
			sc.skip(sc.uvarint())
			if sc.failed() {
				break
			}
		}
	}
	short := sc.short
	if err := c.symbols.verify(&sc); err != nil {
		return err
	}
	if short {
		return corruptf("fewer than the %d symbols it counts", c.symbols.count)
	}
	return nil
}

// entry reads an entry of the postings offset table: a key count, which is 2, name, value, offset. Name and value are
// valid until the next call.
func (s *scanner) entry() (name, value []byte, off uint64, ok bool) {
	if s.uvarint() != 2 {
		return nil, nil, 0, false
	}
	// All of it is made available at once, so that name stays where it is.
	n, k := binary.Uvarint(s.fill(binary.MaxVarintLen64))
	if k <= 0 || n > uint64(s.end-s.pos) {
		return nil, nil, 0, false
	}
	b := s.fill(k + int(n) + binary.MaxVarintLen64)
	if uint64(len(b)-k) < n {
		return nil, nil, 0, false
	}
	v, kv := binary.Uvarint(b[k+int(n):])
	if kv <= 0 || v > uint64(s.end-s.pos) {
		return nil, nil, 0, false
	}
	total := k + int(n) + kv + int(v)
	b = s.fill(total + binary.MaxVarintLen64)
	if len(b) < total || s.failed() {
		return nil, nil, 0, false
	}
	off, ko := binary.Uvarint(b[total:])
	if ko <= 0 {
		return nil, nil, 0, false
	}
	s.take(total + ko)
	return b[k : k+int(n)], b[total-int(v) : total], off, true
}

// sampleTable keeps positions in a sorted table. It reports false if the table is not sorted or not readable.
func (c *content) sampleTable(r io.ReaderAt, sampling int) (sorted bool, err error) {
	sc := c.table.scan(r)
	defer sc.close()
	c.tables = map[string]*valueTable{}
	var (
		t           *valueTable
		name, value []byte
		off         uint64
		lastPos     uint32
	)
	finish := func() {
		if t != nil && t.samples[len(t.samples)-1] != lastPos {
			t.samples = append(t.samples, lastPos)
		}
	}
	sorted = true
	for i := range c.table.count {
		pos := uint32(sc.pos - c.table.pos)
		n, v, o, ok := sc.entry()
		order := bytes.Compare(name, n)
		// The lists must follow each other too, for a list ends where the next one starts.
		if !ok || o > uint64(c.postingsEnd) || i > 0 && (order > 0 || order == 0 && bytes.Compare(value, v) >= 0 || o <= off) {
			sorted = false
			break
		}
		if i == 0 || order != 0 {
			finish()
			t = &valueTable{}
			s := string(n)
			c.tables[s] = t
			if s != "" {
				c.names = append(c.names, s)
			}
			name = append(name[:0], n...)
		}
		if t.count%sampling == 0 {
			t.samples = append(t.samples, pos)
		}
		t.count++
		value = append(value[:0], v...)
		off, lastPos = o, pos
	}
	finish()
	return sorted, c.table.verify(&sc)
}

// copyTable keeps a whole table in memory.
func (c *content) copyTable(r io.ReaderAt) error {
	sc := c.table.scan(r)
	defer sc.close()
	c.tables, c.names = nil, nil
	c.ranges = map[string]map[string]Range{}
	var starts []int64
	for i := range c.table.count {
		n, v, off, ok := sc.entry()
		if sc.err != nil {
			return sc.err
		}
		if !ok {
			return corruptf("entry %d of %d is unreadable", i+1, c.table.count)
		}
		if off > uint64(c.postingsEnd) {
			return corruptf("entry %d lies behind the posting lists", i+1)
		}
		m := c.ranges[string(n)]
		if m == nil {
			m = map[string]Range{}
			c.ranges[string(n)] = m
			if len(n) > 0 {
				c.names = append(c.names, string(n))
			}
		}
		m[string(v)] = Range{Start: int64(off)}
		starts = append(starts, int64(off))
		c.bytes += int64(len(v)) + 80
	}
	slices.Sort(c.names)
	slices.Sort(starts)
	for _, m := range c.ranges {
		for v, rg := range m {
			i := sort.Search(len(starts), func(i int) bool { return starts[i] > rg.Start })
			rg.End = c.postingsEnd
			if i < len(starts) {
				rg.End = starts[i]
			}
			m[v] = rg
		}
	}
	return nil
}

// checkFile looks at the start and the end of an index header on disk.
func checkFile(path string) (layout, error) {
	f, err := os.Open(path)
	if err != nil {
		return layout{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return layout{}, err
	}
	return readLayout(f, st.Size())
}
