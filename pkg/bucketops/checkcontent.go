package bucketops

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// giantLabelBytes is the length from which a label name or value is told of.
const giantLabelBytes = 64 << 10

// content checks the index and the chunks of a block as they are read.
type content struct {
	m    *block.Meta
	deep bool
	fs   *faults
	// broken is set once something was passed over: then numbers can't be compared.
	broken bool

	// symbolHash is by ordinal.
	symbolHash []uint64
	expect     postingsSum
	// What was met, to be compared with the metadata.
	series, chunks, samples uint64
}

// checkContent reads a block and adds its faults; with DepthChunks the chunks too. The error is about the storage.
func checkContent(files stream.Files, m *block.Meta, depth Depth, fs *faults) error {
	c := &content{m: m, deep: depth == DepthChunks, fs: fs}
	err := c.read(files)
	if corrupt := stream.AsCorrupt(err); corrupt != nil {
		c.corrupt(corrupt)
		return nil
	}
	return err
}

func (c *content) read(files stream.Files) (err error) {
	r, err := stream.OpenReader(files, stream.Config{WindowBytes: windowBytes, NoChunks: !c.deep, Skip: func(e *stream.CorruptError) bool {
		c.corrupt(e)
		return true
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := c.readSymbols(r); err != nil {
		return err
	}
	var s stream.Series
	for {
		err := r.Read(&s)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		c.addSeries(&s)
	}
	if err := checkPostings(files, &c.expect, c.broken, c.fs); err != nil {
		return err
	}
	c.compareStats()
	return nil
}

func (c *content) readSymbols(r *stream.Reader) error {
	symbols, err := r.Symbols()
	if err != nil {
		return err
	}
	for {
		s, err := symbols.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(s) > giantLabelBytes {
			c.fs.add(KindGiantLabel, "%d bytes, beginning %.40q", len(s), s)
		}
		c.symbolHash = append(c.symbolHash, xxhash.Sum64(s))
	}
}

func (c *content) addSeries(s *stream.Series) {
	c.series++
	c.expect.add(s.Ref, 0, 0)
	for i := 0; i+1 < len(s.Labels); i += 2 {
		if int(s.Labels[i+1]) >= len(c.symbolHash) || int(s.Labels[i]) >= len(c.symbolHash) {
			return // told of already
		}
		c.expect.add(s.Ref, c.symbolHash[s.Labels[i]], c.symbolHash[s.Labels[i+1]])
	}
	for i := range s.Chunks {
		c.addChunk(s, i)
	}
}

func (c *content) addChunk(s *stream.Series, i int) {
	ch := &s.Chunks[i]
	c.chunks++
	where := fmt.Sprintf("series %d, chunk %d from %s to %s", s.Ref, i+1, timeText(ch.MinTime), timeText(ch.MaxTime))
	if ch.MinTime > ch.MaxTime {
		c.fs.add(KindIndexMalformed, "%s: it ends before it begins", where)
		return
	}
	if ch.MinTime < c.m.MinTime || ch.MaxTime > c.m.MaxTime {
		c.fs.add(KindChunkOutside, "%s: the block is from %s to %s", where, timeText(c.m.MinTime), timeText(c.m.MaxTime))
	}
	if i > 0 {
		switch before := &s.Chunks[i-1]; {
		case ch.MinTime > before.MaxTime:
		case ch.MinTime == before.MinTime && ch.MaxTime == before.MaxTime:
			c.fs.add(KindChunkTwice, "%s", where)
		default:
			c.fs.add(KindChunkDisorder, "%s: the one before ends at %s", where, timeText(before.MaxTime))
		}
	}
	if !c.deep {
		return
	}
	n, mint, maxt, err := decodeTimes(ch)
	c.samples += uint64(n)
	switch {
	case err != nil:
		c.fs.add(KindChunkMalformed, "%s: %v", where, err)
	case n == 0:
	case mint != ch.MinTime || maxt != ch.MaxTime:
		c.fs.add(KindChunkTimes, "%s: its samples are from %s to %s", where, timeText(mint), timeText(maxt))
	}
}

var errBackwards = errors.New("its times go backwards")

// decodeTimes decodes a chunk and returns how many samples it has, and the times of the first and the last.
func decodeTimes(ch *stream.Chunk) (n int, mint, maxt int64, err error) {
	if ch.Encoding != aggr.Encoding {
		return decodePlain(ch.Encoding, ch.Data, false)
	}
	for _, a := range []aggr.Type{aggr.Count, aggr.Sum, aggr.Min, aggr.Max, aggr.Counter} {
		enc, data, err := aggr.Chunk(ch.Data).Get(a)
		if errors.Is(err, aggr.ErrAbsent) {
			continue
		}
		if err != nil {
			return n, mint, maxt, err
		}
		// The counter ends with the last raw value, at a time that was there.
		k, from, to, err := decodePlain(enc, data, a == aggr.Counter)
		if err != nil {
			return n, mint, maxt, err
		}
		if a == aggr.Count {
			n, mint, maxt = k, from, to
		}
	}
	return n, mint, maxt, nil
}

func decodePlain(enc chunkenc.Encoding, data []byte, again bool) (n int, mint, maxt int64, err error) {
	ck, err := chunkenc.FromData(enc, data)
	if err != nil {
		return 0, 0, 0, err
	}
	it := ck.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		t := it.AtT()
		if n == 0 {
			mint = t
		} else if t < maxt || t == maxt && !again {
			return n, mint, maxt, errBackwards
		}
		maxt = t
		n++
	}
	if it.Err() != nil {
		return n, mint, maxt, it.Err()
	}
	if n != ck.NumSamples() {
		return n, mint, maxt, fmt.Errorf("%d samples of %d", n, ck.NumSamples())
	}
	return n, mint, maxt, nil
}

// compareStats compares what was met with what the metadata says; a part of the numbers may be absent there.
func (c *content) compareStats() {
	if c.broken {
		return
	}
	st := c.m.Stats
	differ := func(what string, got, want uint64) {
		if got != want {
			c.fs.add(KindStats, "%d %s, meta.json says %d", got, what, want)
		}
	}
	differ("series", c.series, st.NumSeries)
	differ("chunks", c.chunks, st.NumChunks)
	if c.deep {
		differ("samples", c.samples, st.NumSamples)
	}
}

// corrupt names what the reader found.
func (c *content) corrupt(e *stream.CorruptError) {
	c.broken = true
	index := !strings.HasPrefix(e.File, block.ChunksDirname)
	kind := KindIndexMalformed
	if !index {
		kind = KindChunkMalformed
	}
	switch {
	case index && e.Fault == stream.FaultMissing:
		kind = KindIndexMissing
	case e.Fault == stream.FaultMissing:
		kind = KindChunksMissing
	case index && e.Fault == stream.FaultTruncated, index && e.Part == "table of contents" && c.fs.has(KindFileSize):
		kind = KindIndexTruncated
	case e.Fault == stream.FaultTruncated:
		kind = KindChunksTruncated
	case index && e.Fault == stream.FaultChecksum:
		kind = KindIndexChecksum
	case e.Fault == stream.FaultChecksum:
		kind = KindChunksChecksum
	case index && e.Fault == stream.FaultVersion:
		kind = KindIndexVersion
	case e.Fault == stream.FaultOrder:
		kind = KindSeriesUnsorted
	case e.Fault == stream.FaultEmpty:
		kind = KindSeriesEmpty
	case e.Fault == stream.FaultTooLong && e.Part == "symbols":
		kind = KindGiantLabel
	}
	c.fs.add(kind, "%v", e)
}
