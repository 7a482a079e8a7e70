package stream

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/koios-metrics/koios/pkg/block"
)

const tableTempName = "table.tmp"

// writePostings writes all behind the series: postings, the table of their offsets, and the table of contents.
func (w *Writer) writePostings() error {
	t := toc{symbols: w.symbols, series: w.series}
	labelIndices := w.index.pos // there have been none since Prometheus stopped to write them
	t.postings = w.index.pos

	table, err := createFile(filepath.Join(w.dir, tableTempName))
	if err != nil {
		return err
	}
	defer func() {
		table.abandon()
		_ = os.Remove(table.f.Name())
	}()
	entries, err := w.writeLists(table)
	if err != nil {
		return fmt.Errorf("write postings: %w", err)
	}
	if err := table.w.Flush(); err != nil {
		return err
	}
	t.postingsTable = w.index.pos
	if _, err := w.index.Write(make([]byte, 8)); err != nil {
		return err
	}
	if _, err := io.Copy(w.index, io.NewSectionReader(table.f, 0, table.pos)); err != nil {
		return err
	}
	if err := w.index.seal(t.postingsTable, entries); err != nil {
		return fmt.Errorf("write table of postings: %w", err)
	}
	var b []byte
	for _, off := range []int64{t.symbols, t.series, labelIndices, t.postingsTable, t.postings, t.postingsTable} {
		b = binary.BigEndian.AppendUint64(b, uint64(off))
	}
	_, err = w.index.Write(appendChecked(b, 0))
	return err
}

// writeLists writes each list of postings, and an entry for it into the table. It returns their number.
func (w *Writer) writeLists(table *outFile) (int, error) {
	if err := w.index.w.Flush(); err != nil {
		return 0, err
	}
	reading := &window{file: &localFile{File: w.index.f, size: w.series}, name: block.IndexFilename, size: w.series, bytes: WindowBytesDefault}
	symbols := &lookup{w: reading, offsets: w.offsets, count: w.count}
	var (
		b       []byte
		entries int
		name    []byte
		named   uint64 // the pair's upper half that name is of
	)
	err := w.sorter.lists(func(pair uint64, series []uint32) error {
		if err := w.index.align(4); err != nil {
			return err
		}
		at := w.index.pos
		b = binary.BigEndian.AppendUint32(b[:0], uint32(4+4*len(series)))
		b = binary.BigEndian.AppendUint32(b, uint32(len(series)))
		for _, s := range series {
			b = binary.BigEndian.AppendUint32(b, s)
		}
		b = appendChecked(b, 4)
		if _, err := w.index.Write(b); err != nil {
			return err
		}
		var value []byte
		if pair != allPostings {
			if n := pair >> 32; n != named {
				got, err := symbols.at(uint32(n - 1))
				if err != nil {
					return err
				}
				name, named = append(name[:0], got...), n
			}
			got, err := symbols.at(uint32(pair))
			if err != nil {
				return err
			}
			value = got
		}
		b = append(b[:0], 2)
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
		b = binary.AppendUvarint(b, uint64(len(value)))
		b = append(b, value...)
		b = binary.AppendUvarint(b, uint64(at))
		_, err := table.Write(b)
		entries++
		return err
	})
	return entries, err
}
