package indexheader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"sort"
	"unsafe"

	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/index"
)

// DefaultSampling is the number of label values of which one is kept in memory.
const DefaultSampling = 32

// Range is a byte range of the index: a posting list with its length in front and its checksum behind. There may be
// a few more bytes at the end.
type Range struct{ Start, End int64 }

// Len returns the length in bytes.
func (r Range) Len() int64 { return r.End - r.Start }

// Reader answers from an index header. All methods may be called in parallel, and none after Close. Strings that it
// hands out point into the file: they are valid until Close.
type Reader struct {
	file *fileutil.MmapFile // nil for bytes
	b    []byte

	version     int
	symbols     *index.Symbols
	symbolShift int64 // from an offset in the index to one in the file; index version 1 only

	// The posting lists end here in the index.
	postingsEnd int64
	indexSize   int64

	names []string
	// tables holds the entries of a sorted table, sampled.
	tables   map[string]*valueTable
	tableEnd int // the position behind the last entry
	// ranges holds all entries of a table that is not sorted, as those of index version 1 may be.
	ranges map[string]map[string]Range
}

// valueTable is where the entries of one label name are.
type valueTable struct {
	// samples are positions of entries: the first, every n-th, and the last.
	samples []int
	count   int
}

// Open maps an index header. One of each sampling label values is kept in memory; 0 is DefaultSampling. An error that
// is not about the file system wraps ErrCorrupt.
func Open(path string, sampling int) (*Reader, error) {
	f, err := fileutil.OpenMmapFile(path)
	if err != nil {
		return nil, err
	}
	r, err := parse(f.Bytes(), sampling)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	r.file = f
	return r, nil
}

// Close unmaps the file.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

func parse(b []byte, sampling int) (*Reader, error) {
	if sampling <= 0 {
		sampling = DefaultSampling
	}
	if len(b) < headerLen+tocLen {
		return nil, corruptf("index header of %d bytes is too short", len(b))
	}
	if m := binary.BigEndian.Uint32(b); m != magic {
		return nil, corruptf("index header starts with %#x, not with its magic number", m)
	}
	if b[4] != headerVersion {
		return nil, corruptf("index header has version %d, only %d is known", b[4], headerVersion)
	}
	r := &Reader{b: b, version: int(b[5])}
	if r.version != index.FormatV1 && r.version != index.FormatV2 {
		return nil, corruptf("index has version %d, known are 1 and 2", r.version)
	}
	toc := b[len(b)-tocLen:]
	if crc32.Checksum(toc[:16], castagnoli) != binary.BigEndian.Uint32(toc[16:]) {
		return nil, corruptf("checksum of the index header's table of contents is wrong")
	}
	symbolsPos, tablePos := binary.BigEndian.Uint64(toc), binary.BigEndian.Uint64(toc[8:])
	end := uint64(len(b) - tocLen)
	if symbolsPos < headerLen || symbolsPos >= tablePos || tablePos+indexTOCLen > end || tablePos > end {
		return nil, corruptf("index header of %d bytes has symbols at %d and postings table at %d", len(b), symbolsPos, tablePos)
	}
	indexTOC, err := index.NewTOCFromByteSlice(bytesOf(b[end-indexTOCLen : end]))
	if err != nil {
		return nil, corruptf("table of contents of the index: %v", err)
	}
	tableOff := binary.BigEndian.Uint64(b[6:])
	if tableOff != indexTOC.PostingsTable || tableOff > 1<<62 {
		return nil, corruptf("index header puts the postings table at %d, the index at %d", tableOff, indexTOC.PostingsTable)
	}
	r.indexSize = int64(tableOff + end - tablePos)
	r.postingsEnd = int64(tableOff)
	// Indexes of old have another table between the posting lists and theirs.
	if t := indexTOC.LabelIndicesTable; t > indexTOC.Postings && t < tableOff {
		r.postingsEnd = int64(t)
	}
	r.symbolShift = int64(symbolsPos) - int64(indexTOC.Symbols)
	if err := r.openSymbols(int(symbolsPos)); err != nil {
		return nil, err
	}
	if err := r.openTable(int(tablePos), int(end-indexTOCLen), sampling); err != nil {
		return nil, err
	}
	return r, nil
}

