package bucket

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"time"

	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"
)

const (
	// The number of range reads that one read of one block has under way.
	rangeConcurrency = 64
	// No series or chunk is longer than this; a length beyond it is a damaged one.
	entryBytesMax = 64 << 20
	// So much is read of anything, for its length to be among it.
	entryBytesMin = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCorrupt is wrapped by errors about bytes that are not what they should be.
var errCorrupt = errors.New("corrupt data")

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errCorrupt}, args...)...)
}

// object is an object that pieces are read from.
type object struct {
	bkt     objstore.BucketReader
	name    string
	size    int64 // in bytes; 0 is unknown
	what    dataType
	account *account
	gapMax  int64         // see Config.GapBytesMax
	slots   chan struct{} // one for each range read that the store has under way; nil is no bound
}

// read reads pieces, sorted by offset, several runs at a time, into memory from mem, and calls each with the bytes
// there are from the start of piece i on, at least its length, unless the object ends before. each may be called in
// parallel. It returns 0, or how many bytes it needs: it is called again with so many, which are read with those of
// others. An error of each ends everything.
func (o *object) read(ctx context.Context, pieces []piece, mem *arena, each func(i int, b []byte) (need int64, err error)) error {
	defer o.account.took(o.what, time.Now())
	needs := make([]int64, len(pieces))
	err := o.readAll(ctx, pieces, mem, func(i int, b []byte) (err error) {
		needs[i], err = each(i, b)
		return err
	})
	if err != nil {
		return err
	}
	var again []piece
	var places []int
	for i, n := range needs {
		if n > 0 {
			again = append(again, piece{pieces[i].off, n})
			places = append(places, i)
		}
	}
	if len(again) == 0 {
		return nil
	}
	return o.readAll(ctx, again, mem, func(i int, b []byte) error {
		need, err := each(places[i], b)
		if err == nil && need > 0 {
			err = corruptf("%s ends before what is referred to at %d", o.name, again[i].off)
		}
		return err
	})
}

func (o *object) readAll(ctx context.Context, pieces []piece, mem *arena, each func(i int, b []byte) error) error {
	rs := runs(pieces, o.gapMax)
	if len(rs) == 1 {
		return o.readRun(ctx, pieces, rs[0], mem, each)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(rangeConcurrency)
	for _, r := range rs {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return o.readRun(gctx, pieces, r, mem, each) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (o *object) readRun(ctx context.Context, pieces []piece, r run, mem *arena, each func(i int, b []byte) error) error {
	start, end := pieces[r.from].off, r.end
	if o.size > 0 {
		end = min(end, o.size)
	}
	if start >= end {
		return corruptf("%s: a reference to byte %d leads behind its end at %d", o.name, start, o.size)
	}
	if !r.dense(pieces) {
		return o.readApart(ctx, pieces, r, end, mem, each)
	}
	buf, err := mem.alloc(int(end - start))
	if err != nil {
		return err
	}
	body, err := o.open(ctx, start, end-start)
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.ReadFull(body, buf)
	short, err := o.ended(err, start+int64(n))
	if err != nil {
		return err
	}
	for i := r.from; i < r.to; i++ {
		at := pieces[i].off - start
		if at >= int64(n) || short && at+min(pieces[i].length, entryBytesMin) > int64(n) {
			return corruptf("%s ends at %d, before what was asked for", o.name, start+int64(n))
		}
		if err := each(i, buf[at:n]); err != nil {
			return err
		}
	}
	return nil
}

// readApart reads a run in which much lies between the pieces: that is passed over and takes no memory.
func (o *object) readApart(ctx context.Context, pieces []piece, r run, end int64, mem *arena, each func(i int, b []byte) error) error {
	at := pieces[r.from].off
	body, err := o.open(ctx, at, end-at)
	if err != nil {
		return err
	}
	defer body.Close()
	in := passers.Get().(*bufio.Reader)
	in.Reset(body)
	defer func() {
		in.Reset(nil)
		passers.Put(in)
	}()
	for i := r.from; i < r.to; i++ {
		p := pieces[i]
		buf, err := mem.alloc(int(min(p.length, end-p.off)))
		if err != nil {
			return err
		}
		k, err := in.Discard(int(p.off - at))
		at += int64(k)
		n := 0
		if err == nil {
			n, err = io.ReadFull(in, buf)
			at += int64(n)
		}
		short, err := o.ended(err, at)
		if err != nil {
			return err
		}
		if n == 0 || short && int64(n) < min(p.length, entryBytesMin) {
			return corruptf("%s ends at %d, before what was asked for", o.name, at)
		}
		if err := each(i, buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// passBytes is what is read at a time of what is passed over.
const passBytes = 32 << 10

var passers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, passBytes) }}

// ended tells whether an error of a read is about the end of the object; other errors it wraps.
func (o *object) ended(err error, at int64) (bool, error) {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err != nil, nil
	}
	return false, fmt.Errorf("read %s at %d: %w", o.name, at, err)
}

// open starts a request, which has a slot of the store until it is closed.
func (o *object) open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if err := o.account.addBytes(o.what, n); err != nil {
		return nil, err
	}
	if o.slots != nil {
		select {
		case o.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	body, err := o.bkt.GetRange(ctx, o.name, off, n)
	if err != nil {
		o.release()
		return nil, fmt.Errorf("get %d bytes at %d of %s: %w", n, off, o.name, err)
	}
	return &slotted{body, o}, nil
}

func (o *object) release() {
	if o.slots != nil {
		<-o.slots
	}
}

// slotted gives its slot back when it is closed, which is once.
type slotted struct {
	io.ReadCloser
	of *object
}

// Close implements io.Closer.
func (s *slotted) Close() error {
	err := s.ReadCloser.Close()
	s.of.release()
	return err
}

// entry cuts an entry off the bytes from its start on. It begins with its length, to which extra bytes have to be added,
// and ends no later than next, where another one starts; 0 is unknown. The content comes without its length and
// is checked against the checksum in its last four bytes, which it comes without too. Where the bytes are too few it
// says how many it needs. Errors that wrap errCorrupt concern this entry only.
func (o *object) entry(b []byte, at, next int64, extra int) (content []byte, need int64, _ error) {
	length, n := binary.Uvarint(b)
	if n == 0 && len(b) < binary.MaxVarintLen32 {
		return nil, entryBytesMin, nil
	}
	if n <= 0 || length > entryBytesMax {
		return nil, 0, corruptf("%s: no entry starts at %d", o.name, at)
	}
	size := int64(n) + int64(length) + int64(extra)
	if next > 0 && at+size > next {
		return nil, 0, corruptf("%s: the entry at %d reaches into the one at %d", o.name, at, next)
	}
	if o.size > 0 && at+size > o.size {
		return nil, 0, corruptf("%s: the entry at %d reaches over the end", o.name, at)
	}
	if size > int64(len(b)) {
		return nil, size, nil
	}
	content, sum := b[n:size-4:size-4], b[size-4:size]
	if crc32.Checksum(content, castagnoli) != binary.BigEndian.Uint32(sum) {
		return nil, 0, corruptf("%s: checksum of the entry at %d is wrong", o.name, at)
	}
	return content, 0, nil
}
