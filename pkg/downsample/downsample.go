package downsample

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// Config bounds the work. The zero value is for local files and all processors.
type Config struct {
	// Workers decode, aggregate and encode in parallel; default GOMAXPROCS. Reading and writing have a goroutine each
	// beside them.
	Workers int
	// WindowBytes is how much is read at once, of the index and of chunks each; see stream.Config.
	WindowBytes int
	// Unsorted reads blocks whose label names are not sorted; see stream.Config.
	Unsorted bool
	// Skip, if set, is asked about each chunk or series that is corrupt; true leaves it out.
	Skip func(*stream.CorruptError) bool
	// Writer bounds the writer.
	Writer stream.WriterConfig
}

// Result says what was written.
type Result struct {
	stream.Stats
	// Dropped are samples that make no window: NaN, staleness markers, before 1970, or a timestamp again.
	Dropped uint64
	// SeriesLeftOut had no other samples.
	SeriesLeftOut uint64
}

const (
	// Series are handed to workers in batches: as many as this, or as many chunk bytes.
	batchSeriesMax = 128
	batchBytesMax  = 512 << 10
	// So many batches are under way for each worker: one at work, one waiting, one being written.
	batchesPerWorker = 3
)

// Next is the resolution in ms that blocks of a resolution are downsampled to; not ok for the last one.
func Next(resolution int64) (next int64, ok bool) {
	switch resolution {
	case block.ResolutionRaw:
		return block.Resolution5m, true
	case block.Resolution5m:
		return block.Resolution1h, true
	}
	return 0, false
}

// Downsample makes a block of the next resolution (see Next) from a block, and writes it, with its meta.json, into the directory
// <parent>/<its ULID>. Memory is bounded by Config and the longest series. After an error nothing is left there.
//
// A block without a single window gives no block: then the metadata is nil.
//
// Errors that wrap a *stream.CorruptError are about the input.
func Downsample(ctx context.Context, files stream.Files, meta *block.Meta, parent string, cfg Config) (*block.Meta, Result, error) {
	resolution, ok := Next(meta.Resolution())
	if !ok {
		return nil, Result{}, fmt.Errorf("downsample block %s: nothing is coarser than its %d ms", meta.ULID, meta.Resolution())
	}
	id := ulid.MustNew(ulid.Timestamp(time.Now()), rand.Reader)
	dir := filepath.Join(parent, id.String())
	res, err := run(ctx, files, meta.Resolution(), resolution, dir, cfg)
	if err != nil || res.Series == 0 {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		return nil, Result{}, fmt.Errorf("downsample block %s: %w", meta.ULID, err)
	}
	if res.Series == 0 {
		return nil, res, nil
	}
	m := outputMeta(meta, id, resolution, res.Stats)
	if err := block.WriteMetaDir(dir, m); err != nil {
		return nil, Result{}, errors.Join(err, os.RemoveAll(dir))
	}
	return m, res, nil
}

// outputMeta is the metadata of the block made of another.
func outputMeta(from *block.Meta, id ulid.ULID, resolution int64, s stream.Stats) *block.Meta {
	m := from.Clone()
	m.ULID = id
	m.Stats = tsdb.BlockStats{NumSeries: s.Series, NumSamples: s.Samples, NumChunks: s.Chunks}
	t := &m.Thanos
	t.Downsample.Resolution = resolution
	t.Source = block.SourceCompactor
	t.SegmentFiles = s.SegmentFiles
	t.Files = nil
	t.IndexStats = block.IndexStats{SeriesMaxSize: s.SeriesBytesMax, ChunkMaxSize: s.ChunkBytesMax}
	t.UploadTime = time.Time{}
	return m
}

// batch is some series on their way through the steps.
type batch struct {
	series []stream.Series
	n      int
	maker  *maker
	// ends are where in maker.out each series' chunks end.
	ends []int
}

func run(ctx context.Context, files stream.Files, from, to int64, dir string, cfg Config) (res Result, err error) {
	r, err := stream.OpenReader(files, stream.Config{WindowBytes: cfg.WindowBytes, Unsorted: cfg.Unsorted, Skip: cfg.Skip})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	w, err := stream.NewWriter(dir, cfg.Writer)
	if err != nil {
		return res, err
	}
	defer w.Abort()
	if err := copySymbols(w, r); err != nil {
		return res, err
	}
	workers := cfg.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	err = stream.Ordered(ctx, workers, workers*batchesPerWorker,
		func() *batch { return &batch{maker: &maker{resolution: to}} },
		func(b *batch) (bool, error) { return b.read(r) },
		func(b *batch) error { return b.downsample(from) },
		func(b *batch) error { return b.write(w, &res) },
	)
	if err != nil {
		return res, err
	}
	res.Stats, err = w.Close()
	return res, err
}

func copySymbols(w *stream.Writer, r *stream.Reader) error {
	symbols, err := r.Symbols()
	if err != nil {
		return err
	}
	for {
		s, err := symbols.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = w.AddSymbol(s)
		}
		if err != nil {
			return err
		}
	}
}

// read fills the batch; false if there was no more.
func (b *batch) read(r *stream.Reader) (bool, error) {
	bytes := 0
	for b.n = 0; b.n < batchSeriesMax && bytes < batchBytesMax; b.n++ {
		if b.n == len(b.series) {
			b.series = append(b.series, stream.Series{})
		}
		s := &b.series[b.n]
		err := r.Read(s)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, err
		}
		for i := range s.Chunks {
			bytes += len(s.Chunks[i].Data)
		}
	}
	return b.n > 0, nil
}

func (b *batch) downsample(from int64) error {
	m := b.maker
	m.out, m.arena, b.ends = m.out[:0], m.arena[:0], b.ends[:0]
	for i := range b.series[:b.n] {
		s := &b.series[i]
		// Sound blocks have them in order.
		slices.SortStableFunc(s.Chunks, func(x, y stream.Chunk) int {
			switch {
			case x.MinTime < y.MinTime:
				return -1
			case x.MinTime > y.MinTime:
				return 1
			}
			return 0
		})
		var err error
		if from == block.ResolutionRaw {
			err = m.raw(s.Chunks)
		} else {
			err = m.aggregates(s.Chunks, from)
		}
		if err != nil {
			// Checksums are right, so what was written was wrong.
			return &stream.CorruptError{
				File: block.ChunksDirname, Part: "chunk", Fault: stream.FaultFormat, Detail: fmt.Sprintf("a chunk of series %d: %v", s.Ref, err),
			}
		}
		b.ends = append(b.ends, len(m.out))
	}
	return nil
}

func (b *batch) write(w *stream.Writer, res *Result) error {
	from := 0
	for i, end := range b.ends {
		chunks := b.maker.out[from:end]
		from = end
		if len(chunks) == 0 {
			res.SeriesLeftOut++
			continue
		}
		if err := w.AddSeries(b.series[i].Labels, chunks); err != nil {
			return err
		}
	}
	res.Dropped += b.maker.dropped
	b.maker.dropped = 0
	return nil
}
