package prom

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"unsafe"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/koios-metrics/koios/pkg/store"
)

// joinBytesMax bounds the chunks that are joined into one series. What goes beyond follows as a series with
// equal labels. 8 MB are about 60,000 chunks, more than a year of a sample every 15 s.
const joinBytesMax = 8 << 20

// streamed walks over a streamed answer in the order of stored labels. Prometheus splits a series over
// frames; they are joined again, so one part of a series is always read ahead.
type streamed struct {
	*answer
	frames *frameReader

	frame  *buffer  // the frame being taken apart
	series [][]byte // those in frame that were not taken yet
	ahead  part     // the part read ahead
	ready  bool     // ahead holds one
	end    error    // why there is no further part: io.EOF, or an error

	out      store.Series
	head     []byte    // the encoded labels of out
	held     []*buffer // what out refers to
	external []labels.Label
	scratch  labels.ScratchBuilder
	last     labels.Labels

	bad    badChunks
	err    error
	closed bool
}

// part is a part of a series, from one frame.
type part struct {
	buf    *buffer // counts a reference
	head   []byte  // the encoded labels, nil if they do not lie together
	labels []rawLabel
	chunks []rawChunk
}

func newStreamed(a *answer) *streamed {
	s := &streamed{answer: a, frames: newFrameReader(a.body, a.store.cfg.FrameBytesMax), scratch: labels.NewScratchBuilder(16)}
	if !a.mayClash {
		// Stored labels have no such names, so they can be taken off without looking twice.
		a.query.external.Range(func(l labels.Label) { s.external = append(s.external, l) })
	}
	return s
}

// Next implements store.Cursor.
func (s *streamed) Next() bool {
	if s.err != nil || s.closed {
		return false
	}
	s.letGo()
	for {
		if err := s.ctx.Err(); err != nil {
			s.err = s.wrap(err)
			return false
		}
		if !s.readAhead() {
			if !errors.Is(s.end, io.EOF) {
				s.err = s.wrap(s.end)
			}
			return false
		}
		if err := s.begin(); err != nil {
			s.err = s.wrap(err)
			return false
		}
		for joined := 0; ; {
			n, err := s.join()
			if err != nil {
				s.err = s.wrap(err)
				return false
			}
			joined += n
			// An error of what follows waits for the next call: this part has come whole.
			if joined >= joinBytesMax || !s.readAhead() || !s.continues() {
				break
			}
		}
		if len(s.out.Chunks) > 0 {
			s.inOrder()
			return true
		}
		s.letGo()
	}
}

// readAhead makes sure that a part is read ahead; false at the end or at an error.
func (s *streamed) readAhead() bool {
	for !s.ready && s.end == nil {
		if len(s.series) == 0 {
			s.end = s.nextFrame()
			continue
		}
		p, b := &s.ahead, s.series[0]
		s.series = s.series[1:]
		var head int
		p.labels, p.chunks, head, s.end = decodeSeries(b, p.labels[:0], p.chunks[:0])
		if s.end != nil {
			break
		}
		p.head = nil
		if head >= 0 {
			p.head = b[:head]
		}
		p.buf = s.frame
		p.buf.refs++
		s.ready = true
	}
	return s.ready
}

func (s *streamed) nextFrame() error {
	if s.frame != nil {
		s.frames.release(s.frame)
		s.frame = nil
	}
	b, err := s.frames.next()
	if err != nil {
		return err
	}
	s.frame = b
	var index int64
	s.series, index, err = decodeFrame(b.data, s.series[:0])
	if err == nil && index != 0 {
		err = errors.New("an answer to a query that was not asked")
	}
	return err
}

// begin starts the series that the part read ahead belongs to.
func (s *streamed) begin() error {
	ls, err := s.labels(s.ahead.labels)
	if err != nil {
		return err
	}
	if !s.mayClash && labels.Compare(ls, s.last) < 0 {
		if ls, err = s.surprise(ls); err != nil {
			return err
		}
	}
	s.last, s.out.Labels, s.head = ls, ls, s.ahead.head
	return nil
}

// surprise deals with a series that is out of order though no stored label was known to clash. Was one
// added meanwhile, with just the value of the external label, then it was taken off by mistake. From here on
// nothing is taken off, so that store.Relabel sees the clash and sorts.
func (s *streamed) surprise(ls labels.Labels) (labels.Labels, error) {
	s.mayClash, s.external = true, nil
	whole, err := s.labels(s.ahead.labels)
	if err != nil || whole.Len() > ls.Len() {
		return whole, err
	}
	return ls, store.Errorf(store.KindUnavailable, "series %s turned up after %s: the external labels, %s as known here, may have just changed; ask again", ls, s.last, s.query.external)
}

