package merge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

const (
	// Series are handed to workers in batches: as many as this, or as many chunk bytes.
	batchSeriesMax = 256
	// So many batches are under way for each worker: one at work, one waiting, one being written.
	batchesPerWorker = 3
)

// Compact merges the inputs into one block, and writes it, with a meta.json for the external labels given, into the
// directory <parent>/<its ULID>. After an error nothing is left there.
//
// Memory is bounded by Config, the longest series, and four bytes for each symbol of each input. Inputs without a single
// sample give no block: then the metadata is nil.
//
// An error that wraps an *InputError is about one of the inputs; if that wraps a *stream.CorruptError, the input
// is corrupt, else reading it failed.
func Compact(ctx context.Context, cfg Config, labels map[string]string, parent string) (*block.Meta, Result, error) {
	if len(cfg.Inputs) == 0 {
		return nil, Result{}, errors.New("compact: no inputs")
	}
	cfg.defaults()
	id := ulid.MustNew(ulid.Timestamp(time.Now()), rand.Reader)
	dir := filepath.Join(parent, id.String())
	res, err := run(ctx, &cfg, dir)
	if err != nil || res.Series == 0 {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		return nil, Result{}, fmt.Errorf("compact %d blocks: %w", len(cfg.Inputs), err)
	}
	if res.Series == 0 {
		return nil, res, nil
	}
	m := outputMeta(&cfg, id, labels, res.Stats)
	if err := block.WriteMetaDir(dir, m); err != nil {
		return nil, Result{}, errors.Join(err, os.RemoveAll(dir))
	}
	return m, res, nil
}

// InputError is a fault of one input.
type InputError struct {
	ID  ulid.ULID
	Err error
}

func (e *InputError) Error() string { return fmt.Sprintf("block %s: %v", e.ID, e.Err) }

// Unwrap returns what is wrong with it.
func (e *InputError) Unwrap() error { return e.Err }

// batch is some series on their way through the steps.
type batch struct {
	jobs []job
	n    int
	w    worker
}

func run(ctx context.Context, cfg *Config, dir string) (res Result, err error) {
	in, err := openInputs(cfg)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	w, err := stream.NewWriter(dir, cfg.Writer)
	if err != nil {
		return res, err
	}
	defer w.Abort()
	if err := in.mergeSymbols(ctx, w); err != nil {
		return res, err
	}
	depth := cfg.Workers * batchesPerWorker
	bytesMax := cfg.BatchBytes / depth
	err = stream.Ordered(ctx, cfg.Workers, depth,
		func() *batch { return &batch{w: newWorker(cfg)} },
		func(b *batch) (bool, error) { return b.read(in, bytesMax) },
		(*batch).merge,
		func(b *batch) error { return b.write(w, &res) },
	)
	if err != nil {
		return res, err
	}
	res.Stats, err = w.Close()
	return res, err
}

// read fills the batch with the next series; false if there was none.
func (b *batch) read(in *inputs, bytesMax int) (bool, error) {
	bytes := 0
	for b.n = 0; b.n < batchSeriesMax && (b.n == 0 || bytes < bytesMax); b.n++ {
		if b.n == len(b.jobs) {
			b.jobs = append(b.jobs, job{})
		}
		j := &b.jobs[b.n]
		more, err := in.next(j)
		if err != nil {
			return false, err
		}
		if !more {
			break
		}
		for i := range j.parts[:j.n] {
			for k := range j.parts[i].series.Chunks {
				bytes += len(j.parts[i].series.Chunks[k].Data)
			}
		}
	}
	return b.n > 0, nil
}

func (b *batch) merge() error {
	b.w.reset()
	for i := range b.jobs[:b.n] {
		if err := b.w.merge(&b.jobs[i]); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) write(w *stream.Writer, res *Result) error {
	from := 0
	for i, end := range b.w.ends {
		chunks := b.w.out[from:end]
		from = end
		if len(chunks) == 0 {
			continue
		}
		if err := w.AddSeries(b.jobs[i].labels, chunks); err != nil {
			return err
		}
	}
	res.ChunksPassed += b.w.passed
	res.ChunksMade += b.w.made
	res.Duplicates += b.w.duplicates
	res.Disorder += b.w.disorder
	return nil
}

// outputMeta is the metadata of the block made of the inputs.
func outputMeta(cfg *Config, id ulid.ULID, labels map[string]string, s stream.Stats) *block.Meta {
	m := &block.Meta{}
	m.ULID, m.Version = id, 1
	first := cfg.Inputs[0].Meta
	m.MinTime, m.MaxTime = first.MinTime, first.MaxTime
	var sources []ulid.ULID
	for _, in := range cfg.Inputs {
		m.MinTime, m.MaxTime = min(m.MinTime, in.Meta.MinTime), max(m.MaxTime, in.Meta.MaxTime)
		m.Compaction.Level = max(m.Compaction.Level, in.Meta.Compaction.Level)
		sources = append(sources, in.Meta.Compaction.Sources...)
		m.Compaction.Parents = append(m.Compaction.Parents, tsdb.BlockDesc{
			ULID: in.Meta.ULID, MinTime: in.Meta.MinTime, MaxTime: in.Meta.MaxTime,
		})
	}
	m.MinTime, m.MaxTime = max(m.MinTime, cfg.MinTime), min(m.MaxTime, cfg.MaxTime)
	m.Compaction.Level++
	slices.SortFunc(sources, func(a, b ulid.ULID) int { return a.Compare(b) })
	m.Compaction.Sources = slices.Compact(sources)
	m.Stats.NumSeries, m.Stats.NumChunks, m.Stats.NumSamples = s.Series, s.Chunks, s.Samples
	m.Stats.NumFloatSamples, m.Stats.NumHistogramSamples = s.FloatSamples, s.HistogramSamples
	m.Thanos = block.Thanos{
		Version: 1, Labels: labels, Downsample: first.Thanos.Downsample, Source: block.SourceCompactor,
		SegmentFiles: s.SegmentFiles,
		IndexStats:   block.IndexStats{SeriesMaxSize: s.SeriesBytesMax, ChunkMaxSize: s.ChunkBytesMax},
		Extensions:   commonExtensions(cfg.Inputs),
	}
	return m
}
