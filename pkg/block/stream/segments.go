package stream

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
)

// SegmentBytesMax is how long a chunk file gets.
const SegmentBytesMax = 512 << 20

// segments writes the chunk files of a block.
type segments struct {
	dir   string
	max   int64
	file  *outFile
	names []string
	buf   []byte
}

// add appends a chunk and returns its reference and what it takes in the file.
func (s *segments) add(c *Chunk) (ref uint64, size int64, err error) {
	b := binary.AppendUvarint(s.buf[:0], uint64(len(c.Data)))
	from := len(b)
	b = append(b, byte(c.Encoding))
	b = append(b, c.Data...)
	b = appendChecked(b, from)
	s.buf = b
	// Prometheus counts every length as if it took the most bytes, and cuts where we do.
	reserved := int64(binary.MaxVarintLen32 + 1 + len(c.Data) + 4)
	if s.file == nil || s.file.pos+reserved > s.max && s.file.pos > segmentHeadBytes {
		if err := s.cut(); err != nil {
			return 0, 0, err
		}
	}
	ref = uint64(len(s.names)-1)<<32 | uint64(s.file.pos)
	_, err = s.file.Write(b)
	return ref, int64(len(b)), err
}

// cut begins the next file.
func (s *segments) cut() error {
	if err := s.finish(); err != nil {
		return err
	}
	name := SegmentName(len(s.names) + 1)
	f, err := createFile(filepath.Join(s.dir, filepath.FromSlash(name)))
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	s.file = f
	s.names = append(s.names, filepath.Base(name))
	head := binary.BigEndian.AppendUint32(nil, chunksMagic)
	_, err = f.Write(append(head, chunksVersion, 0, 0, 0))
	return err
}

func (s *segments) finish() error {
	if s.file == nil {
		return nil
	}
	err := s.file.finish()
	s.file = nil
	return err
}
