package bucket

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"
)

const (
	// Two wanted pieces of an object are read with one request when no more than this lies between them: by the time
	// a further request is answered that much has come down the open one.
	gapBytesMax = 512 << 10
	// The number of range reads that one read of one block has under way.
	rangeConcurrency = 4
	// No series or chunk is longer than this; a length beyond it is a damaged one.
	entryBytesMax = 64 << 20
	// So much is read of anything, for its length to be among it.
	entryBytesMin = 64
	// What is read from a connection at a time.
	readBytes = 16 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCorrupt is wrapped by errors about bytes that are not what they should be.
var errCorrupt = errors.New("corrupt data")

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errCorrupt}, args...)...)
}

// piece is a wanted piece of an object: where it starts and how long it is at most, or is thought to be.
type piece struct{ off, length int64 }

// object is an object that pieces are read from.
type object struct {
	bkt     objstore.BucketReader
	name    string
	size    int64 // in bytes; 0 is unknown
	what    dataType
	account *account
}

// runs cuts pieces, sorted by offset, into runs [from, to) that are read with one request each.
func runs(pieces []piece) (out [][2]int) {
	for from := 0; from < len(pieces); {
		end := pieces[from].off + pieces[from].length
		to := from + 1
		for ; to < len(pieces) && pieces[to].off <= end+gapBytesMax; to++ {
			end = max(end, pieces[to].off+pieces[to].length)
		}
		out = append(out, [2]int{from, to})
		from = to
	}
	return out
}

// read reads pieces, sorted by offset, several runs at a time, and calls each in the order of a run with a reader that
// stands at the start of piece i. An error of each ends everything.
func (o *object) read(ctx context.Context, pieces []piece, each func(i int, r *runReader) error) error {
	defer o.account.took(o.what, time.Now())
	rs := runs(pieces)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(rangeConcurrency)
	for _, run := range rs {
		do := func(ctx context.Context) error { return o.readRun(ctx, pieces, run, each) }
		if len(rs) == 1 {
			return do(ctx)
		}
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(gctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (o *object) readRun(ctx context.Context, pieces []piece, run [2]int, each func(i int, r *runReader) error) error {
	start, end := pieces[run[0]].off, int64(0)
	for _, p := range pieces[run[0]:run[1]] {
		end = max(end, p.off+p.length)
	}
	if o.size > 0 {
		end = min(end, o.size)
	}
	if start >= end {
		return corruptf("%s: a reference to byte %d leads behind its end at %d", o.name, start, o.size)
	}
	body, err := o.open(ctx, start, end-start)
	if err != nil {
		return err
	}
	defer body.Close()
	r := &runReader{object: o, ctx: ctx, body: bufio.NewReaderSize(body, int(min(end-start, readBytes))), at: start}
	for i := run[0]; i < run[1]; i++ {
		r.next = end
		if i+1 < run[1] {
			r.next = pieces[i+1].off
		}
		r.last = i+1 == run[1]
		if err := r.seek(pieces[i].off); err != nil {
			return err
		}
		if err := each(i, r); err != nil {
			return err
		}
	}
	return nil
}

func (o *object) open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if err := o.account.addBytes(o.what, n); err != nil {
		return nil, err
	}
	body, err := o.bkt.GetRange(ctx, o.name, off, n)
	if err != nil {
		return nil, fmt.Errorf("get %d bytes at %d of %s: %w", n, off, o.name, err)
	}
	return body, nil
}

// runReader reads the pieces of one run from one open request.
type runReader struct {
	*object
	ctx  context.Context
	body *bufio.Reader
	at   int64 // the position in the object
	next int64 // where the next piece, or behind the last one the request, ends
	last bool  // there is no next piece
}

func (r *runReader) seek(off int64) error {
	if off < r.at {
		return corruptf("%s: two references into one piece at %d", r.name, off)
	}
	n, err := r.body.Discard(int(off - r.at))
	r.at += int64(n)
	return r.wrap(err)
}

func (r *runReader) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return corruptf("%s ends at %d, before what was asked for", r.name, r.at)
	case r.ctx.Err() != nil:
		return context.Cause(r.ctx)
	}
	return fmt.Errorf("read %s at %d: %w", r.name, r.at, err)
}

// full fills b.
func (r *runReader) full(b []byte) error {
	n, err := io.ReadFull(r.body, b)
	r.at += int64(n)
	return r.wrap(err)
}

// entry reads an entry that starts with its length, to which extra bytes have to be added. The entry comes without
// its length and is checked against the checksum in its last four bytes, which it comes without too. Errors that wrap
// errCorrupt concern this entry only; the reader can go on.
func (r *runReader) entry(extra int, alloc func(n int) ([]byte, error)) (_ []byte, refetched bool, _ error) {
	start := r.at
	head, err := r.body.Peek(binary.MaxVarintLen32)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, r.wrap(err)
	}
	length, n := binary.Uvarint(head)
	if n <= 0 || length > entryBytesMax {
		return nil, false, corruptf("%s: no entry starts at %d", r.name, start)
	}
	size := int64(length) + int64(extra)
	end := start + int64(n) + size
	if !r.last && end > r.next {
		return nil, false, corruptf("%s: the entry at %d reaches into the one at %d", r.name, start, r.next)
	}
	if r.size > 0 && end > r.size {
		return nil, false, corruptf("%s: the entry at %d reaches over the end", r.name, start)
	}
	b, err := alloc(int(size))
	if err != nil {
		return nil, false, err
	}
	if end > r.next {
		// It is longer than was thought, so the request ends too early.
		err, refetched = r.exactly(start+int64(n), b), true
	} else {
		_, _ = r.body.Discard(n)
		r.at += int64(n)
		err = r.full(b)
	}
	if err != nil {
		return nil, refetched, err
	}
	content, sum := b[:size-4], b[size-4:]
	if crc32.Checksum(content, castagnoli) != binary.BigEndian.Uint32(sum) {
		return nil, refetched, corruptf("%s: checksum of the entry at %d is wrong", r.name, start)
	}
	return content, refetched, nil
}

// exactly fills b from a request of its own.
func (r *runReader) exactly(off int64, b []byte) error {
	body, err := r.open(r.ctx, off, int64(len(b)))
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.ReadFull(body, b)
	return r.wrap(err)
}
