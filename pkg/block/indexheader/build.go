// Package indexheader is the part of a block's index that tells where everything else is, kept in a local file.
//
// An index in a bucket can be tens of gigabytes. Its symbol table and its postings offset table, a few percent of it,
// are enough to know which byte ranges a request needs. Build copies them into a file of the format that Thanos uses
// (so a data directory can be taken over as it is), and Reader answers from that file. The file is mapped, not read:
// what it holds in memory is one offset per 32 symbols and per 32 label values.
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

// Build copies the tables of a block's index from a bucket into a file. The file appears whole or not at all.
func Build(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID, path string) (err error) {
	name := block.Object(id, block.IndexFilename)
	attrs, err := bkt.Attributes(ctx, name)
	if err != nil {
		return fmt.Errorf("get attributes of %s: %w", name, err)
	}
	if attrs.Size < indexHeaderLen+indexTOCLen {
		return corruptf("%s has %d bytes, too few for an index", name, attrs.Size)
	}
	toc, version, err := readIndexTOC(ctx, bkt, name, attrs.Size)
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
	end := tablePos + attrs.Size - int64(toc.PostingsTable)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(partConcurrency)
	copyRange(gctx, g, bkt, name, f, int64(toc.Symbols), int64(toc.Series), symbolsPos)
	copyRange(gctx, g, bkt, name, f, int64(toc.PostingsTable), attrs.Size, tablePos)
	if err := g.Wait(); err != nil {
		return err
	}
	tail := binary.BigEndian.AppendUint64(nil, uint64(symbolsPos))
	tail = binary.BigEndian.AppendUint64(tail, uint64(tablePos))
	tail = binary.BigEndian.AppendUint32(tail, crc32.Checksum(tail, castagnoli))
	if _, err := f.WriteAt(tail, end); err != nil {
		return err
	}
	return f.Sync()
}

// readIndexTOC reads the table of contents of an index and its version.
func readIndexTOC(ctx context.Context, bkt objstore.BucketReader, name string, size int64) (*index.TOC, int, error) {
	head, err := readRange(ctx, bkt, name, 0, indexHeaderLen)
	if err != nil {
		return nil, 0, err
	}
	if m := binary.BigEndian.Uint32(head); m != index.MagicIndex {
		return nil, 0, corruptf("%s starts with %#x, not with the magic number of an index", name, m)
	}
	version := int(head[4])
	if version != index.FormatV1 && version != index.FormatV2 {
		return nil, 0, corruptf("%s has version %d, known are 1 and 2", name, version)
	}
	b, err := readRange(ctx, bkt, name, size-indexTOCLen, indexTOCLen)
	if err != nil {
		return nil, 0, err
	}
	toc, err := index.NewTOCFromByteSlice(bytesOf(b))
	if err != nil {
		return nil, 0, corruptf("table of contents of %s: %v; it may have been cut short", name, err)
	}
	if toc.Symbols < indexHeaderLen || toc.Symbols >= toc.Series || toc.Series > toc.PostingsTable || toc.PostingsTable > uint64(size-indexTOCLen) {
		return nil, 0, corruptf("table of contents of %s: symbols at %d, series at %d and postings table at %d do not follow one another in %d bytes",
			name, toc.Symbols, toc.Series, toc.PostingsTable, size)
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

// copyRange copies bytes from..to of an object to a position in a file, in parts.
func copyRange(ctx context.Context, g *errgroup.Group, bkt objstore.BucketReader, name string, f *os.File, from, to, pos int64) {
	for off := from; off < to; off += partBytes {
		n, pos := min(partBytes, to-off), pos+off-from
		g.Go(func() error {
			r, err := bkt.GetRange(ctx, name, off, n)
			if err != nil {
				return fmt.Errorf("get %d bytes at %d of %s: %w", n, off, name, err)
			}
			defer r.Close()
			got, err := io.Copy(io.NewOffsetWriter(f, pos), io.LimitReader(r, n))
			if err == nil && got < n {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return fmt.Errorf("copy %d bytes at %d of %s: %w", n, off, name, err)
			}
			return nil
		})
	}
}

// bytesOf is a byte slice as Prometheus's readers want it.
type bytesOf []byte

func (b bytesOf) Len() int                    { return len(b) }
func (b bytesOf) Range(start, end int) []byte { return b[start:end] }
