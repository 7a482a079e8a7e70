package bucket

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/koios-metrics/koios/pkg/block/indexheader"
)

// chunkRef says which times a chunk covers and where it is: the number of its file in the upper 32 bits, the offset
// there in the lower.
type chunkRef struct {
	mint, maxt int64
	ref        uint64
}

// seriesEntry is an entry of the index: the symbols of its labels, name and value by turns, and its chunks.
type seriesEntry struct {
	symbols []uint32
	chunks  []chunkRef
}

// decode reads an entry without its length and checksum. It reuses the slices.
func (e *seriesEntry) decode(b []byte) error {
	d := decoder{b: b}
	e.symbols, e.chunks = e.symbols[:0], e.chunks[:0]
	// Each label takes two bytes at least, each chunk three.
	n := d.uvarint()
	if n > uint64(len(d.b))/2 {
		return corruptf("series entry of %d bytes counts %d labels", len(b), n)
	}
	for range n {
		name, value := d.uvarint(), d.uvarint()
		if name > 1<<32-1 || value > 1<<32-1 {
			return corruptf("series entry with symbols %d and %d", name, value)
		}
		e.symbols = append(e.symbols, uint32(name), uint32(value))
	}
	n = d.uvarint()
	if n > uint64(len(d.b))/3 {
		return corruptf("series entry of %d bytes counts %d chunks", len(b), n)
	}
	var c chunkRef
	for i := range n {
		// The first chunk stands for itself, the others say by how much they differ from the one before.
		if i == 0 {
			c.mint = d.varint()
			c.maxt = c.mint + int64(d.uvarint())
			c.ref = d.uvarint()
		} else {
			c.mint = c.maxt + int64(d.uvarint())
			c.maxt = c.mint + int64(d.uvarint())
			c.ref += uint64(d.varint())
		}
		if c.mint > c.maxt {
			return corruptf("series entry with a chunk from %d to %d", c.mint, c.maxt)
		}
		e.chunks = append(e.chunks, c)
	}
	if d.failed {
		return corruptf("series entry of %d bytes ends too early", len(b))
	}
	return nil
}

// decoder reads variable-length integers. Behind the end it reads zeros and remembers that it did.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.failed, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.failed, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

// symbolTable looks symbols up, and keeps those seen last: names, and the values that neighbours share.
type symbolTable struct {
	header  indexheader.Symbols
	cache   []keptSymbol // empty or a power of two long
	scratch labels.ScratchBuilder
}

type keptSymbol struct {
	ref   uint32
	known bool
	text  string
}

// A power of two, so that the place of a symbol is its lower bits.
const symbolsKept = 512

// expect makes room for the symbols of n series. Of a few they are hardly ever the same, or neighbours.
func (t *symbolTable) expect(n int) {
	if n > symbolsKept/8 {
		t.cache = make([]keptSymbol, symbolsKept)
	}
	if n > symbolsKept/64 {
		t.header.Expect()
	}
}

func (t *symbolTable) get(ref uint32) (string, error) {
	if len(t.cache) == 0 {
		return t.look(ref)
	}
	c := &t.cache[ref%symbolsKept]
	if c.known && c.ref == ref {
		return c.text, nil
	}
	s, err := t.look(ref)
	if err != nil {
		return "", err
	}
	c.ref, c.known, c.text = ref, true, s
	return s, nil
}

func (t *symbolTable) look(ref uint32) (string, error) {
	s, err := t.header.Lookup(ref)
	if err != nil {
		return "", corruptf("%v", err)
	}
	return s, nil
}

// labels returns the labels that symbols stand for. They are a copy.
func (t *symbolTable) labels(symbols []uint32) (labels.Labels, error) {
	t.scratch.Reset()
	last, sorted := "", true
	for i := 0; i+1 < len(symbols); i += 2 {
		name, err := t.header.Name(symbols[i])
		if err != nil {
			return labels.EmptyLabels(), corruptf("%v", err)
		}
		value, err := t.get(symbols[i+1])
		if err != nil {
			return labels.EmptyLabels(), err
		}
		sorted = sorted && name > last
		last = name
		t.scratch.Add(name, value)
	}
	if !sorted {
		return labels.EmptyLabels(), corruptf("series %s with labels out of order", t.scratch.Labels())
	}
	return t.scratch.Labels(), nil
}
