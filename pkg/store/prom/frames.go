package prom

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/koios-metrics/koios/pkg/store"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	// readBufferBytes is what is asked of the connection at once.
	readBufferBytes = 64 << 10
	// frameBytesFirst is the memory spent on the word of a frame's length alone. More follows as
	// the bytes of the frame arrive.
	frameBytesFirst = 1 << 20
	// buffersKept is how many buffers wait for the next frames: the series that is handed out and the one
	// read ahead need two, and a series over several frames some more.
	buffersKept = 8
	// bufferBytesKept is the size past which a buffer is not kept: frames larger than this are rare.
	bufferBytesKept = 4 << 20
)

// frameReader cuts a stream into frames: the length as a varint, the checksum (CRC-32 Castagnoli,
// big-endian), and the message.
type frameReader struct {
	r     *bufio.Reader
	max   int
	count int

	head [binary.MaxVarintLen64 + 4]byte // length and checksum of the frame at hand, as they came
	free []*buffer
}

// buffer holds one frame. It is used again once no series refers to it.
type buffer struct {
	data []byte
	refs int
}

func newFrameReader(r io.Reader, maxBytes int) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, readBufferBytes), max: maxBytes}
}

// next reads a frame into a buffer with one reference; io.EOF between two frames is the regular end.
func (f *frameReader) next() (*buffer, error) {
	n, head, err := f.length()
	if err != nil {
		return nil, err
	}
	if n > uint64(f.max) {
		return nil, f.broken(head, nil, store.Errorf(store.KindLimit, "frame of %d bytes, more than the %d allowed", n, f.max))
	}
	if m, err := io.ReadFull(f.r, f.head[head:head+4]); err != nil {
		return nil, f.broken(head+m, nil, cut(err))
	}
	sum := binary.BigEndian.Uint32(f.head[head:])
	head += 4
	b := f.buffer(int(min(n, frameBytesFirst)))
	for {
		have := len(b.data)
		b.data = b.data[:min(uint64(cap(b.data)), n)]
		m, err := io.ReadFull(f.r, b.data[have:])
		if err != nil {
			return nil, f.broken(head, b.data[:have+m], cut(err))
		}
		if uint64(len(b.data)) == n {
			break
		}
		grown := make([]byte, len(b.data), min(uint64(2*cap(b.data)), n))
		copy(grown, b.data)
		b.data = grown
	}
	if crc32.Checksum(b.data, castagnoli) != sum {
		return nil, f.broken(head, b.data, errors.New("frame with a wrong checksum"))
	}
	f.count++
	return b, nil
}

// length reads the length of a frame, which head bytes of f.head spell.
func (f *frameReader) length() (n uint64, head int, err error) {
	for head < binary.MaxVarintLen64 {
		c, err := f.r.ReadByte()
		if err != nil {
			if err == io.EOF && head == 0 {
				return 0, 0, io.EOF
			}
			return 0, 0, f.broken(head, nil, cut(err))
		}
		f.head[head] = c
		head++
		if c < 0x80 {
			n, m := binary.Uvarint(f.head[:head])
			if m <= 0 {
				break
			}
			return n, head, nil
		}
	}
	return 0, 0, f.broken(head, nil, errors.New("frame whose length is no number"))
}

// buffer returns an empty buffer with one reference and at least n bytes of capacity.
func (f *frameReader) buffer(n int) *buffer {
	for i := len(f.free) - 1; i >= 0; i-- {
		if b := f.free[i]; cap(b.data) >= n {
			f.free[i] = f.free[len(f.free)-1]
			f.free = f.free[:len(f.free)-1]
			b.data, b.refs = b.data[:0], 1
			return b
		}
	}
	if len(f.free) == buffersKept {
		f.free = f.free[:0] // all too small: let larger ones take their place
	}
	return &buffer{data: make([]byte, 0, n), refs: 1}
}

// release takes a reference from a buffer.
func (f *frameReader) release(b *buffer) {
	if b.refs--; b.refs == 0 && len(f.free) < buffersKept && cap(b.data) <= bufferBytesKept {
		f.free = append(f.free, b)
	}
}

// cut says that the stream ended in the middle of a frame.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the answer was cut off in the middle of a frame: %w", io.ErrUnexpectedEOF)
	}
	return store.Errorf(store.KindUnavailable, "%w", err)
}

// broken explains why there is no frame. When a read fails after Prometheus has begun to answer, it writes
// the error as plain text where the next frame should be; then that text is the explanation.
func (f *frameReader) broken(head int, data []byte, err error) error {
	const textMax = 1 << 10
	text := append([]byte{}, f.head[:head]...)
	text = append(text, data[:min(len(data), textMax)]...)
	if more, _ := f.r.Peek(min(f.r.Buffered(), textMax)); len(more) > 0 {
		text = append(text, more...)
	}
	if s := strings.TrimSpace(string(text)); len(s) >= 4 && isText(s) {
		return store.Errorf(store.KindInternal, "it broke off with: %s", s)
	}
	return err
}

func isText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.IsSpace(r) })
}
