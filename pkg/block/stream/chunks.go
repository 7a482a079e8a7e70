package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/aggr"
	"github.com/koios-metrics/koios/pkg/block"
)

// SegmentName returns the path of the i-th chunk file of a block, counted from one, below the block's directory.
func SegmentName(i int) string { return fmt.Sprintf("%s/%06d", block.ChunksDirname, i) }

// readChunks reads the chunks of a series; not ok if none of them was readable and all were passed over.
func (r *Reader) readChunks(s *Series) (ok bool, err error) {
	s.data = s.data[:0]
	kept := 0
	for i, ref := range s.refs {
		from := len(s.data)
		enc, err := r.readChunk(s, ref)
		if err != nil {
			c := AsCorrupt(err)
			if c == nil {
				return false, err
			}
			if err := r.skip(c); err != nil {
				return false, err
			}
			s.data = s.data[:from]
			continue
		}
		s.Chunks[kept] = Chunk{MinTime: s.Chunks[i].MinTime, MaxTime: s.Chunks[i].MaxTime, Encoding: enc}
		s.refs[kept] = uint64(len(s.data)) // from here on the end of its data
		kept++
	}
	s.Chunks, s.refs = s.Chunks[:kept], s.refs[:kept]
	from := uint64(0)
	for i, end := range s.refs {
		s.Chunks[i].Data = s.data[from:end:end]
		from = end
	}
	return kept > 0, nil
}

// readChunk appends the payload of a chunk to the data of s.
func (r *Reader) readChunk(s *Series, ref uint64) (chunkenc.Encoding, error) {
	segment, off := int(ref>>32)+1, int64(ref&(1<<32-1))
	if r.chunks == nil || r.segment != segment {
		if err := r.openSegment(segment); err != nil {
			return 0, err
		}
	}
	w := r.chunks
	if off < segmentHeadBytes || off >= w.size {
		return 0, w.corrupt("chunk", off, FaultTruncated, fmt.Sprintf("the file has %d bytes", w.size))
	}
	const headBytesMax = binary.MaxVarintLen32 + 1
	head, err := w.upTo(off, headBytesMax, w.size)
	if err != nil {
		return 0, err
	}
	l, n := binary.Uvarint(head)
	switch {
	case n <= 0:
		return 0, w.corrupt("chunk", off, FaultFormat, "no length")
	case l > chunkBytesMax:
		return 0, w.corrupt("chunk", off, FaultTooLong, fmt.Sprintf("%d bytes, at most %d are read", l, chunkBytesMax))
	case off+int64(n)+1+int64(l)+4 > w.size:
		return 0, w.corrupt("chunk", off, FaultTruncated, fmt.Sprintf("%d bytes of a file of %d", l, w.size))
	}
	b, err := w.at(off, n+1+int(l)+4)
	if err != nil {
		return 0, err
	}
	b = b[n:]
	if crc32.Checksum(b[:1+l], castagnoli) != binary.BigEndian.Uint32(b[1+l:]) {
		return 0, w.corrupt("chunk", off, FaultChecksum, "")
	}
	enc := chunkenc.Encoding(b[0])
	if !chunkenc.IsValidEncoding(enc) && enc != aggr.Encoding {
		return 0, w.corrupt("chunk", off, FaultFormat, fmt.Sprintf("unknown encoding %d", enc))
	}
	s.data = append(slices.Grow(s.data, int(l)), b[1:1+l]...)
	return enc, nil
}

func (r *Reader) openSegment(segment int) error {
	var buf []byte
	if r.chunks != nil {
		buf = r.chunks.buf[:0]
		if err := r.chunks.file.Close(); err != nil {
			return err
		}
		r.chunks = nil
	}
	w, err := openWindow(r.files, SegmentName(segment), r.cfg.WindowBytes)
	if err != nil {
		return err
	}
	w.buf = buf
	if err := checkSegmentHead(w); err != nil {
		_ = w.file.Close()
		return err
	}
	r.chunks, r.segment = w, segment
	return nil
}

func checkSegmentHead(w *window) error {
	if w.size < segmentHeadBytes {
		return w.corrupt("header", 0, FaultTruncated, fmt.Sprintf("%d bytes", w.size))
	}
	b, err := w.at(0, segmentHeadBytes)
	if err != nil {
		return err
	}
	if m := binary.BigEndian.Uint32(b); m != chunksMagic {
		return w.corrupt("header", 0, FaultFormat, fmt.Sprintf("magic number %x", m))
	}
	if b[4] != chunksVersion {
		return w.corrupt("header", 0, FaultVersion, fmt.Sprintf("version %d, only %d is read", b[4], chunksVersion))
	}
	return nil
}
