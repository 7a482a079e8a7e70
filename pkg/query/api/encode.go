package api

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// encoder appends JSON to a buffer and sends it on piece by piece.
type encoder struct {
	w   io.Writer
	buf []byte
	err error
}

// sendAt is the size in bytes at which a piece is sent: large enough for few writes, small enough that a big
// answer is not held twice.
const sendAt = 64 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, sendAt+sendAt/4); return &b }}

func newEncoder(w io.Writer) *encoder {
	return &encoder{w: w, buf: (*buffers.Get().(*[]byte))[:0]}
}

func (e *encoder) release() {
	if cap(e.buf) <= 4*sendAt {
		buffers.Put(&e.buf)
	}
}

func (e *encoder) flush() error {
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
	return e.err
}

func (e *encoder) raw(s string) { e.buf = append(e.buf, s...) }

// json appends what encoding/json makes of v, or nothing and an error.
func (e *encoder) json(v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	e.buf = append(e.buf, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
	return nil
}

// texts appends key and a list, or nothing if the list is empty.
func (e *encoder) texts(key string, ts []string) {
	if len(ts) == 0 {
		return
	}
	e.raw(key)
	for i, t := range ts {
		e.buf = append(e.buf, "[,"[min(i, 1)])
		e.buf = appendString(e.buf, t)
	}
	e.raw("]")
}

// queryData appends the data object of a query. The type comes before the result, so that readers which
// stream know what follows.
func (e *encoder) queryData(d *queryData) {
	e.raw(`{"resultType":"`)
	e.raw(string(d.result.Value.Type()))
	e.raw(`","result":`)
	e.value(d.result.Value)
	if d.stats != nil {
		e.raw(`,"stats":`)
		if err := e.json(d.stats); err != nil {
			e.raw("{}")
		}
	}
	e.raw(`,"analysis":`)
	if err := e.json(d.analysis); err != nil {
		e.raw("{}")
	}
	e.raw("}")
}

func (e *encoder) value(v parser.Value) {
	switch v := v.(type) {
	case promql.Scalar:
		e.buf = appendPoint(e.buf, v.T, v.V)
	case promql.String:
		e.buf = append(appendTime(append(e.buf, '['), v.T), ',')
		e.buf = append(appendString(e.buf, v.V), ']')
	case promql.Vector:
		e.raw("[")
		for i := range v {
			e.comma(i)
			e.sample(&v[i])
		}
		e.raw("]")
	case promql.Matrix:
		e.raw("[")
		for i := range v {
			e.comma(i)
			e.series(&v[i])
		}
		e.raw("]")
	default:
		e.raw("null")
	}
}

// comma separates the elements of a list, between which a piece may be sent.
func (e *encoder) comma(i int) {
	if i > 0 {
		e.buf = append(e.buf, ',')
	}
	if len(e.buf) >= sendAt {
		_ = e.flush() // kept in e.err
	}
}

func (e *encoder) sample(s *promql.Sample) {
	e.raw(`{"metric":`)
	e.buf = appendLabels(e.buf, s.Metric)
	if s.H != nil {
		e.raw(`,"histogram":`)
		e.buf = appendHistogramPoint(e.buf, s.T, s.H)
	} else {
		e.raw(`,"value":`)
		e.buf = appendPoint(e.buf, s.T, s.F)
	}
	e.raw("}")
}

func (e *encoder) series(s *promql.Series) {
	e.raw(`{"metric":`)
	e.buf = appendLabels(e.buf, s.Metric)
	if len(s.Floats) > 0 {
		e.raw(`,"values":[`)
		for i, p := range s.Floats {
			e.comma(i)
			e.buf = appendPoint(e.buf, p.T, p.F)
		}
		e.raw("]")
	}
	if len(s.Histograms) > 0 {
		e.raw(`,"histograms":[`)
		for i, p := range s.Histograms {
			e.comma(i)
			e.buf = appendHistogramPoint(e.buf, p.T, p.H)
		}
		e.raw("]")
	}
	e.raw("}")
}

// appendPoint appends [time, "value"].
func appendPoint(b []byte, t int64, v float64) []byte {
	b = append(appendTime(append(b, '['), t), ',')
	return append(appendFloat(b, v), ']')
}

// appendTime appends ms as seconds.
func appendTime(b []byte, t int64) []byte {
	if t == math.MinInt64 {
		return append(b, "-9223372036854775.808"...)
	}
	if t < 0 {
		b = append(b, '-')
		t = -t
	}
	b = strconv.AppendInt(b, t/1000, 10)
	if ms := t % 1000; ms != 0 {
		b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	}
	return b
}

// appendFloat appends a value as a string, in plain digits unless it is very small or very large.
func appendFloat(b []byte, v float64) []byte {
	format := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return append(strconv.AppendFloat(append(b, '"'), v, format, -1, 64), '"')
}

func appendLabels(b []byte, ls labels.Labels) []byte {
	b = append(b, '{')
	first := true
	ls.Range(func(l labels.Label) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendString(b, l.Name), ':')
		b = appendString(b, l.Value)
	})
	return append(b, '}')
}

func appendHistogramPoint(b []byte, t int64, h *histogram.FloatHistogram) []byte {
	b = append(appendTime(append(b, '['), t), ',')
	return append(appendHistogram(b, h), ']')
}

// appendHistogram appends count, sum and the buckets that are not empty. The first number of a bucket says
// which of its bounds belong to it: 0 the upper, 1 the lower, 2 none, 3 both.
func appendHistogram(b []byte, h *histogram.FloatHistogram) []byte {
	b = appendFloat(append(b, `{"count":`...), h.Count)
	b = appendFloat(append(b, `,"sum":`...), h.Sum)
	open := false
	for it := h.AllBucketIterator(); it.Next(); {
		bucket := it.At()
		if bucket.Count == 0 {
			continue
		}
		if open {
			b = append(b, ',')
		} else {
			b = append(b, `,"buckets":[`...)
			open = true
		}
		kind := byte('2')
		switch {
		case bucket.LowerInclusive && bucket.UpperInclusive:
			kind = '3'
		case bucket.LowerInclusive:
			kind = '1'
		case bucket.UpperInclusive:
			kind = '0'
		}
		b = append(b, '[', kind, ',')
		b = append(appendFloat(b, bucket.Lower), ',')
		b = append(appendFloat(b, bucket.Upper), ',')
		b = append(appendFloat(b, bucket.Count), ']')
	}
	if open {
		b = append(b, ']')
	}
	return append(b, '}')
}

const hex = "0123456789abcdef"

// appendString appends s as a JSON string; bytes that are no UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size != 1 {
				i += size
				continue
			}
		}
		b = append(b, s[start:i]...)
		switch {
		case c >= utf8.RuneSelf:
			b = append(b, "\ufffd"...)
		case c == '"', c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\t':
			b = append(b, '\\', 't')
		case c == '\r':
			b = append(b, '\\', 'r')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
