package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/block"
)

const (
	indexMagic     = 0xBAAAD700
	indexVersion   = 2
	indexHeadBytes = 5
	tocBytes       = 6*8 + 4

	chunksMagic      = 0x85BD40DD
	chunksVersion    = 1
	segmentHeadBytes = 8

	// An entry of a series is a few bytes a label and ten a chunk, a chunk some hundred bytes up to some hundred
	// KiB. Past this a length is damage, and never allocated.
	seriesBytesMax = 64 << 20
	chunkBytesMax  = 64 << 20
	// Prometheus aligns series so that 32 bits address 64 GiB of index.
	seriesAlign = 16

	// WindowBytesDefault is for local files, where reads are cheap.
	WindowBytesDefault = 256 << 10
)

// Chunk is one chunk of a series.
type Chunk struct {
	MinTime, MaxTime int64 // of its samples in ms, both included
	Encoding         chunkenc.Encoding
	// Data is the payload without length, encoding and checksum.
	Data []byte
}

// Series is a series of a block with its chunks. Read fills it and reuses its memory; whoever holds a Series owns
// all of it until the next Read into it.
type Series struct {
	// Ref is the series' reference in the block, as tombstones name it.
	Ref uint64
	// Labels are ordinals of the block's symbols: name, value, name, value. They are sorted by name.
	Labels []uint32
	// Chunks are in the order of the index, which is that of time in sound blocks.
	Chunks []Chunk

	refs []uint64
	data []byte
}

// Config bounds a Reader. The zero value is for local files.
type Config struct {
	// WindowBytes is how much is read at once, of the index and of chunks each. A Reader holds two windows, or three
	// once it has been asked for Labels.
	WindowBytes int
	// NoChunks leaves Data of chunks nil and never opens chunk files.
	NoChunks bool
	// Unsorted accepts series whose label names are not sorted, which no writer should write and some did. Names are
	// sorted, and so are the series then; if their order changes, the Reader holds the labels of all of them for a while.
	// It is for reading from the first series to the last, not for Seek.
	Unsorted bool
	// Skip, if set, is told of each chunk or series that is corrupt; where it returns true the Reader leaves that out
	// and goes on. What can't be passed over (the table of contents, the symbols, a series without a usable length) is not
	// asked about.
	Skip func(*CorruptError) bool
}

// Reader reads the series of a block in order of labels. It is for one goroutine.
type Reader struct {
	cfg      Config
	files    Files
	index    *window
	chunks   *window // the segment read last
	segment  int
	symbols  int64
	nsymbols uint32
	pos, end int64 // in the section of series
	last     []uint32
	table    *lookup
	arranged bool
	order    []uint64 // with Unsorted, the references of series that are still to be read; nil is as they lie
}

// OpenReader opens a block and checks the ends of its index. Files are closed by Close, Files itself is the caller's.
func OpenReader(files Files, cfg Config) (*Reader, error) {
	if cfg.WindowBytes <= 0 {
		cfg.WindowBytes = WindowBytesDefault
	}
	w, err := openWindow(files, block.IndexFilename, cfg.WindowBytes)
	if err != nil {
		return nil, err
	}
	r := &Reader{cfg: cfg, files: files, index: w}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Reader) open() error {
	w := r.index
	if w.size < indexHeadBytes+tocBytes {
		return w.corrupt("file", 0, FaultTruncated, fmt.Sprintf("%d bytes are no index", w.size))
	}
	toc, err := readTOC(w)
	if err != nil {
		return err
	}
	b, err := w.at(0, indexHeadBytes)
	if err != nil {
		return err
	}
	if m := binary.BigEndian.Uint32(b); m != indexMagic {
		return w.corrupt("header", 0, FaultFormat, fmt.Sprintf("magic number %x", m))
	}
	if b[4] != indexVersion {
		return w.corrupt("header", 0, FaultVersion, fmt.Sprintf("version %d, only %d is read", b[4], indexVersion))
	}
	r.symbols = toc.symbols
	r.pos, r.end = toc.series, toc.seriesEnd
	s, err := openSymbols(w, toc.symbols)
	if err != nil {
		return err
	}
	r.nsymbols = s.count
	return nil
}

