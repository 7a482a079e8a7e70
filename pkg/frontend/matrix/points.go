package matrix

import (
	"bytes"
	"fmt"
	"math"
)

// Points are samples of a series in order of time, as the text between the brackets of an answer's "values" or
// "histograms": `[1700000000,"1"],[1700000015.5,"2"]`. The empty text is none.
type Points []byte

// readPoints goes over an array of points, checks them, and returns the text between its brackets. The text
// is the scanner's own; it has no white space outside of what histograms may have.
func (s *scanner) readPoints(histograms bool) (Points, error) {
	if err := s.take('['); err != nil {
		return nil, err
	}
	if s.next() == ']' {
		s.at++
		return nil, nil
	}
	start, last := s.at, int64(math.MinInt64)
	for {
		if !histograms {
			last = s.usual(last)
		}
		if s.at >= len(s.b) || s.b[s.at] != '[' {
			return nil, s.fail("a point")
		}
		s.at++
		t, err := s.time()
		if err != nil {
			return nil, err
		}
		if t <= last {
			return nil, fmt.Errorf("%w: at byte %d: a point at %d after one at %d", ErrSyntax, s.at, t, last)
		}
		last = t
		if s.at >= len(s.b) || s.b[s.at] != ',' {
			return nil, s.fail("a comma")
		}
		s.at++
		if histograms {
			if s.at >= len(s.b) || s.b[s.at] != '{' {
				return nil, s.fail("a histogram")
			}
			from := s.at
			if err = s.skip(0); err == nil && bytes.IndexByte(s.b[from:s.at], '\\') >= 0 {
				err = s.fail("a histogram without escapes before") // as length takes it for granted
			}
		} else {
			err = s.sample()
		}
		if err != nil {
			return nil, err
		}
		if s.at+1 >= len(s.b) || s.b[s.at] != ']' {
			return nil, s.fail("the end of a point")
		}
		s.at++
		switch s.b[s.at] {
		case ',':
			s.at++
		case ']':
			s.at++
			return Points(s.b[start : s.at-1]), nil
		default:
			return nil, s.fail("a comma or the end of the points")
		}
	}
}

// inValue are the bytes that values of floats are made of.
var inValue = func() (is [256]bool) {
	for _, c := range []byte("0123456789.-+ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
		is[c] = true
	}
	return is
}()

// usual goes over floats as they mostly are, at whole seconds after 1970 and one after the other, and returns the time
// in ms of the last; it stops before the last point, and before any other kind.
func (s *scanner) usual(last int64) int64 {
	b, at := s.b, s.at
	for {
		i := at
		if i >= len(b) || b[i] != '[' {
			return last
		}
		i++
		t, first := int64(0), i
		for ; i < len(b) && b[i]-'0' <= 9; i++ {
			t = t*10 + int64(b[i]-'0')
		}
		t *= 1000
		if i-first > 12 || i-first < 2 || b[first] == '0' || t <= last || i+1 >= len(b) || b[i] != ',' || b[i+1] != '"' {
			return last
		}
		i += 2
		for i < len(b) && inValue[b[i]] {
			i++
		}
		if i-at > 400 || i+3 >= len(b) || b[i] != '"' || b[i+1] != ']' || b[i+2] != ',' || b[i+3] != '[' {
			return last
		}
		last, at = t, i+3
		s.at = at
	}
}

// sample goes over the value of a float: a short string without escapes.
func (s *scanner) sample() error {
	if s.at >= len(s.b) || s.b[s.at] != '"' {
		return s.fail("a value in quotes")
	}
	for i := s.at + 1; i < len(s.b) && i < s.at+400; i++ {
		switch c := s.b[i]; {
		case c == '"':
			s.at = i + 1
			return nil
		case c >= '0' && c <= '9' || c == '.' || c == '-' || c == '+' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z':
		default:
			s.at = i
			return s.fail("a number")
		}
	}
	return s.fail("the end of a value")
}

