// Package indexheader is the part of a block's index that tells where everything else is, kept in a local file.
//
// An index in a bucket can be tens of gigabytes. Its symbol table and its postings offset table, a few percent of it,
// are enough to know which byte ranges a request needs. They are copied into a file of the format that Thanos uses (so
// a data directory can be taken over as it is, by either), and Reader answers from that file. What it holds in memory is
// one offset per 32 symbols and per 32 label values, while it is in use; everything else is read where it lies. Pool
// holds the headers of all blocks and decides which of them stay in memory. DESIGN.md says why files are read and not
// mapped.
//
// The file, with integers in big endian:
//
//	4  magic 0xBAAAD792
//	1  version of the header, 1
//	1  version of the index, 1 or 2
//	8  offset of the postings offset table in the index, where the last posting list ends
//	n  the symbol table, as it is in the index, with all bytes up to the series
//	m  the postings offset table, as it is in the index, with all bytes up to the end, the table of contents included
//	8  position of the symbol table in this file
//	8  position of the postings offset table in this file
//	4  CRC-32C of the 16 bytes before
package indexheader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/block"
)

const (
	// Filename is how the file is called in a block's local directory.
	Filename = "index-header"

	magic         = 0xBAAAD792
	headerVersion = 1
	headerLen     = 4 + 1 + 1 + 8
	tocLen        = 8 + 8 + 4

	// An index starts with a magic number and its version, and ends with six offsets and a checksum.
	indexHeaderLen = index.HeaderLen
	indexTOCLen    = 6*8 + 4

	// So much is read of either end of an index at first. It holds most of the tables of a block of some thousand
	// series, and costs a bucket no more than a few bytes would.
	endBytes = 64 << 10

	// The tables are fetched in parts of 16 MiB, four at a time, so that one slow connection is not the bound.
	partBytes       = 16 << 20
	partConcurrency = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCorrupt is wrapped by errors about bytes that are no index, or no index header.
var ErrCorrupt = errors.New("corrupt")

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

// build copies the tables of a block's index from a bucket into a file. The file appears whole or not at all. size is
// that of the index in bytes, as meta.json states it; 0 is unknown.
//
// Both ends of the index are read at once. A small index fits into that; of a big one the rest of its two tables is
// read in parts, side by side. So a header takes one or two times the latency of the bucket.
func build(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, size int64, path string) error {
	name := block.Object(id, block.IndexFilename)
	stated := size > 0
	if !stated {
		attrs, err := bkt.Attributes(ctx, name)
		if err != nil {
			return fmt.Errorf("get attributes of %s: %w", name, err)
		}
		size = attrs.Size
	}
	err := buildSized(ctx, bkt, name, size, path)
	if err == nil || !stated || ctx.Err() != nil {
		return err
	}
	// What meta.json states may be wrong.
	attrs, aerr := bkt.Attributes(ctx, name)
	if aerr != nil || attrs.Size == size {
		return err
	}
	return buildSized(ctx, bkt, name, attrs.Size, path)
}

func buildSized(ctx context.Context, bkt objstore.BucketReader, name string, size int64, path string) (err error) {
	if size < indexHeaderLen+indexTOCLen {
		return corruptf("%s has %d bytes, too few for an index", name, size)
	}
	e, err := readEnds(ctx, bkt, name, size)
	if err != nil {
		return err
	}
	toc, version, err := e.toc(name)
	if err != nil {
		return err
	}

	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	tmp := path + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	// The file is not synced: what a crash leaves of it is found out when it is opened.
	defer func() {
		err = errors.Join(err, f.Close())
		if err == nil {
			err = os.Rename(tmp, path)
		}
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()

	head := binary.BigEndian.AppendUint32(nil, magic)
	head = append(head, headerVersion, byte(version))
	head = binary.BigEndian.AppendUint64(head, toc.PostingsTable)
	if _, err := f.WriteAt(head, 0); err != nil {
		return err
	}
	symbolsPos := int64(headerLen)
	tablePos := symbolsPos + int64(toc.Series-toc.Symbols)
	end := tablePos + size - int64(toc.PostingsTable)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(partConcurrency)
	e.copyRange(gctx, g, f, int64(toc.Symbols), int64(toc.Series), symbolsPos)
	e.copyRange(gctx, g, f, int64(toc.PostingsTable), size, tablePos)
	if err := g.Wait(); err != nil {
		return err
	}
	tail := binary.BigEndian.AppendUint64(nil, uint64(symbolsPos))
	tail = binary.BigEndian.AppendUint64(tail, uint64(tablePos))
	tail = binary.BigEndian.AppendUint32(tail, crc32.Checksum(tail, castagnoli))
	_, err = f.WriteAt(tail, end)
	return err
}

// ends is the first and the last bytes of an index.
type ends struct {
	bkt        objstore.BucketReader
	name       string
	size       int64
	head, tail []byte
}

func readEnds(ctx context.Context, bkt objstore.BucketReader, name string, size int64) (*ends, error) {
	e := &ends{bkt: bkt, name: name, size: size}
	if size <= 2*endBytes {
		b, err := readRange(ctx, bkt, name, 0, size)
		e.head, e.tail = b, b
		return e, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		e.head, err = readRange(gctx, bkt, name, 0, endBytes)
		return err
	})
	g.Go(func() (err error) {
		e.tail, err = readRange(gctx, bkt, name, size-endBytes, endBytes)
		return err
	})
	return e, g.Wait()
}

// toc returns the table of contents of the index and its version.
func (e *ends) toc(name string) (*index.TOC, int, error) {
	if m := binary.BigEndian.Uint32(e.head); m != index.MagicIndex {
		return nil, 0, corruptf("%s starts with %#x, not with the magic number of an index", name, m)
	}
	version := int(e.head[4])
	if version != index.FormatV1 && version != index.FormatV2 {
		return nil, 0, corruptf("%s has version %d, known are 1 and 2", name, version)
	}
	toc, err := index.NewTOCFromByteSlice(bytesOf(e.tail[len(e.tail)-indexTOCLen:]))
	if err != nil {
		return nil, 0, corruptf("table of contents of %s: %v; it may have been cut short", name, err)
	}
	if toc.Symbols < indexHeaderLen || toc.Symbols >= toc.Series || toc.Series > toc.PostingsTable || toc.PostingsTable > uint64(e.size-indexTOCLen) {
		return nil, 0, corruptf("table of contents of %s: symbols at %d, series at %d and postings table at %d do not follow one another in %d bytes",
			name, toc.Symbols, toc.Series, toc.PostingsTable, e.size)
	}
	return toc, version, nil
}

func readRange(ctx context.Context, bkt objstore.BucketReader, name string, off, n int64) ([]byte, error) {
	r, err := bkt.GetRange(ctx, name, off, n)
	if err != nil {
		return nil, fmt.Errorf("get %d bytes at %d of %s: %w", n, off, name, err)
	}
	defer r.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read %d bytes at %d of %s: %w", n, off, name, err)
	}
	return b, nil
}

