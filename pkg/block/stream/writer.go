package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block"
)

// WriterConfig has the bounds of a Writer; the zero value has the defaults.
type WriterConfig struct {
	// SegmentBytes is how long a chunk file gets, at most and by default SegmentBytesMax.
	SegmentBytes int64
	// PostingsHeld is how many postings (a series has one a label, and one) are sorted in memory, 16 bytes each; others
	// wait in files of 12 bytes each in the block's directory, which are gone after Close. The default is 2M.
	PostingsHeld int
}

// Stats says what a Writer wrote.
type Stats struct {
	Series, Chunks uint64
	// Samples counts floats and histograms; of aggregates the windows.
	Samples, FloatSamples, HistogramSamples uint64
	// MinTime and MaxTime are those of the chunks in ms, both included; meaningless without chunks.
	MinTime, MaxTime int64
	// SeriesBytesMax and ChunkBytesMax are the longest entry of the index and the longest chunk, with all that belongs to
	// them in their file.
	SeriesBytesMax, ChunkBytesMax int64
	IndexBytes, ChunksBytes       int64
	// SegmentFiles are the base names of the chunk files.
	SegmentFiles []string
}

// Writer writes the index and the chunks of one block: first all symbols, then all series, each in order, then Close.
// After an error only Abort is of use. It is for one goroutine.
//
// Memory: the postings held, the buffers of two files, eight bytes for 32 symbols, four for each series of the longest list of
// postings.
type Writer struct {
	dir     string
	index   *outFile
	chunks  segments
	sorter  sorter
	stats   Stats
	stage   int
	symbols int64 // where the section begins
	series  int64
	count   uint32
	offsets []int64
	symbol  []byte
	last    []uint32
	buf     []byte
	refs    []uint64
	closed  bool
}

// The stages of a Writer.
const (
	stageSymbols = iota
	stageSeries
)

// NewWriter begins a block in dir, which must not exist or be empty. Nobody else writes there until Close or
// Abort.
func NewWriter(path string, cfg WriterConfig) (*Writer, error) {
	if cfg.SegmentBytes <= 0 || cfg.SegmentBytes > SegmentBytesMax {
		cfg.SegmentBytes = SegmentBytesMax
	}
	if cfg.PostingsHeld <= 0 {
		cfg.PostingsHeld = postingsHeldMax
	}
	if err := os.MkdirAll(filepath.Join(path, block.ChunksDirname), 0o777); err != nil {
		return nil, err
	}
	f, err := createFile(filepath.Join(path, block.IndexFilename))
	if err != nil {
		return nil, err
	}
	w := &Writer{
		dir: path, index: f,
		chunks: segments{dir: path, max: cfg.SegmentBytes},
		sorter: sorter{dir: path, max: cfg.PostingsHeld},
		stats:  Stats{MinTime: math.MaxInt64, MaxTime: math.MinInt64},
	}
	head := binary.BigEndian.AppendUint32(nil, indexMagic)
	head = append(head, indexVersion)
	w.symbols = int64(len(head))
	head = append(head, make([]byte, 8)...) // length and number of symbols
	if _, err := f.Write(head); err != nil {
		f.abandon()
		return nil, err
	}
	return w, nil
}

// AddSymbol adds a symbol, greater than those before; its ordinal is the number of those. The bytes are not kept.
func (w *Writer) AddSymbol(symbol []byte) error {
	if w.stage != stageSymbols {
		return errors.New("add symbol: series have been added already")
	}
	if w.count > 0 && string(symbol) <= string(w.symbol) {
		return fmt.Errorf("add symbol %q: not after %q", symbol, w.symbol)
	}
	w.symbol = append(w.symbol[:0], symbol...)
	if w.count%symbolsApart == 0 {
		w.offsets = append(w.offsets, w.index.pos)
	}
	w.count++
	w.buf = binary.AppendUvarint(w.buf[:0], uint64(len(symbol)))
	w.buf = append(w.buf, symbol...)
	_, err := w.index.Write(w.buf)
	return err
}

func (w *Writer) finishSymbols() error {
	if err := w.index.seal(w.symbols, int(w.count)); err != nil {
		return fmt.Errorf("write symbols: %w", err)
	}
	w.stage = stageSeries
	w.series = w.index.pos
	return nil
}

// AddSeries adds a series: pairs of ordinals of the symbols added, sorted by name, after those of the series before, and its
// chunks in order of time. Nothing is kept.
func (w *Writer) AddSeries(pairs []uint32, chunks []Chunk) error {
	if w.stage == stageSymbols {
		if err := w.finishSymbols(); err != nil {
			return err
		}
	}
	if err := w.checkSeries(pairs, chunks); err != nil {
		return err
	}
	w.last = append(w.last[:0], pairs...)
	if err := w.addChunks(chunks); err != nil {
		return fmt.Errorf("write chunks: %w", err)
	}
	if err := w.addEntry(pairs, chunks); err != nil {
		return fmt.Errorf("write series: %w", err)
	}
	w.stats.Series++
	return nil
}

