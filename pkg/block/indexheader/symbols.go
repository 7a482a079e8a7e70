package indexheader

import (
	"maps"
	"slices"

	"github.com/prometheus/prometheus/tsdb/index"
)

// Symbols looks up symbols of one Reader for one user, who holds it. Told to expect many, it keeps what is near to those
// looked up last.
type Symbols struct {
	r      *Reader
	groups []*symbolGroup // nil: nothing is kept
}

// A user has so many groups of neighbouring symbols in memory: for 20 byte symbols, 160 KiB at most.
const symbolGroups = 128

type symbolGroup struct {
	number uint32
	n      int
	texts  [symbolSampling]string
}

// Symbols returns a way to look many symbols up. It may be used while the Reader may be.
func (r *Reader) Symbols() Symbols { return Symbols{r: r} }

// Expect prepares for looking up many symbols.
func (s *Symbols) Expect() {
	if s.groups == nil {
		s.groups = make([]*symbolGroup, symbolGroups)
	}
}

// Lookup returns a symbol by its reference. The string is the caller's.
func (s *Symbols) Lookup(ref uint32) (string, error) {
	if s.groups == nil || s.r.c.version == index.FormatV1 {
		return s.r.Symbol(ref)
	}
	number := ref / symbolSampling
	g := s.groups[number%symbolGroups]
	if g == nil || g.number != number {
		var err error
		if g, err = s.r.readGroup(number); err != nil {
			return "", err
		}
		s.groups[number%symbolGroups] = g
	}
	i := int(ref % symbolSampling)
	if i >= g.n {
		return "", corruptf("symbol %d lies outside of the symbol table", ref)
	}
	return g.texts[i], nil
}

// Name returns a symbol that is the name of a label. There are few of these: they are looked up once and shared by all.
func (s *Symbols) Name(ref uint32) (string, error) {
	known := s.r.c.nameOf.Load()
	if known != nil {
		if name, ok := (*known)[ref]; ok {
			return name, nil
		}
	}
	name, err := s.Lookup(ref)
	if err != nil {
		return "", err
	}
	if i, ok := slices.BinarySearch(s.r.c.names, name); ok {
		name = s.r.c.names[i]
		s.r.c.nameOf.CompareAndSwap(known, with(known, ref, name))
	}
	return name, nil
}

// with returns a map with one more name; one that is lost to somebody else is looked up again.
func with(known *map[uint32]string, ref uint32, name string) *map[uint32]string {
	if known == nil {
		return &map[uint32]string{ref: name}
	}
	if len(*known) >= namesKept {
		return known
	}
	more := maps.Clone(*known)
	more[ref] = name
	return &more
}

// So many names are shared, for about so many bytes each.
const (
	namesKept = 256
	nameBytes = 48
)

// readGroup reads a group of neighbouring symbols. All of their strings share one allocation.
func (r *Reader) readGroup(number uint32) (*symbolGroup, error) {
	g := &symbolGroup{number: number}
	if int(number) >= len(r.c.symbolAt) {
		return g, nil
	}
	s := r.c.symbolScanner(r.file, number*symbolSampling)
	defer s.close()
	s.step = int(s.end - s.pos)
	b := s.fill(s.step)
	if s.err != nil {
		return nil, s.err
	}
	text := string(b)
	want := min(symbolSampling, int(r.c.symbols.count-number*symbolSampling))
	for ; g.n < want; g.n++ {
		v := s.str()
		if s.failed() {
			return nil, corruptf("symbol %d is unreadable", int(number)*symbolSampling+g.n)
		}
		// The scanner counts from where the text starts: all of it was read at once.
		g.texts[g.n] = text[s.i-len(v) : s.i]
	}
	return g, nil
}
