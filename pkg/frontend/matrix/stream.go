package matrix

import (
	"bytes"
	"errors"
	"io"
)

// The text of an answer is kept in slabs of a growing size. A series that is longer gets a slab of its own.
const (
	slabBytesMin = 16 << 10
	slabBytesMax = 1 << 20
)

// usualHead is how queriers begin a matrix.
const usualHead = `{"status":"success","data":{"resultType":"matrix","result":[`

// Read reads an answer as Decode does, while it comes: its text is never copied to make room for more of it. The errors
// are those of Decode and of the reader.
func Read(r io.Reader) (*Answer, error) {
	in := stream{r: r}
	if err := in.more(0); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(in.b, []byte(usualHead)) {
		b, err := in.rest(nil)
		if err != nil {
			return nil, err
		}
		return Decode(b)
	}
	in.at = len(usualHead)
	a := &Answer{}
	if in.next() != ']' {
		if err := in.list(a); err != nil {
			return nil, err
		}
	}
	// What stands behind the series is read as if there were none.
	tail, err := in.rest([]byte(usualHead))
	if err != nil {
		return nil, err
	}
	beside, err := Decode(tail)
	if err != nil {
		return nil, err
	}
	a.Warnings, a.Infos, a.Stats, a.Analysis = beside.Warnings, beside.Infos, beside.Stats, beside.Analysis
	return a, a.settle()
}

// stream is a scanner over text of which only a part is there.
type stream struct {
	scanner
	r   io.Reader
	end bool // there is no more
}

// list goes over series up to the bracket behind the last.
func (s *stream) list(a *Answer) error {
	for {
		start, n := s.at, len(a.Series)
		err := s.series(a)
		if err == nil {
			switch s.next() {
			case ',':
				s.at++
				continue
			case ']':
				return nil
			}
			err = s.fail("a comma or the end of the series")
		}
		if s.end {
			return err
		}
		// It may be that the text goes on.
		a.Series = a.Series[:n]
		if err := s.more(start); err != nil {
			return err
		}
	}
}

// more begins a slab with the text from an index on, and fills it.
func (s *stream) more(from int) error {
	rest := s.b[from:]
	slab := make([]byte, max(slabBytesMin, min(2*cap(s.b), slabBytesMax), 2*len(rest)))
	n := copy(slab, rest)
	for n < len(slab) && !s.end {
		m, err := s.r.Read(slab[n:])
		n += m
		if errors.Is(err, io.EOF) {
			s.end, err = true, nil
		}
		if err != nil {
			return err
		}
	}
	s.b, s.at = slab[:n], 0
	return nil
}

// rest returns the text that was not gone over, behind what is given.
func (s *stream) rest(before []byte) ([]byte, error) {
	var buf bytes.Buffer
	_, _ = buf.Write(before)
	_, _ = buf.Write(s.b[s.at:])
	if !s.end {
		if _, err := buf.ReadFrom(s.r); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}
