package bucketops

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/cespare/xxhash/v2"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

const (
	// The table of contents at the end of an index: six offsets and a checksum.
	tocBytes           = 6*8 + 4
	tocPostingsTable   = 5 * 8
	postingsPairsOfTwo = 2
	// Longer symbols are not read, so longer strings are damage, and never allocated.
	stringBytesMax = 16 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// postingsSum adds up which series have which labels, in any order: two sets of postings with the same sum are the
// same, but for a chance of 2^-64.
type postingsSum struct {
	sum, count uint64
}

// add adds that a series has a label, given by the hashes of name and value; both 0 is the list of all series.
func (p *postingsSum) add(ref, name, value uint64) {
	var b [24]byte
	binary.LittleEndian.PutUint64(b[:], ref)
	binary.LittleEndian.PutUint64(b[8:], name)
	binary.LittleEndian.PutUint64(b[16:], value)
	p.sum += xxhash.Sum64(b[:])
	p.count++
}

// errPostings is a posting list or the table of them that is not as it should be.
type errPostings struct {
	kind   Kind
	detail string
}

func (e *errPostings) Error() string { return e.detail }

// checkPostings reads all posting lists of an index. They must be sorted, have their checksums, and name the series that
// the index holds; the last is not asked of a broken one. The error is about the storage.
func checkPostings(files stream.Files, want *postingsSum, broken bool, fs *faults) error {
	f, err := files.Open(block.IndexFilename)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := sumPostings(f)
	var bad *errPostings
	switch {
	case errors.As(err, &bad):
		fs.add(bad.kind, "%s", bad.detail)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		fs.add(KindPostings, "the posting lists reach past the end of the index")
	case err != nil:
		return err
	case !broken && got != *want:
		fs.add(KindPostingsSeries, "%d postings, the series have %d", got.count, want.count)
	}
	return nil
}

// sumPostings walks the table of postings and each list that it names.
func sumPostings(f stream.File) (sum postingsSum, err error) {
	var toc [tocBytes]byte
	if _, err := f.ReadAt(toc[:], f.Size()-tocBytes); err != nil && !errors.Is(err, io.EOF) {
		return sum, err
	}
	begin := int64(binary.BigEndian.Uint64(toc[tocPostingsTable:]))
	if begin <= 0 || begin+8 > f.Size() {
		return sum, &errPostings{KindPostings, "the table of postings is outside of the index"}
	}
	table := newSection(f, begin)
	length := int64(table.uint32())
	table.crc.Reset()
	n := table.uint32()
	lists := newSection(f, 0)
	var lastName, lastValue string
	for i := range n {
		name, value, off := table.entry()
		if table.err != nil {
			return sum, table.err
		}
		if i > 0 && (name < lastName || name == lastName && value <= lastValue) {
			return sum, &errPostings{KindPostings, fmt.Sprintf("the table of postings is not sorted at %.60q = %.60q", name, value)}
		}
		lastName, lastValue = name, value
		if off <= 0 || off+8 > f.Size() {
			return sum, &errPostings{KindPostings, fmt.Sprintf("the list of %.60q = %.60q is outside of the index", name, value)}
		}
		if err := lists.list(off, name, value, &sum); err != nil {
			return sum, err
		}
	}
	if table.pos != begin+4+length {
		return sum, &errPostings{KindPostings, "the table of postings does not fill its section"}
	}
	if got := table.crc.Sum32(); got != table.uint32() {
		return sum, &errPostings{KindPostings, "the checksum of the table of postings is wrong"}
	}
	return sum, table.err
}

// section reads a file from a place on, and sums up what it read. Its first error stays.
type section struct {
	f   stream.File
	r   *bufio.Reader
	pos int64
	crc hash.Hash32
	err error
	num [4]byte
}

func newSection(f stream.File, at int64) *section {
	return &section{f: f, r: bufio.NewReaderSize(io.NewSectionReader(f, at, f.Size()-at), windowBytes/4), pos: at, crc: crc32.New(castagnoli)}
}

// seek goes on at another place; lists lie one after the other, so mostly it is the same.
func (s *section) seek(at int64) {
	if ahead := at - s.pos; ahead >= 0 && ahead <= int64(s.r.Buffered()) {
		_, _ = s.r.Discard(int(ahead))
	} else {
		s.r.Reset(io.NewSectionReader(s.f, at, s.f.Size()-at))
	}
	s.pos = at
}

// fill reads all of b.
func (s *section) fill(b []byte) {
	if s.err == nil {
		_, s.err = io.ReadFull(s.r, b)
		s.pos += int64(len(b))
		_, _ = s.crc.Write(b)
	}
}

func (s *section) uint32() uint32 {
	s.fill(s.num[:])
	return binary.BigEndian.Uint32(s.num[:])
}

// ReadByte makes it a reader of varints.
func (s *section) ReadByte() (byte, error) {
	s.fill(s.num[:1])
	return s.num[0], s.err
}

func (s *section) uvarint() uint64 {
	n, err := binary.ReadUvarint(s)
	if err != nil && s.err == nil {
		s.err = &errPostings{KindPostings, "a number in the table of postings is malformed"}
	}
	return n
}

func (s *section) string() string {
	n := s.uvarint()
	if n > stringBytesMax {
		s.err = cmpErr(s.err, &errPostings{KindPostings, "a string in the table of postings is longer than any symbol"})
		return ""
	}
	b := make([]byte, n)
	s.fill(b)
	return string(b)
}

func cmpErr(first, then error) error {
	if first != nil {
		return first
	}
	return then
}

// entry reads an entry of the table.
func (s *section) entry() (name, value string, off int64) {
	if n := s.uvarint(); n != postingsPairsOfTwo && s.err == nil {
		s.err = &errPostings{KindPostings, "an entry of the table of postings is malformed"}
	}
	name, value = s.string(), s.string()
	return name, value, int64(s.uvarint())
}

// list reads a posting list and adds it to the sum.
func (s *section) list(off int64, name, value string, sum *postingsSum) error {
	s.seek(off)
	length := int64(s.uint32())
	s.crc.Reset()
	n := int64(s.uint32())
	if s.err == nil && length != 4+4*n {
		return &errPostings{KindPostings, fmt.Sprintf("the list of %.60q = %.60q has %d postings in %d bytes", name, value, n, length)}
	}
	var nameHash, valueHash uint64
	if name != "" || value != "" {
		nameHash, valueHash = xxhash.Sum64String(name), xxhash.Sum64String(value)
	}
	last := int64(-1)
	for range n {
		ref := s.uint32()
		if s.err != nil {
			return s.err
		}
		if int64(ref) <= last {
			return &errPostings{KindPostings, fmt.Sprintf("the list of %.60q = %.60q is not sorted", name, value)}
		}
		last = int64(ref)
		sum.add(uint64(ref), nameHash, valueHash)
	}
	if got := s.crc.Sum32(); got != s.uint32() {
		return cmpErr(s.err, &errPostings{KindPostings, fmt.Sprintf("the checksum of the list of %.60q = %.60q is wrong", name, value)})
	}
	return s.err
}