// section returns the content of a section: its length comes in front, its checksum behind.
func section(b []byte, pos int) ([]byte, error) {
	if pos+4 > len(b) {
		return nil, corruptf("section at %d starts behind the end", pos)
	}
	n := int(binary.BigEndian.Uint32(b[pos:]))
	if pos+4+n+4 > len(b) {
		return nil, corruptf("section at %d of %d bytes reaches over the end", pos, n)
	}
	content := b[pos+4 : pos+4+n]
	if crc32.Checksum(content, castagnoli) != binary.BigEndian.Uint32(b[pos+4+n:]) {
		return nil, corruptf("checksum of the section at %d is wrong", pos)
	}
	if n < 4 {
		return nil, corruptf("section at %d has no count", pos)
	}
	return content, nil
}

func (r *Reader) openSymbols(pos int) error {
	content, err := section(r.b, pos)
	if err != nil {
		return fmt.Errorf("symbol table: %w", err)
	}
	// Each symbol takes a byte at least, so a count beyond that is wrong, and memory for it not asked for.
	if n := binary.BigEndian.Uint32(content); uint64(n) > uint64(len(content)-4) {
		return corruptf("symbol table of %d bytes counts %d symbols", len(content), n)
	}
	if r.symbols, err = index.NewSymbols(bytesOf(r.b), r.version, pos); err != nil {
		return corruptf("symbol table: %v", err)
	}
	return nil
}

// openTable walks over the postings offset table once.
func (r *Reader) openTable(pos, end, sampling int) error {
	content, err := section(r.b[:end], pos)
	if err != nil {
		return fmt.Errorf("postings offset table: %w", err)
	}
	count := binary.BigEndian.Uint32(content)
	first := pos + 4 + 4
	r.tableEnd = pos + 4 + len(content)
	if sorted := r.sampleTable(first, count, sampling); sorted {
		return nil
	}
	return r.copyTable(first, count)
}

// sampleTable keeps positions in a sorted table. It reports false if the table is not sorted or not readable.
func (r *Reader) sampleTable(pos int, count uint32, sampling int) bool {
	r.tables = map[string]*valueTable{}
	var (
		t           *valueTable
		name, value []byte
		off         uint64
		lastPos     int
	)
	finish := func() {
		if t != nil && t.samples[len(t.samples)-1] != lastPos {
			t.samples = append(t.samples, lastPos)
		}
	}
	for i := range count {
		n, v, o, next, ok := r.entry(pos)
		if !ok || o > uint64(r.postingsEnd) {
			return false
		}
		c := bytes.Compare(name, n)
		// The lists must follow each other too, for a list ends where the next one starts.
		if i > 0 && (c > 0 || c == 0 && bytes.Compare(value, v) >= 0 || o <= off) {
			return false
		}
		if i == 0 || c != 0 {
			finish()
			t = &valueTable{}
			s := string(n)
			r.tables[s] = t
			if s != "" {
				r.names = append(r.names, s)
			}
		}
		if t.count%sampling == 0 {
			t.samples = append(t.samples, pos)
		}
		t.count++
		name, value, off, lastPos, pos = n, v, o, pos, next
	}
	finish()
	return true
}

// copyTable keeps a whole table in memory.
func (r *Reader) copyTable(pos int, count uint32) error {
	r.tables, r.names = nil, nil
	r.ranges = map[string]map[string]Range{}
	var starts []int64
	for i := range count {
		n, v, off, next, ok := r.entry(pos)
		if !ok {
			return corruptf("postings offset table: entry %d of %d is unreadable", i+1, count)
		}
		if off > uint64(r.postingsEnd) {
			return corruptf("postings offset table: entry %d lies behind the posting lists", i+1)
		}
		m := r.ranges[string(n)]
		if m == nil {
			m = map[string]Range{}
			r.ranges[string(n)] = m
			if len(n) > 0 {
				r.names = append(r.names, string(n))
			}
		}
		m[string(v)] = Range{Start: int64(off)}
		starts = append(starts, int64(off))
		pos = next
	}
	slices.Sort(r.names)
	slices.Sort(starts)
	for _, m := range r.ranges {
		for v, rg := range m {
			i := sort.Search(len(starts), func(i int) bool { return starts[i] > rg.Start })
			rg.End = r.postingsEnd
			if i < len(starts) {
				rg.End = starts[i]
			}
			m[v] = rg
		}
	}
	return nil
}

