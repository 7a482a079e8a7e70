package indexheader

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// countingBucket counts range reads and what they hand out, and answers them after a while.
type countingBucket struct {
	objstore.Bucket
	wait time.Duration

	mu    sync.Mutex
	reads int
	bytes int64
}

func (b *countingBucket) GetRange(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	b.mu.Lock()
	b.reads++
	b.bytes += n
	b.mu.Unlock()
	select {
	case <-time.After(b.wait):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return b.Bucket.GetRange(ctx, name, off, n)
}

// newBucket makes a bucket with the index of one block, whose metadata states the size.
func newBucket(t testing.TB, series int) (*countingBucket, *block.Meta, int64) {
	t.Helper()
	b, err := os.ReadFile(writeIndex(t, series))
	if err != nil {
		t.Fatal(err)
	}
	bkt := &countingBucket{Bucket: objstore.NewInMemBucket()}
	putIndex(t, bkt, b)
	m := &block.Meta{}
	m.ULID = id
	m.Thanos.Files = []block.File{{RelPath: "index", SizeBytes: int64(len(b))}}
	return bkt, m, int64(len(b))
}

func putIndex(t testing.TB, bkt objstore.Bucket, b []byte) {
	t.Helper()
	if err := bkt.Upload(t.Context(), id.String()+"/index", bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
}

// use opens a header and lets go of it.
func use(t testing.TB, r *Reader) {
	t.Helper()
	r.Hold()
	defer r.Release()
	if err := r.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.HasLabel("mod") {
		t.Error("a label is missing")
	}
}

// Shows that a small index is read at once, a big one by its ends and the rest of its tables, and that a wrong size in
// the metadata is got over.
func TestFetch(t *testing.T) {
	f := func(name string, series, reads int, whole bool, stated func(int64) int64) {
		t.Helper()
		bkt, m, size := newBucket(t, series)
		m.Thanos.Files[0].SizeBytes = stated(size)
		p := NewPool(bkt, Config{}, log.NewNopLogger(), nil)
		r, err := p.Reader(t.Context(), m, filepath.Join(t.TempDir(), Filename))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		use(t, r)
		if bkt.reads != reads || whole != (bkt.bytes >= size) {
			t.Errorf("%s: %d reads of %d bytes in all; the index has %d", name, bkt.reads, bkt.bytes, size)
		}
	}
	right := func(n int64) int64 { return n }
	f("small", 500, 1, true, right)
	f("big", 50_000, 4, false, right)
	f("size unknown", 500, 1, true, func(int64) int64 { return 0 })
	f("size too small", 500, 2, true, func(n int64) int64 { return n - 10 })
	f("size too large", 500, 2, true, func(n int64) int64 { return n + 10 })
}

// Shows that many users at once fetch and open a header once, that one whose time is over leaves the others alone, and
// that it is closed when it was idle for long enough, and not while it is held. (Killed: mutants that open it for each
// user, and that close what is held.)
func TestSingleFlightAndIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt, m, _ := newBucket(t, 500)
		bkt.wait = time.Second
		p := NewPool(bkt, Config{FetchOnUse: true, IdleTimeout: time.Minute}, log.NewNopLogger(), prometheus.NewRegistry())
		r, err := p.Reader(t.Context(), m, filepath.Join(t.TempDir(), Filename))
		if err != nil || bkt.reads != 0 {
			t.Fatal(bkt.reads, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		r.Hold()
		gone := make(chan error)
		go func() { gone <- r.Open(ctx) }()
		synctest.Wait()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { use(t, r) })
		}
		if err := <-gone; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("short of time: %v", err)
		}
		all.Wait()
		if bkt.reads != 2 {
			t.Errorf("%d reads: want that of the one who left and one more", bkt.reads)
		}

		run, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(run) }()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := testutil.ToFloat64(p.metrics.unloads); n != 0 {
			t.Errorf("%v closed while held", n)
		}
		r.Release()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := testutil.ToFloat64(p.metrics.unloads); n != 1 || p.bytes != 0 {
			t.Errorf("%v closed, %d bytes left", n, p.bytes)
		}
		use(t, r)
		if n := testutil.ToFloat64(p.metrics.loads); n != 3 || bkt.reads != 2 {
			t.Errorf("%v times opened, %d reads", n, bkt.reads)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Shows that headers which nobody uses take no more memory than is allowed: the one used longest ago goes.
func TestMemoryBound(t *testing.T) {
	bkt, m, _ := newBucket(t, 500)
	p := NewPool(bkt, Config{MemoryBytesMax: 5000}, log.NewNopLogger(), nil)
	var rs []*Reader
	for i := range 10 {
		r, err := p.Reader(t.Context(), m, filepath.Join(t.TempDir(), string(rune('a'+i)), Filename))
		if err != nil {
			t.Fatal(err)
		}
		rs = append(rs, r)
	}
	for range 3 {
		for _, r := range rs {
			use(t, r)
			if p.bytes > 5000 || r.c == nil {
				t.Fatalf("%d bytes, the last one open: %v", p.bytes, r.c != nil)
			}
		}
	}
	if rs[0].c != nil {
		t.Error("the oldest one is open")
	}
	if open, kept := p.files.Load(), int64(p.open.Len()); open != kept || open == 0 {
		t.Errorf("%d files are open for %d headers in memory", open, kept)
	}
	p.files.Add(filesKept)
	use(t, rs[0])
	if p.files.Add(-filesKept) < 0 || rs[0].file != nil {
		t.Error("a file beyond those that may stay open stays open")
	}
	for _, r := range rs {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if p.bytes != 0 || p.open.Len() != 0 || p.files.Load() != 0 {
		t.Errorf("%d bytes, %d headers and %d files left", p.bytes, p.open.Len(), p.files.Load())
	}
}

// Shows that a header on disk is used again, that one which is damaged at either end, in a table, or gone is fetched
// again, that damage in the bucket is told from it, and that nothing is kept where nothing is to be.
func TestDamage(t *testing.T) {
	bkt, m, _ := newBucket(t, 500)
	path := filepath.Join(t.TempDir(), Filename)
	start := func(cfg Config) *Reader {
		t.Helper()
		r, err := NewPool(bkt, cfg, log.NewNopLogger(), nil).Reader(t.Context(), m, path)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := start(Config{})
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reads := func(what string, want int) {
		t.Helper()
		if bkt.reads != want {
			t.Errorf("%s: %d reads, want %d", what, bkt.reads, want)
		}
		bkt.reads = 0
	}
	reads("first", 1)
	use(t, start(Config{}))
	reads("on disk", 0)
	for _, at := range []int{0, 5, 40, len(good) - 200, len(good) - 30, len(good) - 1} {
		b := append([]byte(nil), good...)
		b[at] ^= 0x55
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		use(t, start(Config{}))
		reads("damaged", 1)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.c = nil
	use(t, r)
	reads("gone", 1)

	if err := start(Config{Forget: true}).Close(); err != nil {
		t.Fatal(err)
	}
	reads("not taken over", 1)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("kept: %v", err)
	}

	b, err := os.ReadFile(writeIndex(t, 500))
	if err != nil {
		t.Fatal(err)
	}
	b[30] ^= 0x55 // in the symbol table
	putIndex(t, bkt, b)
	if _, err := NewPool(bkt, Config{}, log.NewNopLogger(), nil).Reader(t.Context(), m, path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damage in the bucket: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("kept: %v", err)
	}
}

// Shows that a file which can't be read any more after it was verified is told from one that has no such value, and is
// fetched again at the next opening. (Killed: a mutant of Values that ends in silence.)
func TestUnreadable(t *testing.T) {
	bkt, m, _ := newBucket(t, 5000)
	path := filepath.Join(t.TempDir(), Filename)
	p := NewPool(bkt, Config{}, log.NewNopLogger(), nil)
	r, err := p.Reader(t.Context(), m, path)
	if err != nil {
		t.Fatal(err)
	}
	hold := func() (done func()) {
		t.Helper()
		r.Hold()
		if err := r.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		return r.Release
	}
	count := func() (n int) {
		r.Values("i", func(string, Range) bool { n++; return true })
		return n
	}
	for name, look := range map[string]func() bool{
		"values":   func() bool { return count() == 5000 },
		"postings": func() bool { _, ok := r.Postings("i", "7"); return ok },
	} {
		done := hold()
		if !look() || r.Err() != nil {
			t.Fatalf("%s: not found, %v", name, r.Err())
		}
		if _, ok := r.Postings("i", "nobody's"); ok || r.Err() != nil {
			t.Errorf("%s: what is not there: %v, %v", name, ok, r.Err())
		}
		if err := os.Truncate(path, 100); err != nil {
			t.Fatal(err)
		}
		if look() || !errors.Is(r.Err(), ErrCorrupt) {
			t.Errorf("%s: found in a file cut short, %v", name, r.Err())
		}
		done()
		bkt.reads = 0
		done = hold()
		if !look() || r.Err() != nil || bkt.reads == 0 {
			t.Errorf("%s: not fetched again: %d reads, %v", name, bkt.reads, r.Err())
		}
		done()
	}
}