// copyRange copies bytes from..to of the index to a position in a file: first what was read, the rest in parts.
func (e *ends) copyRange(ctx context.Context, g *errgroup.Group, f *os.File, from, to, pos int64) {
	write := func(b []byte, pos int64) {
		g.Go(func() error {
			_, err := f.WriteAt(b, pos)
			return err
		})
	}
	if n := min(to, int64(len(e.head))); n > from {
		write(e.head[from:n], pos)
		pos, from = pos+n-from, n
	}
	if start := max(from, e.size-int64(len(e.tail))); start < to {
		write(e.tail[len(e.tail)-int(e.size-start):len(e.tail)-int(e.size-to)], pos+start-from)
		to = start
	}
	for off := from; off < to; off += partBytes {
		n, pos := min(partBytes, to-off), pos+off-from
		g.Go(func() error {
			r, err := e.bkt.GetRange(ctx, e.name, off, n)
			if err != nil {
				return fmt.Errorf("get %d bytes at %d of %s: %w", n, off, e.name, err)
			}
			defer r.Close()
			got, err := io.Copy(io.NewOffsetWriter(f, pos), io.LimitReader(r, n))
			if err == nil && got < n {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return fmt.Errorf("copy %d bytes at %d of %s: %w", n, off, e.name, err)
			}
			return nil
		})
	}
}

// bytesOf is a byte slice as Prometheus's readers want it.
type bytesOf []byte

func (b bytesOf) Len() int                    { return len(b) }
func (b bytesOf) Range(start, end int) []byte { return b[start:end] }
