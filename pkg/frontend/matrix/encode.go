package matrix

import (
	"encoding/json"
	"io"
	"sync"
)

// bufferBytes is how much text is gathered before it is written: few calls of the kernel, and within its nearer caches.
const bufferBytes = 128 << 10

var buffers = sync.Pool{New: func() any { return new([bufferBytes]byte) }}

// Encode writes the answer as a querier does. The errors are those of the writer, which must not keep what it is given.
func (a *Answer) Encode(w io.Writer) error {
	buffer := buffers.Get().(*[bufferBytes]byte)
	defer buffers.Put(buffer)
	e := encoder{w: w, buf: buffer[:0]}
	e.text(usualHead)
	for i := range a.Series {
		if i > 0 {
			e.text(",")
		}
		e.series(&a.Series[i])
	}
	e.text("]")
	if a.Stats != nil {
		e.text(`,"stats":`)
		e.bytes(a.Stats)
	}
	if a.Analysis != nil {
		e.text(`,"analysis":`)
		e.bytes(a.Analysis)
	}
	e.text("}")
	e.list(`,"warnings":`, a.Warnings)
	e.list(`,"infos":`, a.Infos)
	e.text("}")
	e.flush()
	return e.err
}

// EncodedBytes is the length of what Encode writes.
func (a *Answer) EncodedBytes() int64 {
	// What stands around the series is little: it is written and counted.
	beside := *a
	beside.Series = nil
	var n counter
	_ = beside.Encode(&n)
	for i := range a.Series {
		s := &a.Series[i]
		n += counter(len(`{"metric":}`) + len(s.Metric))
		if i > 0 {
			n++
		}
		if len(s.Floats) > 0 {
			n += counter(len(`,"values":[]`) + pointsLen(s.Floats))
		}
		if len(s.Histograms) > 0 {
			n += counter(len(`,"histograms":[]`) + pointsLen(s.Histograms))
		}
	}
	return int64(n)
}

// counter counts what is written.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

type encoder struct {
	w   io.Writer
	buf []byte
	err error
}

func (e *encoder) series(s *Series) {
	e.text(`{"metric":`)
	e.bytes(s.Metric)
	e.points(`,"values":[`, s.Floats)
	e.points(`,"histograms":[`, s.Histograms)
	e.text("}")
}

func (e *encoder) points(before string, pieces []Points) {
	if len(pieces) == 0 {
		return
	}
	e.text(before)
	for i, p := range pieces {
		if i > 0 {
			e.text(",")
		}
		e.bytes(p)
	}
	e.text("]")
}

func (e *encoder) list(before string, texts []string) {
	if len(texts) == 0 {
		return
	}
	e.text(before)
	b, err := json.Marshal(texts)
	if err != nil && e.err == nil {
		e.err = err
	}
	e.bytes(b)
}

func (e *encoder) text(s string) {
	if len(e.buf)+len(s) > cap(e.buf) {
		e.flush()
	}
	e.buf = append(e.buf, s...)
}

func (e *encoder) bytes(b []byte) {
	if len(e.buf)+len(b) > cap(e.buf) {
		e.flush()
		if len(b) > cap(e.buf) {
			e.write(b)
			return
		}
	}
	e.buf = append(e.buf, b...)
}

func (e *encoder) flush() {
	e.write(e.buf)
	e.buf = e.buf[:0]
}

func (e *encoder) write(b []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(b)
	}
}
