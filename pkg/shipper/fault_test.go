package shipper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"
)

// fault is what goes wrong at one step of a bucket.
type fault int

const (
	none      fault = iota
	refused         // The step is not done and reports an error.
	unhealthy       // The step is done and reports an error.
	cut             // An upload stores half of its object and reports an error.
	dead            // The step is not done, and from there on no step is: the process has died before it.
	deadAfter       // The step is done, and no other is: the process has died after it.
	deadIn          // An upload stores half of its object, and no other step is done.
)

var faults = map[string]fault{
	"refused": refused, "stored but reported failed": unhealthy, "cut off": cut,
	"dead before": dead, "dead after": deadAfter, "dead in the middle": deadIn,
}

var errFault = errors.New("injected fault")

// faulty is a bucket in which one step fails. Each request is a step. Steps are counted from 1.
type faulty struct {
	objstore.Bucket
	at   int
	kind fault

	mu           sync.Mutex
	steps        int
	dead         bool
	uploads      []string
	before       func(step int) // Called before each step.
	beforeUpload func()         // Called before each upload.
}

func newFaulty(b objstore.Bucket) *faulty { return &faulty{Bucket: b} }

// step counts a step and says how it fails.
func (f *faulty) step(ctx context.Context) (fault, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps++
	if f.before != nil {
		f.before(f.steps)
	}
	if f.dead {
		return refused, errFault
	}
	if err := ctx.Err(); err != nil {
		return refused, err
	}
	if f.steps != f.at {
		return none, nil
	}
	f.dead = f.kind == dead || f.kind == deadAfter || f.kind == deadIn
	if f.kind == refused || f.kind == dead {
		return f.kind, errFault
	}
	return f.kind, nil
}

// after is what a step reports once it is done.
func (f *faulty) after(kind fault) error {
	if kind == none {
		return nil
	}
	return errFault
}

func (f *faulty) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	if f.beforeUpload != nil {
		f.beforeUpload()
	}
	kind, err := f.step(ctx)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if kind == cut || kind == deadIn {
		b = b[:len(b)/2]
	}
	if err := f.Bucket.Upload(ctx, name, bytes.NewReader(b), opts...); err != nil {
		return err
	}
	f.mu.Lock()
	f.uploads = append(f.uploads, name)
	f.mu.Unlock()
	return f.after(kind)
}

func (f *faulty) Exists(ctx context.Context, name string) (bool, error) {
	kind, err := f.step(ctx)
	if err != nil {
		return false, err
	}
	ok, err := f.Bucket.Exists(ctx, name)
	return ok, errors.Join(err, f.after(kind))
}

func (f *faulty) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	kind, err := f.step(ctx)
	if err != nil {
		return nil, err
	}
	if kind != none {
		return io.NopCloser(io.MultiReader(strings.NewReader("{"), &failingReader{})), nil
	}
	return f.Bucket.Get(ctx, name)
}

type failingReader struct{}

func (*failingReader) Read([]byte) (int, error) { return 0, errFault }

func (f *faulty) Iter(ctx context.Context, dir string, g func(string) error, opts ...objstore.IterOption) error {
	kind, err := f.step(ctx)
	if err != nil {
		return err
	}
	if kind == none {
		return f.Bucket.Iter(ctx, dir, g, opts...)
	}
	first := true
	return errors.Join(errFault, f.Bucket.Iter(ctx, dir, func(name string) error {
		if !first {
			return errFault
		}
		first = false
		return g(name)
	}, opts...))
}

