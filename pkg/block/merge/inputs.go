package merge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/koios-metrics/koios/pkg/block/stream"
)

// absent stands for the symbols of neighbours that no input has.
const absent = math.MaxUint32

// inputs are the blocks that are read side by side.
type inputs struct {
	cfg     *Config
	sources []*source
}

// source is one block, and the next series of it.
type source struct {
	Input
	index     int
	neighbour bool
	reader    *stream.Reader
	// ordinals are those of the output for those of the block.
	ordinals []uint32
	head     stream.Series // its labels are those of the output
	ended    bool
	started  bool
}

// job is one series of the output: what the blocks have of it.
type job struct {
	labels []uint32
	parts  []part
	n      int // parts in use; those behind lend their memory
}

// part is what one block has of a series.
type part struct {
	source  *source
	series  stream.Series
	deleted tombstones.Intervals
}

func openInputs(cfg *Config) (*inputs, error) {
	in := &inputs{cfg: cfg}
	open := func(i int, input Input, neighbour bool) error {
		rc := stream.Config{WindowBytes: cfg.WindowBytes, Unsorted: cfg.Unsorted}
		if cfg.Skip != nil && !neighbour {
			rc.Skip = func(c *stream.CorruptError) bool { return cfg.Skip(i, c) }
		}
		if neighbour { // what is unreadable there is another merge's trouble
			rc.Skip = func(*stream.CorruptError) bool { return true }
		}
		r, err := stream.OpenReader(input.Files, rc)
		if err != nil {
			return &InputError{input.Meta.ULID, err}
		}
		in.sources = append(in.sources, &source{Input: input, index: i, neighbour: neighbour, reader: r})
		return nil
	}
	for i, input := range cfg.Inputs {
		if err := open(i, input, false); err != nil {
			return nil, errors.Join(err, in.close())
		}
	}
	for i, input := range cfg.Neighbours {
		if err := open(i, input, true); err != nil {
			return nil, errors.Join(err, in.close())
		}
	}
	return in, nil
}

func (in *inputs) close() error {
	var err error
	for _, s := range in.sources {
		err = errors.Join(err, s.reader.Close())
	}
	return err
}

// table is a table of symbols being walked.
type table struct {
	*source
	symbols *stream.Symbols
	head    []byte
	ended   bool
}

func (t *table) next() error {
	head, err := t.symbols.Next()
	if errors.Is(err, io.EOF) {
		t.ended = true
		return nil
	}
	if err != nil {
		return &InputError{t.Meta.ULID, err}
	}
	t.head = head
	return nil
}

// mergeSymbols writes the symbols of all inputs, and learns which is which.
func (in *inputs) mergeSymbols(ctx context.Context, w *stream.Writer) error {
	const checkEvery = 1 << 14
	var tables []*table
	for _, s := range in.sources {
		symbols, err := s.reader.Symbols()
		if err != nil {
			return &InputError{s.Meta.ULID, err}
		}
		t := &table{source: s, symbols: symbols}
		// The promised number is not believed before it is seen.
		s.ordinals = make([]uint32, 0, min(symbols.Len(), 1<<16))
		if err := t.next(); err != nil {
			return err
		}
		tables = append(tables, t)
	}
	var n uint32
	for i := 0; ; i++ {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		var least *table
		for _, t := range tables {
			if !t.ended && (least == nil || bytes.Compare(t.head, least.head) < 0) {
				least = t
			}
		}
		if least == nil {
			return nil
		}
		symbol := slices.Clone(least.head)
		ordinal := uint32(absent)
		for _, t := range tables {
			if t.ended || t.neighbour || !bytes.Equal(t.head, symbol) {
				continue
			}
			if ordinal == absent {
				if err := w.AddSymbol(symbol); err != nil {
					return err
				}
				ordinal = n
				n++
			}
		}
		for _, t := range tables {
			if !t.ended && bytes.Equal(t.head, symbol) {
				t.ordinals = append(t.ordinals, ordinal)
				if err := t.next(); err != nil {
					return err
				}
			}
		}
	}
}

// advance reads the next series of a source.
func (s *source) advance() error {
	for {
		err := s.reader.Read(&s.head)
		if errors.Is(err, io.EOF) {
			s.ended = true
			return nil
		}
		if err != nil {
			return &InputError{s.Meta.ULID, err}
		}
		known := true
		for i, ordinal := range s.head.Labels {
			s.head.Labels[i] = s.ordinals[ordinal]
			known = known && s.head.Labels[i] != absent
		}
		if known {
			return nil
		}
	}
}

// next gathers the next series; false after the last.
func (in *inputs) next(j *job) (bool, error) {
	for {
		var least *source
		for _, s := range in.sources {
			if !s.started {
				s.started = true
				if err := s.advance(); err != nil {
					return false, err
				}
			}
			if !s.ended && (least == nil || slices.Compare(s.head.Labels, least.head.Labels) < 0) {
				least = s
			}
		}
		if least == nil {
			return false, nil
		}
		j.labels = append(j.labels[:0], least.head.Labels...)
		j.n = 0
		own := false
		for _, s := range in.sources {
			if s.ended || !slices.Equal(s.head.Labels, j.labels) {
				continue
			}
			if j.n == len(j.parts) {
				j.parts = append(j.parts, part{})
			}
			p := &j.parts[j.n]
			j.n++
			p.source, p.deleted = s, nil
			p.series, s.head = s.head, p.series
			own = own || !s.neighbour
			if err := p.readTombstones(); err != nil {
				return false, &InputError{s.Meta.ULID, err}
			}
			if err := s.advance(); err != nil {
				return false, err
			}
		}
		if own {
			return true, nil
		}
	}
}

func (p *part) readTombstones() (err error) {
	if p.source.Tombstones != nil {
		p.deleted, err = p.source.Tombstones.Get(refOf(&p.series))
	}
	return err
}
