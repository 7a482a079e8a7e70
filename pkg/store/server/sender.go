package server

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"google.golang.org/grpc"

	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/wire"
)

// frameBytes is when a frame is full. A series with more chunks goes on in the next frame, and a batch
// is sent though it could take more series. A single chunk that is larger still goes out whole.
const frameBytes = 1 << 20

// sender cuts an answer into frames.
type sender struct {
	stream    grpc.ServerStream
	batchSize int

	frame *wire.Outgoing
	batch wire.Batch
}

// senders keeps the memory of frames and batches from one request to the next.
var senders = sync.Pool{New: func() any { return &sender{frame: wire.NewOutgoing()} }}

func newSender(stream grpc.ServerStream, batchSize int) *sender {
	s := senders.Get().(*sender)
	s.stream, s.batchSize = stream, batchSize
	return s
}

func (s *sender) free() {
	s.stream = nil
	s.frame.Reset()
	s.batch.Reset()
	senders.Put(s)
}

// series sends a series, or puts it into the batch that is sent next. The series is needed no longer
// than the call.
func (s *sender) series(se *store.Series) error {
	if s.batchSize <= 1 || !fits(se) {
		if err := s.flush(); err != nil {
			return err
		}
		return s.split(se)
	}
	if err := s.batch.Add(se.Labels, se.Chunks); err != nil {
		return err
	}
	if s.batch.Len() >= s.batchSize || s.batch.Size() >= frameBytes {
		return s.flush()
	}
	return nil
}

// split sends a series in as many frames as it takes.
func (s *sender) split(se *store.Series) error {
	for rest := se.Chunks; ; {
		n := fill(se, rest)
		if err := s.frame.SetSeries(se.Labels, rest[:n]); err != nil {
			return err
		}
		if err := s.stream.SendMsg(s.frame); err != nil {
			return err
		}
		if rest = rest[n:]; len(rest) == 0 {
			return nil
		}
	}
}

func (s *sender) warning(text string) error {
	if err := s.flush(); err != nil {
		return err
	}
	s.frame.SetWarning(text)
	return s.stream.SendMsg(s.frame)
}

// flush sends the batch, if there is one.
func (s *sender) flush() error {
	if s.batch.Len() == 0 {
		return nil
	}
	s.frame.SetBatch(&s.batch)
	err := s.stream.SendMsg(s.frame)
	s.batch.Reset()
	return err
}

// fits tells whether a series goes into one frame.
func fits(se *store.Series) bool { return fill(se, se.Chunks) == len(se.Chunks) }

// fill returns how many of the chunks go into a frame: up to the one that makes it full.
func fill(se *store.Series, chunks []store.Chunk) int {
	size := int(se.Labels.ByteSize())
	for i := range chunks {
		chunks[i].Payloads(func(_ store.Aggr, p *store.Payload) { size += len(p.Data) })
		if size >= frameBytes {
			return i + 1
		}
	}
	return len(chunks)
}

// valid replaces what is no UTF-8, which protobuf refuses to send.
func valid(ss []string) []string {
	ok := func(s string) bool { return !utf8.ValidString(s) }
	if !slices.ContainsFunc(ss, ok) {
		return ss
	}
	out := make([]string, len(ss))
	for i, s := range ss {
		out[i] = strings.ToValidUTF8(s, "\uFFFD")
	}
	return out
}
