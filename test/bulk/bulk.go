// Package bulk writes large blocks fast, for measurements: chunks are encoded once for each of a few shapes
// and their bytes used for every series of that shape.
package bulk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/koios-metrics/koios/pkg/block"
)

// shapes is how many different sequences of values there are.
const shapes = 64

// samplesPerChunk is Prometheus's own.
const samplesPerChunk = 120

// Spec describes a block of counters.
type Spec struct {
	// From is the time in ms of the first scrape, Interval the distance in ms to the next; there are Samples of them.
	From, Interval int64
	Samples        int
	// Series are the labels of the series, sorted.
	Series []labels.Labels
	// External are the external labels of the block.
	External map[string]string
	// Seed makes the values and the jitter of the scrapes.
	Seed uint64
}

// Counters returns n label sets of one metric, sorted: jobs of a hundred instances.
func Counters(metric string, n int) []labels.Labels {
	ls := make([]labels.Labels, n)
	for i := range ls {
		ls[i] = labels.FromStrings("__name__", metric, "instance", fmt.Sprintf("host-%06d:9090", i), "job", fmt.Sprintf("job-%03d", i%80),
			"method", "GET", "path", fmt.Sprintf("/api/v1/resource-%d", i%37))
	}
	slices.SortFunc(ls, labels.Compare)
	return ls
}

// Write writes a block into dir, as an object storage holds it, and returns its id.
func Write(ctx context.Context, dir string, s Spec) (id ulid.ULID, err error) {
	id = ulid.MustNew(ulid.Timestamp(time.Now()), rand.Reader)
	out := filepath.Join(dir, id.String())
	if err := os.MkdirAll(filepath.Join(out, "chunks"), 0o777); err != nil {
		return id, err
	}
	cw, err := chunks.NewWriter(filepath.Join(out, "chunks"))
	if err != nil {
		return id, err
	}
	iw, err := index.NewWriter(ctx, filepath.Join(out, "index"))
	if err != nil {
		return id, errors.Join(err, cw.Close())
	}
	err = s.write(cw, iw)
	if err := errors.Join(err, cw.Close(), iw.Close()); err != nil {
		return id, fmt.Errorf("write block %s: %w", id, err)
	}
	return id, s.writeMeta(out, id)
}

func (s Spec) write(cw *chunks.Writer, iw *index.Writer) error {
	symbols := map[string]struct{}{}
	for _, ls := range s.Series {
		ls.Range(func(l labels.Label) { symbols[l.Name], symbols[l.Value] = struct{}{}, struct{}{} })
	}
	sorted := make([]string, 0, len(symbols))
	for sym := range symbols {
		sorted = append(sorted, sym)
	}
	slices.Sort(sorted)
	for _, sym := range sorted {
		if err := iw.AddSymbol(sym); err != nil {
			return err
		}
	}
	encoded := make([][]chunks.Meta, min(shapes, len(s.Series)))
	for i := range encoded {
		var err error
		if encoded[i], err = s.encode(uint64(i)); err != nil {
			return err
		}
	}
	for i, ls := range s.Series {
		cs := slices.Clone(encoded[i%len(encoded)])
		if err := cw.WriteChunks(cs...); err != nil {
			return err
		}
		if err := iw.AddSeries(storage.SeriesRef(i), ls, cs...); err != nil {
			return err
		}
	}
	return nil
}

// encode makes the chunks of one shape: a counter with steps of varying size, and now and then a restart,
// scraped with a jitter of some milliseconds.
func (s Spec) encode(shape uint64) ([]chunks.Meta, error) {
	var (
		rnd   = mrand.New(mrand.NewPCG(shape, 7))
		jit   = mrand.New(mrand.NewPCG(shape, s.Seed))
		metas []chunks.Meta
		c     *chunkenc.XORChunk
		app   chunkenc.Appender
		value float64
	)
	for i := range s.Samples {
		if i%samplesPerChunk == 0 {
			c = chunkenc.NewXORChunk()
			a, err := c.Appender()
			if err != nil {
				return nil, err
			}
			app = a
			metas = append(metas, chunks.Meta{Chunk: c, MinTime: s.From + int64(i)*s.Interval})
		}
		at := s.From + int64(i)*s.Interval
		if i%samplesPerChunk > 0 && i%7 == 0 {
			at += jit.Int64N(20)
		}
		value += math.Floor(rnd.ExpFloat64() * 40)
		if rnd.IntN(4000) == 0 {
			value = 0
		}
		app.Append(at, value)
		metas[len(metas)-1].MaxTime = at
	}
	return metas, nil
}

func (s Spec) writeMeta(dir string, id ulid.ULID) error {
	m := &block.Meta{
		BlockMeta: tsdb.BlockMeta{
			ULID: id, MinTime: s.From, MaxTime: s.From + int64(s.Samples)*s.Interval, Version: 1,
			Compaction: tsdb.BlockMetaCompaction{Level: 1, Sources: []ulid.ULID{id}},
			Stats: tsdb.BlockStats{
				NumSeries: uint64(len(s.Series)), NumSamples: uint64(len(s.Series) * s.Samples),
				NumChunks: uint64(len(s.Series) * ((s.Samples + samplesPerChunk - 1) / samplesPerChunk)),
			},
		},
		Thanos: block.Thanos{Version: 1, Labels: s.External, Source: block.SourceTest},
	}
	return block.WriteMetaDir(dir, m)
}
