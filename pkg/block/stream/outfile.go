package stream

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

const outBufferBytes = 256 << 10

// outFile is a file that is written from front to back, with places left open to be filled in later.
type outFile struct {
	f   *os.File
	w   *bufio.Writer
	pos int64
}

func createFile(path string) (*outFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o666)
	if err != nil {
		return nil, err
	}
	return &outFile{f: f, w: bufio.NewWriterSize(f, outBufferBytes)}, nil
}

func (o *outFile) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	o.pos += int64(n)
	return n, err
}

// align writes zeros up to a multiple of n bytes, which is 16 at most.
func (o *outFile) align(n int64) error {
	var zeros [16]byte
	if rest := o.pos % n; rest != 0 {
		_, err := o.Write(zeros[:n-rest])
		return err
	}
	return nil
}

// patch overwrites what was written before.
func (o *outFile) patch(b []byte, at int64) error {
	if err := o.w.Flush(); err != nil {
		return err
	}
	_, err := o.f.WriteAt(b, at)
	return err
}

// sum computes the checksum of what lies between two offsets.
func (o *outFile) sum(from, to int64) (uint32, error) {
	if err := o.w.Flush(); err != nil {
		return 0, err
	}
	crc := crc32.New(castagnoli)
	n, err := io.Copy(crc, io.NewSectionReader(o.f, from, to-from))
	if err == nil && n != to-from {
		err = io.ErrUnexpectedEOF
	}
	return crc.Sum32(), err
}

// seal fills in the length and the number of entries of a section that began at from with eight bytes left
// open, and appends its checksum.
func (o *outFile) seal(from int64, entries int) error {
	var b [8]byte
	length := o.pos - from - 4
	if length > 1<<32-1 {
		return fmt.Errorf("section of %d bytes: its length has 32 bits", length)
	}
	binary.BigEndian.PutUint32(b[:], uint32(length))
	binary.BigEndian.PutUint32(b[4:], uint32(entries))
	if err := o.patch(b[:], from); err != nil {
		return err
	}
	sum, err := o.sum(from+4, o.pos)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(b[:], sum)
	_, err = o.Write(b[:4])
	return err
}

// finish makes the file durable and closes it.
func (o *outFile) finish() error {
	return errors.Join(o.w.Flush(), o.f.Sync(), o.f.Close())
}

// abandon closes the file as it is.
func (o *outFile) abandon() {
	_ = o.f.Close()
}

// appendChecked appends the checksum of b from a place on.
func appendChecked(b []byte, from int) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[from:], castagnoli))
}