// toc is what is used of a table of contents.
type toc struct{ symbols, series, seriesEnd, postings, postingsTable int64 }

func readTOC(w *window) (toc, error) {
	at := w.size - tocBytes
	b, err := w.at(at, tocBytes)
	if err != nil {
		return toc{}, err
	}
	if crc32.Checksum(b[:tocBytes-4], castagnoli) != binary.BigEndian.Uint32(b[tocBytes-4:]) {
		return toc{}, w.corrupt("table of contents", at, FaultChecksum, "the file may be cut off")
	}
	field := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[i*8:])) }
	t := toc{symbols: field(0), series: field(1), postings: field(4), postingsTable: field(5)}
	t.seriesEnd = at
	for i := 2; i < 6; i++ { // the first section behind the series, of those that are there
		if f := field(i); f > t.series && f < t.seriesEnd {
			t.seriesEnd = f
		}
	}
	for i := range 6 {
		if f := field(i); f < 0 || f > at || f < indexHeadBytes && f != 0 {
			return toc{}, w.corrupt("table of contents", at, FaultFormat, fmt.Sprintf("section %d at %d is outside of the file", i+1, f))
		}
	}
	if t.symbols == 0 || t.series < t.symbols {
		return toc{}, w.corrupt("table of contents", at, FaultFormat, "no symbols before the series")
	}
	return t, nil
}

// Symbols reads the symbol table from its beginning.
func (r *Reader) Symbols() (*Symbols, error) {
	w := *r.index
	w.buf = nil
	return openSymbols(&w, r.symbols)
}

// Close closes the files.
func (r *Reader) Close() error {
	err := r.index.file.Close()
	if r.chunks != nil {
		err = errors.Join(err, r.chunks.file.Close())
	}
	return err
}

// Read reads the next series into s; io.EOF after the last. After a *CorruptError other series may follow only if
// Config.Skip took it.
func (r *Reader) Read(s *Series) error {
	if r.cfg.Unsorted && !r.arranged {
		if err := r.arrange(); err != nil {
			return err
		}
	}
	for {
		if r.order != nil {
			if len(r.order) == 0 {
				return io.EOF
			}
			r.pos = int64(r.order[0]) * seriesAlign
			r.order = r.order[1:]
		}
		ok, err := r.readEntry(s)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if r.cfg.NoChunks {
			return nil
		}
		ok, err = r.readChunks(s)
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
	}
}

// Seek has the next Read read the series with a reference, as Series.Ref told it before. Whether that comes after the series
// read last is not checked.
func (r *Reader) Seek(ref uint64) {
	r.pos = int64(ref) * seriesAlign
	r.last = r.last[:0]
}

// skip gives a defect to Config.Skip: nil if the reader is to go on.
func (r *Reader) skip(c *CorruptError) error {
	if r.cfg.Skip != nil && r.cfg.Skip(c) {
		return nil
	}
	return c
}

// readEntry reads the next entry of the index; not ok if it was passed over.
func (r *Reader) readEntry(s *Series) (ok bool, err error) {
	const lengthBytesMax = binary.MaxVarintLen32
	at := (r.pos + seriesAlign - 1) / seriesAlign * seriesAlign
	if at >= r.end {
		return false, io.EOF
	}
	head, err := r.index.upTo(at, lengthBytesMax, r.end)
	if err != nil {
		return false, err
	}
	l, n := binary.Uvarint(head)
	switch {
	case n <= 0 || l == 0:
		return false, r.index.corrupt("series", at, FaultFormat, "no length")
	case l > seriesBytesMax:
		return false, r.index.corrupt("series", at, FaultTooLong, fmt.Sprintf("%d bytes, at most %d are read", l, seriesBytesMax))
	case at+int64(n)+int64(l)+4 > r.end:
		return false, r.index.corrupt("series", at, FaultTruncated, "it reaches past the section")
	}
	b, err := r.index.at(at, n+int(l)+4)
	if err != nil {
		return false, err
	}
	r.pos = at + int64(len(b))
	b = b[n:]
	if crc32.Checksum(b[:l], castagnoli) != binary.BigEndian.Uint32(b[l:]) {
		return false, r.skip(r.index.corrupt("series", at, FaultChecksum, ""))
	}
	s.Ref = uint64(at / seriesAlign)
	if c := r.decodeEntry(s, at, b[:l]); c != nil {
		return false, r.skip(c)
	}
	if len(r.last) > 0 && slices.Compare(r.last, s.Labels) >= 0 {
		return false, r.skip(r.index.corrupt("series", at, FaultOrder, "its labels are not after those of the series before"))
	}
	r.last = append(r.last[:0], s.Labels...)
	return true, nil
}

