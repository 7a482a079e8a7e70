// Package grpcsnappy is the gRPC compressor "snappy", in Snappy's framed stream format.
//
// Importing it is enough: from then on clients may ask for it by Name, and servers understand it and
// answer in kind.
package grpcsnappy

import (
	"errors"
	"io"
	"sync"

	"github.com/golang/snappy"
	"google.golang.org/grpc/encoding"
)

// Name is the name of the encoding on the wire.
const Name = "snappy"

// gRPC knows compressors by name only, registered before any connection is made.
func init() { encoding.RegisterCompressor(&compressor{}) }

// compressor lends out writers and readers again and again, since each brings buffers of about 64 KiB.
type compressor struct {
	writers, readers sync.Pool
}

func (*compressor) Name() string { return Name }

// Compress implements encoding.Compressor. The writer goes back when it is closed.
func (c *compressor) Compress(w io.Writer) (io.WriteCloser, error) {
	if p, ok := c.writers.Get().(*writer); ok {
		p.Reset(w)
		return p, nil
	}
	return &writer{snappy.NewBufferedWriter(w), c}, nil
}

// Decompress implements encoding.Compressor. The reader goes back at its end; one that is given up before
// is left to the garbage collector.
func (c *compressor) Decompress(r io.Reader) (io.Reader, error) {
	if p, ok := c.readers.Get().(*reader); ok {
		p.r.Reset(r)
		return &lent{p, c}, nil
	}
	return &lent{&reader{snappy.NewReader(r)}, c}, nil
}

type writer struct {
	*snappy.Writer
	c *compressor
}

func (w *writer) Close() error {
	err := w.Writer.Close()
	w.Reset(nil)
	w.c.writers.Put(w)
	return err
}

type reader struct{ r *snappy.Reader }

// lent is a reader on loan, so that reading on after its end can't reach somebody else's bytes.
type lent struct {
	p *reader
	c *compressor
}

func (l *lent) Read(b []byte) (int, error) {
	if l.p == nil {
		return 0, io.EOF
	}
	n, err := l.p.r.Read(b)
	if errors.Is(err, io.EOF) {
		l.p.r.Reset(nil)
		l.c.readers.Put(l.p)
		l.p = nil
	}
	return n, err
}
