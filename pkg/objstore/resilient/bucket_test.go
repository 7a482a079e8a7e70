package resilient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/objstore/faulty"
)

const content = "0123456789"

// over returns a resilient bucket over a faulty one with three objects, and what they hold.
func over(t *testing.T) (*Bucket, *faulty.Bucket) {
	t.Helper()
	inmem := objstore.NewInMemBucket()
	for _, name := range []string{"a/1", "a/2", "b/1"} {
		if err := inmem.Upload(context.Background(), name, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	f := faulty.New(inmem)
	b := New(objstore.WrapWithMetrics(f, prometheus.NewRegistry(), "test"), prometheus.NewRegistry())
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if n := f.OpenBodies(); n > 0 {
			t.Errorf("%d bodies were not closed", n)
		}
	})
	return b, f
}

func read(ctx context.Context, b objstore.BucketReader, off, length int64) (string, error) {
	r, err := b.GetRange(ctx, "a/1", off, length)
	if err != nil {
		return "", err
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	return string(got), err
}

// operations are those that may be repeated, each with what it says when all is well.
var operations = map[faulty.Op]func(ctx context.Context, b *Bucket) (string, error){
	faulty.Get: func(ctx context.Context, b *Bucket) (string, error) {
		r, err := b.Get(ctx, "a/1")
		if err != nil {
			return "", err
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		return string(got), err
	},
	faulty.GetRange: func(ctx context.Context, b *Bucket) (string, error) {
		got, err := read(ctx, b, 2, 4)
		return "01" + got + "6789", err
	},
	faulty.Exists: func(ctx context.Context, b *Bucket) (string, error) {
		there, err := b.Exists(ctx, "a/1")
		return fmt.Sprint(content[:10*btoi(there)]), err
	},
	faulty.Attributes: func(ctx context.Context, b *Bucket) (string, error) {
		attrs, err := b.Attributes(ctx, "a/1")
		return content[:attrs.Size], err
	},
	faulty.Iter: func(ctx context.Context, b *Bucket) (string, error) {
		var names []string
		err := b.Iter(ctx, "a", func(n string) error { names = append(names, n); return nil })
		return strings.Replace(strings.Join(names, " "), "a/1 a/2", content, 1), err
	},
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Shows that each read is asked again while it fails, three times at most, and that requests are no more than that. An
// answer that another attempt would give too is believed at once.
//
// Mutant seen killed: retriesMax is 2.
func TestRetries(t *testing.T) {
	for op, do := range operations {
		synctest.Test(t, func(t *testing.T) {
			b, f := over(t)
			check := func(what string, failing, wantRequests int, wantErr error, fault faulty.Fault) {
				t.Helper()
				f.Reset()
				f.Plan(faulty.On(faulty.Until(failing, fault), op))
				got, err := do(t.Context(), b)
				if !errors.Is(err, wantErr) || err == nil && got != content {
					t.Errorf("%s, %s: %q, %v", op, what, got, err)
				}
				if n := f.Count(); n != wantRequests {
					t.Errorf("%s, %s: %d requests, want %d", op, what, n, wantRequests)
				}
			}
			down := faulty.Fault{Err: faulty.ErrUnavailable}
			check("well", 0, 1, nil, down)
			check("once", 1, 2, nil, down)
			check("three times", 3, 4, nil, down)
			check("for ever", 100, 4, faulty.ErrUnavailable, down)
			for _, code := range []int{400, 416} {
				err := minio.ErrorResponse{StatusCode: code}
				check("refused", 100, 1, err, faulty.Fault{Err: err})
			}
			throttled := minio.ErrorResponse{StatusCode: 429}
			check("throttled", 2, 3, nil, faulty.Fault{Err: throttled})
		})
	}
}

// Shows that nothing is asked again of an object that is not there, when the caller has gone, or when it is an upload
// or a deletion.
func TestNoRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := over(t)
		if _, err := b.Get(t.Context(), "c"); !b.IsObjNotFoundErr(err) || f.Count() != 1 {
			t.Errorf("not there: %v after %d requests", err, f.Count())
		}
		f.Reset()
		f.Plan(faulty.Always(faulty.Fault{Err: faulty.ErrUnavailable}))
		if err := b.Upload(t.Context(), "c", strings.NewReader("x")); err == nil || f.Count() != 1 {
			t.Errorf("upload: %v after %d requests", err, f.Count())
		}
		if err := b.Delete(t.Context(), "a/1"); err == nil || f.Count() != 2 {
			t.Errorf("deletion: %v after %d requests", err, f.Count())
		}
		for op, do := range operations {
			ctx, cancel := context.WithCancel(t.Context())
			f.Reset()
			f.Plan(func(faulty.Call) faulty.Fault {
				cancel()
				return faulty.Fault{Err: faulty.ErrUnavailable}
			})
			if _, err := do(ctx, b); err == nil || f.Count() != 1 {
				t.Errorf("%s that nobody waits for: %v after %d requests", op, err, f.Count())
			}
		}
		// Whoever goes during the pause does not wait for its end.
		f.Reset()
		f.Plan(faulty.Always(faulty.Fault{Err: faulty.ErrUnavailable}))
		ctx, cancel := context.WithTimeout(t.Context(), retryDelay/2)
		defer cancel()
		start := time.Now()
		if _, err := b.Exists(ctx, "a/1"); err == nil || f.Count() != 1 || time.Since(start) != retryDelay/2 {
			t.Errorf("%v after %d requests and %s", err, f.Count(), time.Since(start))
		}
	})
}