// entry reads the entry of the postings offset table at a position: a key count, which is 2, name, value, offset.
func (r *Reader) entry(pos int) (name, value []byte, off uint64, next int, ok bool) {
	if pos >= r.tableEnd {
		return nil, nil, 0, 0, false
	}
	b := r.b[pos:r.tableEnd]
	total := len(b)
	keys, n := binary.Uvarint(b)
	if n <= 0 || keys != 2 {
		return nil, nil, 0, 0, false
	}
	b = b[n:]
	str := func() []byte {
		l, n := binary.Uvarint(b)
		if n <= 0 || l > uint64(len(b)-n) {
			ok = false
			return nil
		}
		s := b[n : n+int(l)]
		b = b[n+int(l):]
		return s
	}
	ok = true
	name = str()
	value = str()
	off, n = binary.Uvarint(b)
	if !ok || n <= 0 {
		return nil, nil, 0, 0, false
	}
	return name, value, off, pos + total - len(b) + n, true
}

// IndexVersion returns the version of the index: in version 2 a series reference counts 16 bytes, in version 1 one.
func (r *Reader) IndexVersion() int { return r.version }

// IndexSize returns the size of the index in bytes.
func (r *Reader) IndexSize() int64 { return r.indexSize }

// Symbol returns a symbol by its reference.
func (r *Reader) Symbol(ref uint32) (string, error) {
	if r.version == index.FormatV1 {
		pos := int64(ref) + r.symbolShift
		if pos < 0 || pos > int64(len(r.b)) {
			return "", corruptf("symbol %d lies outside of the symbol table", ref)
		}
		ref = uint32(pos)
	}
	s, err := r.symbols.Lookup(ref)
	if err != nil {
		return "", corruptf("symbol %d: %v", ref, err)
	}
	return s, nil
}

// LabelNames returns the names of all labels, sorted. The slice must not be changed.
func (r *Reader) LabelNames() []string { return r.names }

// HasLabel tells whether any series has a label of this name.
func (r *Reader) HasLabel(name string) bool {
	_, ok := slices.BinarySearch(r.names, name)
	return ok
}

// AllPostings returns where the list of all series is.
func (r *Reader) AllPostings() (Range, bool) { return r.Postings("", "") }

// Postings returns where the list of the series with a label is; false if there is none.
func (r *Reader) Postings(name, value string) (Range, bool) {
	if r.ranges != nil {
		rg, ok := r.ranges[name][value]
		return rg, ok
	}
	t := r.tables[name]
	if t == nil {
		return Range{}, false
	}
	// The first sample behind the value; the value is between the one before and it.
	i := sort.Search(len(t.samples), func(i int) bool {
		_, v, _, _, _ := r.entry(t.samples[i])
		return asString(v) > value
	})
	if i == 0 {
		return Range{}, false
	}
	for pos := t.samples[i-1]; ; {
		n, v, off, next, ok := r.entry(pos)
		if !ok || asString(n) != name || asString(v) > value {
			return Range{}, false
		}
		if asString(v) == value {
			return r.rangeFrom(off, next), true
		}
		pos = next
	}
}

// Values calls f with every value of a label, in order, and where its list is, until f returns false.
func (r *Reader) Values(name string, f func(value string, rg Range) bool) {
	if r.ranges != nil {
		m := r.ranges[name]
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
	t := r.tables[name]
	if t == nil {
		return
	}
	pos := t.samples[0]
	for range t.count {
		_, v, off, next, ok := r.entry(pos)
		if !ok || !f(asString(v), r.rangeFrom(off, next)) {
			return
		}
		pos = next
	}
}

// rangeFrom returns the range of the list at off, which the next entry of the table ends.
func (r *Reader) rangeFrom(off uint64, next int) Range {
	rg := Range{Start: int64(off), End: r.postingsEnd}
	if _, _, o, _, ok := r.entry(next); ok && o <= uint64(r.postingsEnd) {
		rg.End = int64(o)
	}
	return rg
}

func asString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