func (r *Reader) decodeEntry(s *Series, at int64, b []byte) *CorruptError {
	d := decoder{b: b}
	n := d.uvarint()
	if n > uint64(len(b)/2) {
		return r.index.corrupt("series", at, FaultFormat, fmt.Sprintf("%d labels in %d bytes", n, len(b)))
	}
	s.Labels = s.Labels[:0]
	sorted := true
	for range n {
		name, value := d.ordinal(), d.ordinal()
		if d.bad || name >= r.nsymbols || value >= r.nsymbols {
			return r.index.corrupt("series", at, FaultFormat, "a label is not in the table of symbols")
		}
		if k := len(s.Labels); k > 0 && s.Labels[k-2] >= name {
			sorted = false
		}
		s.Labels = append(s.Labels, name, value)
	}
	if !sorted && (!r.cfg.Unsorted || !sortNames(s.Labels)) {
		return r.index.corrupt("series", at, FaultOrder, "its label names are not sorted")
	}
	count := d.uvarint()
	if count > uint64(len(b)/3) {
		return r.index.corrupt("series", at, FaultFormat, fmt.Sprintf("%d chunks in %d bytes", count, len(b)))
	}
	s.Chunks, s.refs = s.Chunks[:0], s.refs[:0]
	var t, ref int64
	for i := range count {
		var c Chunk
		if i == 0 {
			c.MinTime = d.varint()
			c.MaxTime = c.MinTime + int64(d.uvarint())
			ref = int64(d.uvarint())
		} else {
			c.MinTime = t + int64(d.uvarint())
			c.MaxTime = c.MinTime + int64(d.uvarint())
			ref += d.varint()
		}
		t = c.MaxTime
		s.Chunks, s.refs = append(s.Chunks, c), append(s.refs, uint64(ref))
	}
	switch {
	case d.bad || len(d.b) > 0:
		return r.index.corrupt("series", at, FaultFormat, "its chunks don't fill it")
	case n == 0:
		return r.index.corrupt("series", at, FaultEmpty, "no labels")
	case count == 0:
		return r.index.corrupt("series", at, FaultEmpty, "no chunks")
	}
	return nil
}

// Labels returns the labels of a series that was read from this block.
func (r *Reader) Labels(b *labels.ScratchBuilder, s *Series) (labels.Labels, error) {
	if r.table == nil {
		if err := r.openTable(); err != nil {
			return labels.EmptyLabels(), err
		}
	}
	b.Reset()
	for i := 0; i+1 < len(s.Labels); i += 2 {
		name, err := r.table.at(s.Labels[i])
		if err != nil {
			return labels.EmptyLabels(), err
		}
		n := string(name)
		value, err := r.table.at(s.Labels[i+1])
		if err != nil {
			return labels.EmptyLabels(), err
		}
		b.Add(n, string(value))
	}
	return b.Labels(), nil
}

// openTable walks the symbols once, to know where they are.
func (r *Reader) openTable() error {
	s, err := r.Symbols()
	if err != nil {
		return err
	}
	s.keep = true
	for err == nil {
		_, err = s.Next()
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	r.table = &lookup{w: s.w, offsets: s.offsets, count: s.count}
	return nil
}

// OverlapsClosed tells whether the chunk may have samples from mint to maxt, both included.
func (c *Chunk) OverlapsClosed(mint, maxt int64) bool { return c.MinTime <= maxt && mint <= c.MaxTime }
