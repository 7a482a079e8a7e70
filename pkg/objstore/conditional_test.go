package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-kit/log"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/objstore/faulty"
)

// s3Bucket opens a bucket below a prefix on an S3 server in this process; wrap may stand before the server.
func s3Bucket(t *testing.T, wrap func(http.Handler) http.Handler) (objstore.Bucket, *prometheus.Registry) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("blocks"); err != nil {
		t.Fatal(err)
	}
	h := gofakes3.New(backend).Server()
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	reg := prometheus.NewRegistry()
	bkt, err := New(log.NewNopLogger(), []byte(s3Config(srv.URL)), reg, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bkt.Close() })
	return bkt, reg
}

func s3Config(url string) string {
	return "type: S3\nconfig:\n  bucket: blocks\n  endpoint: " + strings.TrimPrefix(url, "http://") +
		"\n  access_key: key\n  secret_key: secret\n  insecure: true\n  region: us-east-1\n  max_retries: 1\nprefix: p"
}

// exerciseConditional shows what Conditional promises: one of many writers wins each round, and nobody who was refused
// has written.
//
// Mutants seen killed: versions are not compared; a file is renamed in place of linked.
func exerciseConditional(t *testing.T, bkt objstore.Bucket) {
	c, err := ConditionalOf(bkt)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, _, err := c.Read(ctx, "leases/a"); !bkt.IsObjNotFoundErr(err) {
		t.Errorf("read what is not there: %v", err)
	}
	if _, err := c.Replace(ctx, "leases/a", "some version", []byte("x")); !errors.Is(err, ErrChanged) {
		t.Errorf("replace what is not there: %v", err)
	}
	first, err := c.Create(ctx, "leases/a", []byte("mine"))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Create(ctx, "leases/a", []byte("mine")); err != nil || again != first {
		t.Errorf("the same again: %v, %v", again, err)
	}
	if _, err := c.Create(ctx, "leases/a", []byte("theirs")); !errors.Is(err, ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if b, v, err := c.Read(ctx, "leases/a"); err != nil || string(b) != "mine" || v != first {
		t.Errorf("read %q, %q, %v", b, v, err)
	}
	second, err := c.Replace(ctx, "leases/a", first, []byte("mine, renewed"))
	if err != nil || second == first {
		t.Fatal(second, err)
	}
	if _, err := c.Replace(ctx, "leases/a", first, []byte("late")); !errors.Is(err, ErrChanged) {
		t.Errorf("replaced an old version: %v", err)
	}
	if _, err := c.Create(ctx, "leases/b", make([]byte, ConditionalBytesMax+1)); err == nil {
		t.Error("wrote too much")
	}
	if got := get(t, bkt, "leases/a", 0, -1); got != "mine, renewed" {
		t.Errorf("read %q", got)
	}
	if err := CheckConditional(ctx, bkt, "leases"); err != nil {
		t.Error(err)
	}

	const writers, rounds = 8, 10
	var wg sync.WaitGroup
	var won [rounds + 1]atomic.Int32
	for w := range writers {
		wg.Go(func() {
			if _, err := c.Create(ctx, "leases/race", []byte(fmt.Sprint("0 ", w))); err == nil {
				won[0].Add(1)
			} else if !errors.Is(err, ErrExists) {
				t.Error(err)
			}
			for round := 1; round <= rounds; {
				b, v, err := c.Read(ctx, "leases/race")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := fmt.Sscan(string(b), &round); err != nil {
					t.Error(err)
					return
				}
				if round++; round > rounds {
					return
				}
				if _, err := c.Replace(ctx, "leases/race", v, []byte(fmt.Sprint(round, " ", w))); err == nil {
					won[round].Add(1)
				} else if !errors.Is(err, ErrChanged) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for round := range won {
		if n := won[round].Load(); n != 1 {
			t.Errorf("round %d: %d won", round, n)
		}
	}
	for _, name := range list(t, bkt, "leases/") {
		if !strings.HasPrefix(name, "leases/a") && !strings.HasPrefix(name, "leases/race") {
			t.Errorf("left %s", name)
		}
	}
}

// Shows conditional writes to a file system, bare and as a config describes it.
func TestConditionalFilesystem(t *testing.T) {
	bare, err := NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	exerciseConditional(t, bare)
	for _, prefix := range []string{"", "/some/where/"} {
		bkt, err := New(log.NewNopLogger(), []byte("type: FILESYSTEM\nconfig: {directory: "+t.TempDir()+"}\nprefix: "+prefix), nil, "test")
		if err != nil {
			t.Fatal(err)
		}
		exerciseConditional(t, bkt)
	}
	// Two buckets over one directory are two processes.
	dir := t.TempDir()
	var cs [2]Conditional
	for i := range cs {
		if cs[i], err = NewFilesystem(dir); err != nil {
			t.Fatal(err)
		}
	}
	v, err := cs[0].Create(t.Context(), "x", []byte("0"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var won atomic.Int32
	for i, c := range cs {
		wg.Go(func() {
			if _, err := c.Replace(t.Context(), "x", v, []byte(fmt.Sprint("writer ", i))); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d won", won.Load())
	}
}

// Shows conditional writes to an S3 server, that they are counted, and that being refused is no failure.
func TestConditionalS3(t *testing.T) {
	bkt, reg := s3Bucket(t, nil)
	exerciseConditional(t, bkt)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "operation" && m.GetCounter() != nil {
					counted[f.GetName()+" "+l.GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
	}
	for name, n := range counted {
		if strings.HasPrefix(name, "thanos_objstore_bucket_operation_failures_total") && n > 0 {
			t.Errorf("%s: %v", name, n)
		}
	}
	for _, op := range []string{"get", "upload"} {
		if counted["thanos_objstore_bucket_operations_total "+op] < 20 {
			t.Errorf("%s: %v operations", op, counted["thanos_objstore_bucket_operations_total "+op])
		}
	}
}

// Shows that a write whose answer is lost is known to be done, or not done, by what is there.
func TestConditionalS3LostAnswers(t *testing.T) {
	var lose atomic.Int32
	const before, after = 1, 2
	bkt, _ := s3Bucket(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPut || lose.Load() == 0 {
				h.ServeHTTP(w, r)
				return
			}
			if lose.Load() == after {
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusInternalServerError)
		})
	})
	c, err := ConditionalOf(bkt)
	if err != nil {
		t.Fatal(err)
	}
	lose.Store(before)
	if _, err := c.Create(t.Context(), "a", []byte("1")); err == nil || errors.Is(err, ErrExists) {
		t.Errorf("not done: %v", err)
	}
	lose.Store(after)
	v, err := c.Create(t.Context(), "a", []byte("1"))
	if err != nil {
		t.Fatalf("done: %v", err)
	}
	v2, err := c.Replace(t.Context(), "a", v, []byte("2"))
	if err != nil || v2 == v {
		t.Fatalf("done: %v", err)
	}
	lose.Store(0)
	if _, err := c.Replace(t.Context(), "a", v, []byte("3")); !errors.Is(err, ErrChanged) {
		t.Errorf("an old version: %v", err)
	}
}

// Shows that a server that passes over conditions is found out, and a provider without them says so.
func TestNotConditional(t *testing.T) {
	bkt, _ := s3Bucket(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("If-None-Match")
			r.Header.Del("If-Match")
			h.ServeHTTP(w, r)
		})
	})
	if err := CheckConditional(t.Context(), bkt, "leases"); !errors.Is(err, ErrNotConditional) {
		t.Errorf("error: %v", err)
	}
	if names := list(t, bkt, "leases/"); len(names) > 0 {
		t.Errorf("left %v", names)
	}
	if _, err := ConditionalOf(objstore.NewInMemBucket()); !errors.Is(err, ErrNotConditional) {
		t.Errorf("error: %v", err)
	}
	files, err := NewFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ConditionalOf(faulty.New(files)); err != nil {
		t.Errorf("through a wrapper: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := files.Create(ctx, "a", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}
