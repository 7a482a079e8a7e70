package bucketops

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/merge"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// makeRewritten writes a block of the series planned into a directory of work, and returns its metadata, nil if nothing is
// left. Symbols that no series has any more are gone.
//
// Chunks that overlap, because series became one, and series of which a part is deleted, go through the merger:
// they are written in layers, blocks each in good order, and the layers are merged.
func makeRewritten(ctx context.Context, files stream.Files, from *block.Meta, all []rewritten, work string) (made *block.Meta, err error) {
	if len(all) == 0 {
		return nil, nil
	}
	r, err := stream.OpenReader(files, stream.Config{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	ls := newLayers(from, all, work)
	defer ls.abort()
	for i := 0; i < len(all); {
		end := i + 1
		for end < len(all) && labels.Equal(all[i].labels, all[end].labels) {
			end++
		}
		if err := ls.add(ctx, r, all[i:end]); err != nil {
			return nil, err
		}
		i = end
	}
	return ls.finish(ctx)
}

// layers are blocks that are written side by side.
type layers struct {
	from    *block.Meta
	work    string
	symbols []string
	ordinal map[string]uint32
	all     []*layer
}

// layer is a block being written. Deleted are the deletions by the number of the series.
type layer struct {
	id      ulid.ULID
	w       *stream.Writer
	series  int
	deleted map[int]tombstones.Intervals
}

func newLayers(from *block.Meta, all []rewritten, work string) *layers {
	ls := &layers{from: from, work: work, ordinal: map[string]uint32{}}
	for i := range all {
		all[i].labels.Range(func(l labels.Label) { ls.ordinal[l.Name], ls.ordinal[l.Value] = 0, 0 })
	}
	ls.symbols = slices.Sorted(maps.Keys(ls.ordinal))
	for i, s := range ls.symbols {
		ls.ordinal[s] = uint32(i)
	}
	return ls
}

func (ls *layers) dir(l *layer) string { return filepath.Join(ls.work, l.id.String()) }

// at returns the i-th layer, begun if it is the next one.
func (ls *layers) at(i int) (*layer, error) {
	if i < len(ls.all) {
		return ls.all[i], nil
	}
	l := &layer{id: ulid.MustNew(ulid.Timestamp(time.Now()), rand.Reader), deleted: map[int]tombstones.Intervals{}}
	w, err := stream.NewWriter(ls.dir(l), stream.WriterConfig{})
	if err != nil {
		return nil, err
	}
	l.w = w
	ls.all = append(ls.all, l)
	for _, s := range ls.symbols {
		if err := w.AddSymbol([]byte(s)); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// part is what one layer gets of a series: chunks in order of time, all under the same deletions.
type part struct {
	owner   int // of the chunks, if something of them is deleted; else -1
	deleted tombstones.Intervals
	chunks  []stream.Chunk
}

// add writes the series that have one set of labels.
func (ls *layers) add(ctx context.Context, r *stream.Reader, same []rewritten) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var parts []part
	for i := range same {
		var s stream.Series // the chunks stay with it
		r.Seek(same[i].ref)
		if err := r.Read(&s); err != nil {
			return fmt.Errorf("read series %s: %w", same[i].labels, err)
		}
		owner := -1
		if len(same[i].deleted) > 0 {
			owner = i
		}
		slices.SortStableFunc(s.Chunks, func(a, b stream.Chunk) int { return cmp.Compare(a.MinTime, b.MinTime) })
		for _, c := range s.Chunks {
			parts = place(parts, c, owner, same[i].deleted)
		}
	}
	pairs := ls.pairs(same[0].labels)
	for i, p := range parts {
		l, err := ls.at(i)
		if err != nil {
			return err
		}
		if err := l.w.AddSeries(pairs, p.chunks); err != nil {
			return err
		}
		if len(p.deleted) > 0 {
			l.deleted[l.series] = p.deleted
		}
		l.series++
	}
	return nil
}

// place puts a chunk into the first part that it fits into, behind what is there.
func place(parts []part, c stream.Chunk, owner int, deleted tombstones.Intervals) []part {
	for i := range parts {
		p := &parts[i]
		if p.owner == owner && p.chunks[len(p.chunks)-1].MaxTime < c.MinTime {
			p.chunks = append(p.chunks, c)
			return parts
		}
	}
	return append(parts, part{owner: owner, deleted: deleted, chunks: []stream.Chunk{c}})
}

func (ls *layers) pairs(l labels.Labels) (pairs []uint32) {
	l.Range(func(l labels.Label) { pairs = append(pairs, ls.ordinal[l.Name], ls.ordinal[l.Value]) })
	return pairs
}

// finish makes one block of the layers.
func (ls *layers) finish(ctx context.Context) (*block.Meta, error) {
	var inputs []merge.Input
	plain := len(ls.all) == 1
	for _, l := range ls.all {
		st, err := l.w.Close()
		if err != nil {
			return nil, err
		}
		m := ls.meta(l.id, st)
		in := merge.Input{Files: stream.Dir(ls.dir(l)), Meta: m}
		if len(l.deleted) > 0 {
			plain = false
			if in.Tombstones, err = l.tombstones(in.Files); err != nil {
				return nil, err
			}
		}
		inputs = append(inputs, in)
	}
	if plain {
		return inputs[0].Meta, block.WriteMetaDir(ls.dir(ls.all[0]), inputs[0].Meta)
	}
	made, _, err := merge.Compact(ctx, merge.Config{Inputs: inputs}, ls.from.Thanos.Labels, ls.work)
	if err != nil {
		return nil, err
	}
	for _, l := range ls.all {
		if err := os.RemoveAll(ls.dir(l)); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// meta is the metadata of a layer.
func (ls *layers) meta(id ulid.ULID, st stream.Stats) *block.Meta {
	m := ls.from.Clone()
	m.ULID = id
	m.Stats.NumSeries, m.Stats.NumChunks, m.Stats.NumSamples = st.Series, st.Chunks, st.Samples
	m.Stats.NumFloatSamples, m.Stats.NumHistogramSamples, m.Stats.NumTombstones = st.FloatSamples, st.HistogramSamples, 0
	m.Thanos.SegmentFiles, m.Thanos.Files = st.SegmentFiles, nil
	m.Thanos.IndexStats = block.IndexStats{SeriesMaxSize: st.SeriesBytesMax, ChunkMaxSize: st.ChunkBytesMax}
	return m
}

// tombstones are the deletions by the references that the series got.
func (l *layer) tombstones(files stream.Files) (stones *tombstones.MemTombstones, err error) {
	r, err := stream.OpenReader(files, stream.Config{NoChunks: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	stones = tombstones.NewMemTombstones()
	var s stream.Series
	for i := 0; ; i++ {
		err := r.Read(&s)
		if errors.Is(err, io.EOF) {
			return stones, nil
		}
		if err != nil {
			return nil, err
		}
		if d := l.deleted[i]; len(d) > 0 {
			stones.AddInterval(storage.SeriesRef(s.Ref), d...)
		}
	}
}

// abort gives up what is not finished.
func (ls *layers) abort() {
	for _, l := range ls.all {
		l.w.Abort()
	}
}