// A round over two blocks, one of them compacted, meets each kind of fault at each of its steps. The
// bucket then never shows a meta.json of a block that is not whole. With the fault lifted, the next round
// (of the same process, or of one that has just started) ends with each block once and whole.
func TestEachStepFails(t *testing.T) {
	setup := func(t *testing.T) (string, []ulid.ULID) {
		dir := t.TempDir()
		return dir, []ulid.ULID{writeBlock(t, dir, 1, level2), writeBlock(t, dir, 2)}
	}
	compacted := func(c *Config) { c.UploadCompacted = true }

	for bucketName, bucket := range buckets {
		for name, kind := range faults {
			for _, restart := range []bool{false, true} {
				if restart && bucketName == "memory" {
					continue // It would show nothing that the other bucket does not.
				}
				t.Run(fmt.Sprintf("%s/%s/restart=%v", bucketName, name, restart), func(t *testing.T) {
					t.Parallel() // Most of the time goes by in fsync.
					for at := 1; ; at++ {
						dir, ids := setup(t)
						bkt := bucket(t)
						f := newFaulty(bkt)
						f.at, f.kind = at, kind
						s := newShipper(t, dir, f, compacted)
						_, err := s.Sync(context.Background())
						if f.steps < at {
							if at < 13 { // Of each block 2 looks and 4 uploads, and a list for overlaps.
								t.Fatalf("only %d steps", f.steps)
							}
							return // The round has fewer steps: all have been tried.
						}
						if err == nil {
							t.Fatalf("step %d failed, the round did not", at)
						}
						if got := testutil.ToFloat64(s.metrics.syncFailures); got != 1 {
							t.Fatalf("thanos_shipper_dir_sync_failures_total is %v", got)
						}
						if kind != cut && kind != deadIn {
							checkNothingHalf(t, dir, bkt)
						}
						f.at, f.dead = 0, false
						if restart {
							s = newShipper(t, dir, f, compacted)
						}
						if _, err := s.Sync(context.Background()); err != nil {
							t.Fatalf("after a fault at step %d: %v", at, err)
						}
						checkWhole(t, dir, bkt, ids...)
					}
				})
			}
		}
	}
}

// checkNothingHalf fails if a meta.json in the bucket promises objects that are not there.
func checkNothingHalf(t *testing.T, dir string, bkt objstore.Bucket) {
	t.Helper()
	all := objects(t, bkt)
	for name := range all {
		id, isMeta := strings.CutSuffix(name, "/meta.json")
		if !isMeta {
			continue
		}
		for _, o := range []string{"chunks/000001", "chunks/000002", "index"} {
			want, err := os.ReadFile(filepath.Join(dir, id, o))
			check(t, err)
			if all[id+"/"+o] != string(want) {
				t.Fatalf("%s is there, but %s is not whole", name, o)
			}
		}
	}
}

// Shows that a block that fails stops the round, so that newer ones wait for it; with AllowOutOfOrder
// they don't, and the round still ends with an error.
func TestOutOfOrder(t *testing.T) {
	run := func(allow bool) (uploaded int, failures float64) {
		dir, bkt := t.TempDir(), objstore.NewInMemBucket()
		for n := range 4 {
			writeBlock(t, dir, n)
		}
		f := newFaulty(bkt)
		f.at, f.kind = 10, refused // An upload of the second block: each takes 2 looks and 4 uploads.
		s := newShipper(t, dir, f, func(c *Config) { c.AllowOutOfOrder = allow })
		uploaded, err := s.Sync(context.Background())
		if !errors.Is(err, errFault) {
			t.Fatalf("error %v", err)
		}
		known, err := readShipperFile(filepath.Join(dir, DefaultMetaFileName))
		check(t, err)
		if len(known) != uploaded {
			t.Fatalf("uploaded %d, the shipper file names %v", uploaded, known)
		}
		return uploaded, testutil.ToFloat64(s.metrics.uploadFailures)
	}
	if n, failures := run(false); n != 1 || failures != 1 {
		t.Fatalf("in order: %d uploads, %v failures", n, failures)
	}
	if n, failures := run(true); n != 3 || failures != 1 {
		t.Fatalf("out of order: %d uploads, %v failures", n, failures)
	}
}

// Shows that a round ends soon after its context, and leaves nothing behind.
func TestCancelled(t *testing.T) {
	dir, bkt := t.TempDir(), objstore.NewInMemBucket()
	id := writeBlock(t, dir, 1)
	ctx, cancel := context.WithCancel(context.Background())
	f := newFaulty(bkt)
	f.before = func(step int) {
		if step == 4 {
			cancel()
		}
	}
	s := newShipper(t, dir, f)
	if _, err := s.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	check(t, s.Run(ctx)) // It is over already.
	if left, _ := os.ReadDir(stagingDir(dir)); len(left) > 0 {
		t.Fatalf("left over: %v", left)
	}
	_, err := s.Sync(context.Background())
	check(t, err)
	checkWhole(t, dir, bkt, id)
}