// Shows that a storage that is down is asked little more than it would be: after the burst, one retry in ten requests.
//
// Mutant seen killed: an allowance that is not taken from.
func TestRetriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := over(t)
		f.Plan(faulty.Always(faulty.Fault{Err: faulty.ErrUnavailable}))
		const n = 1000
		for range n {
			if _, err := b.Exists(t.Context(), "a/1"); !errors.Is(err, faulty.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if got := f.Count() - n; got < retryBurst || got > retryBurst+n/retryPart {
			t.Errorf("%d retries of %d requests", got, n)
		}
		retries := testutil.ToFloat64(b.metrics.retries.WithLabelValues(objstore.OpExists))
		if got := float64(f.Count() - n); got != retries || testutil.ToFloat64(b.metrics.retriesWithheld.WithLabelValues(objstore.OpExists)) == 0 {
			t.Errorf("%v retries counted, %v seen", retries, got)
		}
	})
}

// Shows that a range which breaks off is read on where it broke, that a whole object is not unless nothing of it was
// handed out, and that a listing hands out each entry once.
//
// Mutant seen killed: a range is read on from its start.
func TestBrokenOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := over(t)
		for cut := int64(1); cut < 8; cut++ {
			f.Reset()
			f.Plan(faulty.Until(2, faulty.Fault{Cut: cut}))
			got, err := read(t.Context(), b, 1, 8)
			wantRequests := 3
			if 2*cut >= 8 { // nothing is missing any more
				wantRequests = 2
			}
			if err != nil || got != content[1:9] || f.Count() != wantRequests {
				t.Errorf("cut at %d: %q, %v, %d requests", cut, got, err, f.Count())
			}
		}
		f.Reset()
		f.Plan(faulty.Until(1, faulty.Fault{Cut: 3}))
		if got, err := read(t.Context(), b, 4, -1); err != nil || got != content[4:] {
			t.Errorf("to the end: %q, %v", got, err)
		}
		f.Plan(faulty.Until(1, faulty.Fault{Cut: 3}))
		if got, err := operations[faulty.Get](t.Context(), b); !errors.Is(err, io.ErrUnexpectedEOF) || got != content[:3] {
			t.Errorf("whole: %q, %v", got, err)
		}
		f.Plan(faulty.Until(1, faulty.Fault{Cut: -1}))
		if got, err := operations[faulty.Get](t.Context(), b); err != nil || got != content {
			t.Errorf("whole, from the start: %q, %v", got, err)
		}
		f.Reset()
		f.Plan(faulty.Always(faulty.Fault{Cut: 1}))
		if got, err := read(t.Context(), b, 0, 10); !errors.Is(err, io.ErrUnexpectedEOF) || got != content[:4] || f.Count() != 4 {
			t.Errorf("again and again: %q, %v, %d requests", got, err, f.Count())
		}

		var names []string
		list := func() error {
			return b.Iter(t.Context(), "", func(n string) error { names = append(names, n); return nil }, objstore.WithRecursiveIter())
		}
		f.Reset()
		f.Plan(faulty.FirstOf(faulty.Nth(1, faulty.Fault{Cut: 1}), faulty.Nth(1, faulty.Fault{Cut: 2})))
		if err := list(); err != nil || f.Count() != 3 {
			t.Errorf("listing: %v, %d requests", err, f.Count())
		}
		if diff := cmp.Diff([]string{"a/1", "a/2", "b/1"}, names); diff != "" {
			t.Error(diff)
		}
		f.Reset()
		f.Plan(nil)
		enough := errors.New("enough")
		if err := b.Iter(t.Context(), "", func(string) error { return enough }); err != enough || f.Count() != 1 {
			t.Errorf("a listing that the caller ends: %v, %d requests", err, f.Count())
		}
	})
}