// time goes over a time in seconds and returns it in ms. More than three digits after the point are refused: no
// querier writes them, and to cut them off would make two times equal.
func (s *scanner) time() (int64, error) {
	start := s.at
	neg := s.at < len(s.b) && s.b[s.at] == '-'
	if neg {
		s.at++
	}
	var t int64
	first := s.at
	for ; s.at < len(s.b) && s.b[s.at] >= '0' && s.b[s.at] <= '9'; s.at++ {
		if s.at-first >= 15 {
			return 0, s.fail("a time of fewer digits")
		}
		t = t*10 + int64(s.b[s.at]-'0')
	}
	if s.at == first || s.b[first] == '0' && s.at > first+1 {
		s.at = start
		return 0, s.fail("a time in seconds")
	}
	t *= 1000
	if s.at < len(s.b) && s.b[s.at] == '.' {
		s.at++
		frac := s.at
		for unit := int64(100); s.at < len(s.b) && s.b[s.at] >= '0' && s.b[s.at] <= '9'; s.at++ {
			if unit == 0 {
				return 0, s.fail("at most three digits of a second")
			}
			t += int64(s.b[s.at]-'0') * unit
			unit /= 10
		}
		if s.at == frac {
			return 0, s.fail("a digit")
		}
	}
	if neg {
		t = -t
	}
	return t, nil
}

// First and Last return the times in ms of the first and the last point, which must exist.
func (p Points) First() int64 { return timeAt(p, 0) }

// Last returns the time in ms of the last point, which must exist.
func (p Points) Last() int64 { return timeAt(p, p.lastStart()) }

// lastStart finds where the last point begins. A point ends in ] and the one before it in ],[ followed by a time,
// which nothing inside of a point looks like: buckets of histograms are ],[ followed by a number and ," too, so they
// are told by what closes them.
func (p Points) lastStart() int {
	if p[len(p)-2] == '"' { // a float has no bracket inside
		return bytes.LastIndexByte(p, '[')
	}
	at := 0
	for {
		n := p.length(at)
		if at+n >= len(p) {
			return at
		}
		at += n + 1
	}
}

func timeAt(p Points, at int) int64 {
	s := scanner{b: p, at: at + 1}
	t, _ := s.time() // checked when it was read
	return t
}

// length returns how long the point at an index is.
func (p Points) length(at int) int {
	comma := at + bytes.IndexByte(p[at:], ',')
	if p[comma+1] == '"' {
		return comma + 1 + bytes.IndexByte(p[comma+1:], ']') + 1 - at
	}
	depth := 0
	for i := comma + 1; ; i++ {
		switch p[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return i + 1 - at
			}
		case '"':
			// Strings inside of histograms have no escapes.
			i += 1 + bytes.IndexByte(p[i+1:], '"')
		}
	}
}

// Between returns the points from start to end in ms, both inclusive: a part of the same text.
func (p Points) Between(start, end int64) Points {
	if len(p) == 0 || start > end {
		return nil
	}
	if p.First() >= start && p.Last() <= end {
		return p
	}
	if p[len(p)-2] == '"' {
		from, to := p.search(start), len(p)
		if end < math.MaxInt64 {
			to = p.search(end + 1)
		}
		if from >= to {
			return nil
		}
		if to < len(p) {
			to-- // the comma
		}
		return p[from:to]
	}
	from, to := -1, 0
	for at := 0; at < len(p); {
		t, n := timeAt(p, at), p.length(at)
		if t > end {
			break
		}
		if t >= start {
			if from < 0 {
				from = at
			}
			to = at + n
		}
		at += n + 1
	}
	if from < 0 {
		return nil
	}
	return p[from:to]
}

// searchBytes is the length of text that is gone over point by point.
const searchBytes = 256

// search returns where the first point not before a time in ms begins among floats, and their length if there is none.
func (p Points) search(t int64) int {
	// Points that begin before lo are before t, and the one at hi, if there is one, is not.
	lo, hi := 0, len(p)
	for hi-lo > searchBytes {
		// The brackets of floats are those around points.
		middle := lo + (hi-lo)/2
		at := bytes.IndexByte(p[middle:hi], '[')
		if at < 0 {
			break
		}
		at += middle
		if timeAt(p, at) < t {
			lo = at
		} else {
			hi = at
		}
	}
	for lo < hi && timeAt(p, lo) < t {
		lo += p.length(lo) + 1
	}
	return min(lo, len(p))
}

// Every appends to pieces the points whose time is start plus a multiple of step, both in ms.
func (p Points) Every(pieces []Points, start, step int64) []Points {
	for at := 0; at < len(p); {
		n := p.length(at)
		if (timeAt(p, at)-start)%step == 0 {
			pieces = append(pieces, p[at:at+n])
		}
		at += n + 1
	}
	return pieces
}

// Count returns how many points there are.
func (p Points) Count() (n int) {
	for at := 0; at < len(p); n++ {
		at += p.length(at) + 1
	}
	return n
}
