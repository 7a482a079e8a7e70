package matrix

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ErrSyntax is wrapped by the errors about text that is not the JSON of an answer.
var ErrSyntax = errors.New("not the JSON of a query's answer")

// depthMax bounds how deep values may be nested. (A histogram in an answer is at depth 8.)
const depthMax = 200

// scanner walks over JSON text, and takes what encoding/json takes.
type scanner struct {
	b  []byte
	at int
}

func (s *scanner) fail(want string) error {
	rest := s.b[min(s.at, len(s.b)):]
	if len(rest) > 20 {
		rest = rest[:20]
	}
	return fmt.Errorf("%w: at byte %d: want %s, got %q", ErrSyntax, s.at, want, rest)
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\n', '\t', '\r':
			s.at++
		default:
			return
		}
	}
}

// next tells the byte that comes after white space, 0 at the end.
func (s *scanner) next() byte {
	s.space()
	if s.at == len(s.b) {
		return 0
	}
	return s.b[s.at]
}

// take goes over a byte that must come next.
func (s *scanner) take(c byte) error {
	if s.next() != c {
		return s.fail(fmt.Sprintf("%q", c))
	}
	s.at++
	return nil
}

// str goes over a string and returns it with its quotes.
func (s *scanner) str() ([]byte, error) {
	if s.next() != '"' {
		return nil, s.fail("a string")
	}
	start := s.at
	for i := s.at + 1; i < len(s.b); {
		n := bytes.IndexByte(s.b[i:], '"')
		if n < 0 {
			break
		}
		end := i + n
		slashes := 0
		for end-1-slashes > start && s.b[end-1-slashes] == '\\' {
			slashes++
		}
		i = end + 1
		if slashes%2 == 0 {
			if !wellEscaped(s.b[start+1 : end]) {
				return nil, s.fail("a string without control characters and with known escapes")
			}
			s.at = i
			return s.b[start:i], nil
		}
	}
	return nil, s.fail("the end of a string")
}

// wellEscaped tells whether what stands between two quotes is a JSON string.
func wellEscaped(b []byte) bool {
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c < ' ':
			return false
		case c == '\\':
			i++ // There is one more: the quote that ends the string is not escaped.
			if b[i] == 'u' {
				for range 4 {
					if i++; i == len(b) || !isHex(b[i]) {
						return false
					}
				}
			} else if strings.IndexByte(`"\/bfnrt`, b[i]) < 0 {
				return false
			}
		}
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// value goes over any value and returns its text.
func (s *scanner) value() ([]byte, error) {
	s.space()
	start := s.at
	if err := s.skip(0); err != nil {
		return nil, err
	}
	return s.b[start:s.at], nil
}

func (s *scanner) skip(depth int) error {
	if depth > depthMax {
		return s.fail("less depth")
	}
	switch c := s.next(); {
	case c == '"':
		_, err := s.str()
		return err
	case c == '{':
		return s.object(func([]byte) error { return s.skip(depth + 1) })
	case c == '[':
		return s.array(func() error { return s.skip(depth + 1) })
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	for _, word := range []string{"null", "true", "false"} {
		if bytes.HasPrefix(s.b[s.at:], []byte(word)) {
			s.at += len(word)
			return nil
		}
	}
	return s.fail("a value")
}

func (s *scanner) digits() error {
	start := s.at
	for s.at < len(s.b) && s.b[s.at] >= '0' && s.b[s.at] <= '9' {
		s.at++
	}
	if s.at == start {
		return s.fail("a digit")
	}
	return nil
}

func (s *scanner) number() error {
	if s.b[s.at] == '-' {
		s.at++
	}
	start := s.at
	if err := s.digits(); err != nil {
		return err
	}
	if s.b[start] == '0' && s.at > start+1 {
		s.at = start
		return s.fail("no leading zero")
	}
	if s.at < len(s.b) && s.b[s.at] == '.' {
		s.at++
		if err := s.digits(); err != nil {
			return err
		}
	}
	if s.at < len(s.b) && (s.b[s.at] == 'e' || s.b[s.at] == 'E') {
		s.at++
		if s.at < len(s.b) && (s.b[s.at] == '+' || s.b[s.at] == '-') {
			s.at++
		}
		return s.digits()
	}
	return nil
}

// object calls f at each value of an object, with the key in its quotes; f goes over the value.
func (s *scanner) object(f func(key []byte) error) error {
	if err := s.take('{'); err != nil {
		return err
	}
	if s.next() == '}' {
		s.at++
		return nil
	}
	for {
		key, err := s.str()
		if err != nil {
			return err
		}
		if err := s.take(':'); err != nil {
			return err
		}
		if err := f(key); err != nil {
			return err
		}
		if s.next() == '}' {
			s.at++
			return nil
		}
		if err := s.take(','); err != nil {
			return err
		}
	}
}

// array calls f at each element of an array; f goes over it.
func (s *scanner) array(f func() error) error {
	if err := s.take('['); err != nil {
		return err
	}
	if s.next() == ']' {
		s.at++
		return nil
	}
	for {
		if err := f(); err != nil {
			return err
		}
		if s.next() == ']' {
			s.at++
			return nil
		}
		if err := s.take(','); err != nil {
			return err
		}
	}
}