// learn lets a bucket see requests that take just so long.
func learn(t *testing.T, b *Bucket, f *faulty.Bucket, n int, d time.Duration) {
	t.Helper()
	f.Plan(faulty.Always(faulty.Fault{Latency: d}))
	for range n {
		if got, err := read(t.Context(), b, 0, 10); err != nil || got != content {
			t.Fatal(got, err)
		}
	}
	f.Reset()
}

// Shows that a request later than most is asked a second time, once, that the first answer counts, that the loser is
// cancelled and its body closed, and that what is usual is known.
//
// Mutant seen killed: the loser is not cancelled.
func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := over(t)
		if b.Usually() != 0 {
			t.Error("something is usual before any request")
		}
		learn(t, b, f, 100, 20*time.Millisecond)
		if d := b.Usually(); d < 19*time.Millisecond || d > 22*time.Millisecond {
			t.Errorf("%s is usual", d)
		}

		f.Plan(faulty.Nth(1, faulty.Fault{Stall: true}))
		start := time.Now()
		got, err := read(t.Context(), b, 0, 10)
		if err != nil || got != content || f.Count() != 2 || time.Since(start) > 30*time.Millisecond {
			t.Errorf("the first one stalls: %q, %v, %d requests, %s", got, err, f.Count(), time.Since(start))
		}
		b.running.Wait() // for ever, if nobody had cancelled it

		// The second one is late as well: the first wins. Its body comes with the other's.
		f.Reset()
		f.Plan(faulty.FirstOf(faulty.Nth(1, faulty.Fault{Latency: 50 * time.Millisecond}), faulty.Nth(1, faulty.Fault{Stall: true})))
		start = time.Now()
		if got, err = read(t.Context(), b, 0, 10); err != nil || got != content || f.Count() != 2 || time.Since(start) != 50*time.Millisecond {
			t.Errorf("the second one stalls: %q, %v, %d requests, %s", got, err, f.Count(), time.Since(start))
		}
		b.running.Wait()
		if n := testutil.ToFloat64(b.metrics.hedges.WithLabelValues(objstore.OpGetRange)); n != 2 {
			t.Errorf("%v hedges counted", n)
		}
		if n := testutil.ToFloat64(b.metrics.hedgesWon.WithLabelValues(objstore.OpGetRange)); n != 1 {
			t.Errorf("%v hedges won", n)
		}

		// A first one that fails while there is a second does not end it.
		f.Reset()
		f.Plan(faulty.FirstOf(
			faulty.Nth(1, faulty.Fault{Latency: 40 * time.Millisecond, Err: faulty.ErrUnavailable}),
			faulty.Nth(1, faulty.Fault{Latency: 60 * time.Millisecond}),
		))
		if got, err = read(t.Context(), b, 0, 10); err != nil || got != content || f.Count() != 2 {
			t.Errorf("the first one fails late: %q, %v, %d requests", got, err, f.Count())
		}

		// Whoever goes takes both along.
		f.Plan(faulty.Always(faulty.Fault{Stall: true}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := read(ctx, b, 0, 10); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		b.running.Wait()
	})
}

