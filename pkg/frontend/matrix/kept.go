package matrix

import (
	"encoding/binary"
	"fmt"
)

// The form in which answers are kept: numbers are unsigned varints, and each text comes after its length.
//
//	series   number of series
//	         each: metric, points of floats, points of histograms; as in an answer, without brackets
//	notes    number of warnings, each of them; number of infos, each of them
//
// It can be taken apart without going over points: they were gone over when they came from a querier. So it is only for
// bytes that are known to be those that were kept.

// Keep appends an answer in the form for keeping, without stats and analysis.
func (a *Answer) Keep(to []byte) []byte {
	to = binary.AppendUvarint(to, uint64(len(a.Series)))
	for i := range a.Series {
		s := &a.Series[i]
		to = appendText(to, s.Metric)
		to = appendPoints(to, s.Floats)
		to = appendPoints(to, s.Histograms)
	}
	for _, notes := range [][]string{a.Warnings, a.Infos} {
		to = binary.AppendUvarint(to, uint64(len(notes)))
		for _, n := range notes {
			to = appendText(to, n)
		}
	}
	return to
}

// KeepBytes is an upper bound of what Keep appends.
func (a *Answer) KeepBytes() int {
	n := 3 * binary.MaxVarintLen64
	for i := range a.Series {
		s := &a.Series[i]
		n += 3*binary.MaxVarintLen32 + len(s.Metric) + pointsLen(s.Floats) + pointsLen(s.Histograms)
	}
	for _, notes := range [][]string{a.Warnings, a.Infos} {
		for _, s := range notes {
			n += binary.MaxVarintLen32 + len(s)
		}
	}
	return n
}

func appendText[T string | []byte](to []byte, text T) []byte {
	return append(binary.AppendUvarint(to, uint64(len(text))), text...)
}

func appendPoints(to []byte, pieces []Points) []byte {
	to = binary.AppendUvarint(to, uint64(pointsLen(pieces)))
	for i, p := range pieces {
		if i > 0 {
			to = append(to, ',')
		}
		to = append(to, p...)
	}
	return to
}

// pointsLen is the length of the text of pieces, with commas between.
func pointsLen(pieces []Points) (n int) {
	for _, p := range pieces {
		n += len(p) + 1
	}
	return max(0, n-1)
}

// Kept reads an answer that Keep has written. The answer shares the bytes. An error wraps ErrSyntax.
func Kept(b []byte) (*Answer, error) {
	r := keptReader{b: b}
	a := &Answer{}
	n := r.number()
	if n > 0 {
		a.Series = make([]Series, n)
	}
	pieces := make([]Points, 2*n) // of all series
	for i := range a.Series {
		s := &a.Series[i]
		s.Metric = r.text()
		s.Floats, pieces = one(pieces, r.text())
		s.Histograms, pieces = one(pieces, r.text())
		if r.short {
			break
		}
		var err error
		if s.Labels, err = ParseLabels(s.Metric); err != nil {
			return nil, err
		}
	}
	for _, notes := range []*[]string{&a.Warnings, &a.Infos} {
		for range r.number() {
			*notes = append(*notes, string(r.text()))
		}
	}
	if r.short || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: what was kept is cut off, or too long", ErrSyntax)
	}
	return a, nil
}

// one is a list of one piece, or none, made of the first of pieces.
func one(pieces []Points, p []byte) (list, rest []Points) {
	if len(p) == 0 {
		return nil, pieces
	}
	pieces[0] = p
	return pieces[:1:1], pieces[1:]
}

// keptReader takes text apart; short is true once there was too little of it.
type keptReader struct {
	b     []byte
	short bool
}

// number reads a number of things that take at least a byte each, or of bytes.
func (r *keptReader) number() int {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64(len(r.b)-n) {
		r.b, r.short = nil, true
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *keptReader) text() []byte {
	n := r.number()
	text := r.b[:n:n]
	r.b = r.b[n:]
	return text
}