func (w *Writer) checkSeries(pairs []uint32, chunks []Chunk) error {
	if len(pairs) == 0 || len(pairs)%2 != 0 || len(chunks) == 0 {
		return fmt.Errorf("add series: %d names and values, %d chunks", len(pairs), len(chunks))
	}
	if len(w.last) > 0 && slices.Compare(w.last, pairs) >= 0 {
		return errors.New("add series: not after the series before")
	}
	for i, ordinal := range pairs {
		if ordinal >= w.count {
			return fmt.Errorf("add series: symbol %d of %d", ordinal, w.count)
		}
		if i%2 == 0 && i > 0 && pairs[i-2] >= ordinal {
			return errors.New("add series: label names are not sorted")
		}
	}
	for i := range chunks {
		if chunks[i].MinTime > chunks[i].MaxTime || i > 0 && chunks[i].MinTime <= chunks[i-1].MaxTime {
			return fmt.Errorf("add series: chunk %d from %d to %d is not after the one before", i, chunks[i].MinTime, chunks[i].MaxTime)
		}
	}
	return nil
}

func (w *Writer) addChunks(chunks []Chunk) error {
	w.refs = w.refs[:0]
	for i := range chunks {
		c := &chunks[i]
		ref, size, err := w.chunks.add(c)
		if err != nil {
			return err
		}
		w.refs = append(w.refs, ref)
		w.stats.ChunksBytes += size
		w.stats.ChunkBytesMax = max(w.stats.ChunkBytesMax, size)
		w.stats.count(c)
	}
	return nil
}

func (s *Stats) count(c *Chunk) {
	n := uint64(SamplesOf(c))
	s.Chunks++
	s.Samples += n
	switch c.Encoding {
	case chunkenc.EncXOR:
		s.FloatSamples += n
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		s.HistogramSamples += n
	}
	s.MinTime, s.MaxTime = min(s.MinTime, c.MinTime), max(s.MaxTime, c.MaxTime)
}

// SamplesOf is the number of samples that a chunk says it has; of an aggregate chunk the number of its windows.
func SamplesOf(c *Chunk) int {
	data := c.Data
	if c.Encoding == aggr.Encoding {
		_, sub, err := aggr.Chunk(data).Get(aggr.Count)
		if err != nil {
			return 0
		}
		data = sub
	}
	if len(data) < 2 {
		return 0
	}
	return int(binary.BigEndian.Uint16(data))
}

// addEntry writes the entry of a series into the index.
func (w *Writer) addEntry(pairs []uint32, chunks []Chunk) error {
	if err := w.index.align(seriesAlign); err != nil {
		return err
	}
	at := w.index.pos
	if at/seriesAlign > math.MaxUint32 {
		return fmt.Errorf("index is past %d bytes, which series are addressed up to", int64(math.MaxUint32)*seriesAlign)
	}
	series := uint32(at / seriesAlign)
	if err := w.sorter.add(posting{allPostings, series}); err != nil {
		return err
	}
	const head = binary.MaxVarintLen32 // left free in front for the length
	var prefix [head]byte
	w.buf = append(w.buf[:0], prefix[:]...)
	b := w.buf
	b = binary.AppendUvarint(b, uint64(len(pairs)/2))
	for i := 0; i < len(pairs); i += 2 {
		b = binary.AppendUvarint(b, uint64(pairs[i]))
		b = binary.AppendUvarint(b, uint64(pairs[i+1]))
		if err := w.sorter.add(posting{pairOf(pairs[i], pairs[i+1]), series}); err != nil {
			return err
		}
	}
	b = binary.AppendUvarint(b, uint64(len(chunks)))
	for i := range chunks {
		c := &chunks[i]
		if i == 0 {
			b = binary.AppendVarint(b, c.MinTime)
			b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime))
			b = binary.AppendUvarint(b, w.refs[0])
			continue
		}
		b = binary.AppendUvarint(b, uint64(c.MinTime-chunks[i-1].MaxTime))
		b = binary.AppendUvarint(b, uint64(c.MaxTime-c.MinTime))
		b = binary.AppendVarint(b, int64(w.refs[i])-int64(w.refs[i-1]))
	}
	length := len(b) - head
	b = appendChecked(b, head)
	w.buf = b
	n := binary.PutUvarint(prefix[:], uint64(length))
	copy(b[head-n:], prefix[:n])
	b = b[head-n:]
	w.stats.SeriesBytesMax = max(w.stats.SeriesBytesMax, (int64(len(b))+seriesAlign-1)/seriesAlign*seriesAlign)
	_, err := w.index.Write(b)
	return err
}

// Close writes the rest of the index and makes the files durable. A meta.json is the caller's.
func (w *Writer) Close() (Stats, error) {
	if w.closed {
		return w.stats, errors.New("close writer: closed already")
	}
	err := w.finish()
	if err != nil {
		w.Abort()
		return Stats{}, fmt.Errorf("finish block in %s: %w", w.dir, err)
	}
	w.closed = true
	return w.stats, nil
}

func (w *Writer) finish() error {
	if w.stage == stageSymbols {
		if err := w.finishSymbols(); err != nil {
			return err
		}
	}
	if err := w.chunks.finish(); err != nil {
		return err
	}
	if err := w.writePostings(); err != nil {
		return err
	}
	w.stats.SegmentFiles = w.chunks.names
	w.stats.IndexBytes = w.index.pos
	if err := w.index.finish(); err != nil {
		return err
	}
	return w.sorter.remove()
}

// Abort gives up and closes the files; what was written stays in the directory for the caller to delete. After
// Close it does nothing.
func (w *Writer) Abort() {
	if w.closed {
		return
	}
	w.closed = true
	if w.chunks.file != nil {
		w.chunks.file.abandon()
	}
	w.index.abandon()
	_ = w.sorter.remove() // the directory goes as a whole
}