// Shows that second requests are never more than one in twenty requests, whatever the storage does, and that a body that
// comes in spite of its cancellation is closed.
//
// Mutant seen killed: an allowance that earns without a bound.
func TestHedgesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f := over(t)
		learn(t, b, f, 100, 10*time.Millisecond)
		n := 100
		for round := range 300 {
			d := time.Duration(10+round%200) * time.Millisecond // ever later, and quick again
			f.Plan(faulty.Sometimes(uint64(round), 0.8, faulty.Fault{Latency: d}))
			if got, err := read(t.Context(), b, 0, 10); err != nil || got != content {
				t.Fatal(got, err)
			}
			n++
			if extra := f.Count() - (n - 100); extra > n/hedgePart {
				t.Fatalf("%d second requests of %d", extra, n)
			}
		}
		hedges := testutil.ToFloat64(b.metrics.hedges.WithLabelValues(objstore.OpGetRange))
		if got := float64(f.Count() + 100 - n); got != hedges || hedges < 5 || testutil.ToFloat64(b.metrics.hedgesWithheld.WithLabelValues(objstore.OpGetRange)) == 0 {
			t.Errorf("%v hedges counted, %v seen", hedges, got)
		}

		// After a long good time there is a burst, and no more.
		learn(t, b, f, 2000, 10*time.Millisecond)
		f.Plan(faulty.Always(faulty.Fault{Latency: time.Second}))
		for range 2 * hedgeBurst {
			if _, err := b.Exists(t.Context(), "a/1"); err != nil {
				t.Fatal(err)
			}
			_, _ = read(t.Context(), b, 0, 10)
		}
		if extra := f.Count() - 4*hedgeBurst; extra > hedgeBurst+4*hedgeBurst/hedgePart {
			t.Errorf("%d second requests at once", extra)
		}
	})
}

// stubborn minds no cancellation.
type stubborn struct{ objstore.Bucket }

func (s stubborn) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	return s.Bucket.GetRange(context.WithoutCancel(ctx), name, off, length)
}

// Shows that nobody waits for a loser that can't be cancelled, but for Close, and that its body is closed.
func TestStubbornLoser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inmem := objstore.NewInMemBucket()
		if err := inmem.Upload(t.Context(), "a/1", strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		f := faulty.New(inmem)
		b := New(objstore.WrapWithMetrics(stubborn{f}, nil, "test"), nil)
		learn(t, b, f, 100, 20*time.Millisecond)
		f.Plan(faulty.Nth(1, faulty.Fault{Latency: time.Minute}))
		start := time.Now()
		if got, err := read(t.Context(), b, 0, 10); err != nil || got != content || time.Since(start) > 100*time.Millisecond {
			t.Errorf("%q, %v after %s", got, err, time.Since(start))
		}
		if err := b.Close(); err != nil || time.Since(start) < time.Minute || f.OpenBodies() != 0 {
			t.Errorf("%v after %s, %d bodies open", err, time.Since(start), f.OpenBodies())
		}
	})
}

// Shows that views for errors that are expected share what is learned, and that the bucket's metrics count each attempt.
func TestViews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inmem := objstore.NewInMemBucket()
		if err := inmem.Upload(t.Context(), "a/1", bytes.NewReader([]byte(content))); err != nil {
			t.Fatal(err)
		}
		f := faulty.New(inmem)
		reg := prometheus.NewRegistry()
		b := New(objstore.WrapWithMetrics(f, reg, "test"), nil)
		f.Plan(faulty.Until(2, faulty.Fault{Err: faulty.ErrUnavailable}))
		if got, err := read(t.Context(), b.ReaderWithExpectedErrs(func(error) bool { return true }), 0, 10); err != nil || got != content {
			t.Fatal(got, err)
		}
		if _, err := b.Exists(t.Context(), "a/1"); err != nil {
			t.Fatal(err)
		}
		f.Plan(faulty.Until(1, faulty.Fault{Err: faulty.ErrUnavailable}))
		if _, err := b.Exists(t.Context(), "a/1"); err != nil {
			t.Fatal(err)
		}
		const want = `
# HELP objstore_bucket_operation_failures_total Total number of operations against a bucket that failed, but were not expected to fail in certain way from caller perspective. Those errors have to be investigated.
# TYPE objstore_bucket_operation_failures_total counter
objstore_bucket_operation_failures_total{bucket="test",operation="attributes"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="delete"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="exists"} 1
objstore_bucket_operation_failures_total{bucket="test",operation="get"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="get_range"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="iter"} 0
objstore_bucket_operation_failures_total{bucket="test",operation="upload"} 0
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "objstore_bucket_operation_failures_total"); err != nil {
			t.Error(err)
		}
	})
}

// Tells what a request costs here beside an answer from memory.
func BenchmarkGetRange(b *testing.B) {
	inmem := objstore.NewInMemBucket()
	if err := inmem.Upload(b.Context(), "a/1", strings.NewReader(content)); err != nil {
		b.Fatal(err)
	}
	plain := objstore.WrapWithMetrics(inmem, nil, "test")
	for name, bkt := range map[string]objstore.BucketReader{"plain": plain, "resilient": New(plain, nil)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := read(b.Context(), bkt, 0, 10); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