// labels copies labels out of the frame, with one allocation. External labels that Prometheus merged in
// stay behind.
func (s *streamed) labels(raw []rawLabel) (labels.Labels, error) {
	s.scratch.Reset()
	prev, sorted, i := "", true, 0
	for _, l := range raw {
		name, value := text(l.name), text(l.value)
		if name <= prev {
			sorted = false
		}
		prev = name
		for i < len(s.external) && s.external[i].Name < name {
			i++
		}
		if value == "" || i < len(s.external) && s.external[i].Name == name && s.external[i].Value == value {
			continue
		}
		s.scratch.Add(name, value)
	}
	if sorted {
		return s.scratch.Labels(), nil
	}
	s.scratch.Sort()
	ls := s.scratch.Labels()
	if name, twice := ls.HasDuplicateLabelNames(); twice {
		return ls, store.Errorf(store.KindInternal, "series with label %q twice: %s", name, ls)
	}
	return ls, nil
}

// text reads bytes of a frame as a string, which is valid as long as the frame is.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// join moves the part read ahead into the current series and returns the size of its chunks.
func (s *streamed) join() (size int, err error) {
	p := &s.ahead
	s.ready = false
	s.held = append(s.held, p.buf)
	for i := range p.chunks {
		c := &p.chunks[i]
		if why := c.flaw(); why != "" {
			if err := s.bad.add(s, c, why); err != nil {
				return size, err
			}
			continue
		}
		s.out.Chunks = append(s.out.Chunks, store.Chunk{
			MinTime: c.minTime,
			MaxTime: c.maxTime,
			Raw:     store.Payload{Encoding: chunkenc.Encoding(c.encoding), Data: c.data},
		})
		size += len(c.data)
	}
	return size, nil
}

// continues tells whether the part read ahead belongs to the current series.
func (s *streamed) continues() bool {
	if s.head != nil && s.ahead.head != nil {
		return bytes.Equal(s.head, s.ahead.head)
	}
	ls, err := s.labels(s.ahead.labels)
	return err == nil && labels.Equal(ls, s.out.Labels) // begin tells the error
}

// Extended implements store.Looker.
func (s *streamed) Extended(name string) bool {
	if !s.readAhead() {
		return false
	}
	i, n, ext := 0, s.out.Labels.Len(), 0
	for _, l := range s.ahead.labels {
		ln, value := text(l.name), text(l.value)
		for ext < len(s.external) && s.external[ext].Name < ln {
			ext++
		}
		if value == "" || ext < len(s.external) && s.external[ext].Name == ln && s.external[ext].Value == value {
			continue
		}
		if i == n {
			return ln < name
		}
		if s.out.Labels.Get(ln) != value {
			return false
		}
		i++
	}
	return false
}

// inOrder sorts the chunks if they are not in order already.
func (s *streamed) inOrder() {
	cs := s.out.Chunks
	for i := 1; i < len(cs); i++ {
		if cs[i-1].MinTime > cs[i].MinTime || cs[i-1].MinTime == cs[i].MinTime && store.CompareChunks(&cs[i-1], &cs[i]) >= 0 {
			s.out.Chunks = store.SortChunks(cs)
			return
		}
	}
}

// letGo gives back the buffers of the current series.
func (s *streamed) letGo() {
	for _, b := range s.held {
		s.frames.release(b)
	}
	s.held, s.out.Chunks, s.head = s.held[:0], s.out.Chunks[:0], nil
}

// At implements store.Cursor.
func (s *streamed) At() *store.Series { return &s.out }

// Keep implements store.Keeper. Buffers that are mostly chunks of the series go with it; out of others
// the chunks are copied.
func (s *streamed) Keep() *store.Series {
	used, spent := 0, 0
	for i := range s.out.Chunks {
		used += len(s.out.Chunks[i].Raw.Data)
	}
	alone := true
	for _, b := range s.held {
		spent += cap(b.data)
		alone = alone && (b.refs == 1 || b == s.frame && b.refs == 2)
	}
	if alone && used >= spent/2 {
		for _, b := range s.held {
			b.refs++ // never given back
		}
		return &store.Series{Labels: s.out.Labels, Chunks: slices.Clone(s.out.Chunks)}
	}
	all := make([]byte, 0, used)
	kept := &store.Series{Labels: s.out.Labels, Chunks: slices.Clone(s.out.Chunks)}
	for i := range kept.Chunks {
		p := &kept.Chunks[i].Raw
		from := len(all)
		all = append(all, p.Data...)
		p.Data = all[from:len(all):len(all)]
	}
	return kept
}

// Err implements store.Cursor.
func (s *streamed) Err() error { return s.err }

// Warnings implements store.Cursor.
func (s *streamed) Warnings() store.Warnings { return s.bad.warnings() }

// Close implements store.Cursor.
func (s *streamed) Close() error {
	if !s.closed {
		s.closed = true
		s.store.metrics.frames.Observe(float64(s.frames.count))
		s.close()
	}
	return nil
}
