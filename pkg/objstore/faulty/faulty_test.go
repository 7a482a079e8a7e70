package faulty

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/thanos-io/objstore"
)

func inner(t *testing.T) *objstore.InMemBucket {
	t.Helper()
	bkt := objstore.NewInMemBucket()
	for _, name := range []string{"a/1", "a/2", "b/1"} {
		if err := bkt.Upload(t.Context(), name, strings.NewReader("0123456789")); err != nil {
			t.Fatal(err)
		}
	}
	return bkt
}

func read(t *testing.T, b *Bucket, name string) (string, error) {
	t.Helper()
	r, err := b.Get(t.Context(), name)
	if err != nil {
		return "", err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	return string(content), err
}

// Shows what each fault does to a body.
func TestBodies(t *testing.T) {
	b := New(inner(t))
	f := func(fault Fault, want string, wantErr error) {
		t.Helper()
		b.Plan(Always(fault))
		got, err := read(t, b, "a/1")
		if got != want || !errors.Is(err, wantErr) {
			t.Errorf("%+v: %q, %v; want %q, %v", fault, got, err, want, wantErr)
		}
	}
	own := errors.New("own")
	f(Fault{}, "0123456789", nil)
	f(Fault{Err: ErrUnavailable}, "", ErrUnavailable)
	f(Fault{Cut: 4}, "0123", io.ErrUnexpectedEOF)
	f(Fault{Cut: -1}, "", io.ErrUnexpectedEOF)
	f(Fault{Cut: 4, CutErr: io.EOF}, "0123", nil)
	f(Fault{Cut: 100}, "0123456789", nil)
	f(Fault{Cut: 4, CutErr: own}, "0123", own)
	f(Fault{Flip: 1}, "\xcf123456789", nil)
	f(Fault{Flip: 10}, "012345678\xc6", nil)
	if n := b.OpenBodies(); n != 0 {
		t.Errorf("%d bodies open", n)
	}
}

// Shows that a request reported as failed was done all the same, and one refused was not.
func TestDoneThoughFailed(t *testing.T) {
	in := inner(t)
	b := New(in)
	b.Plan(FirstOf(Named(Always(Fault{Err: ErrUnavailable, Done: true}), "stored"), On(Always(Fault{Err: ErrUnavailable}), Upload), On(Nth(2, Fault{Err: ErrUnavailable, Done: true}), Delete)))
	for _, name := range []string{"stored", "refused"} {
		if err := b.Upload(t.Context(), name, strings.NewReader(name)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.Delete(t.Context(), "a/1"); err != nil {
		t.Error(err)
	}
	if err := b.Delete(t.Context(), "a/2"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("deletion: %v", err)
	}
	got := map[string]bool{}
	for name := range in.Objects() {
		got[name] = true
	}
	if d := cmp.Diff(map[string]bool{"b/1": true, "stored": true}, got); d != "" {
		t.Errorf("what is there (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]Call{
		{Op: Upload, Name: "stored", Number: 1, OpNumber: 1}, {Op: Upload, Name: "refused", Number: 2, OpNumber: 2},
		{Op: Delete, Name: "a/1", Number: 3, OpNumber: 1}, {Op: Delete, Name: "a/2", Number: 4, OpNumber: 2},
	}, b.Calls()); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	if b.Count() != 4 || b.Count(Upload) != 2 || b.Count(Upload, Delete) != 4 {
		t.Error("counted wrong")
	}
	b.Reset()
	if b.Count() != 0 || len(b.Calls()) != 0 {
		t.Error("not reset")
	}
}

// Shows which requests the plans choose.
func TestPlans(t *testing.T) {
	fault := Fault{Err: ErrUnavailable}
	f := func(p Plan, want string) {
		t.Helper()
		got := ""
		for range 6 {
			if p(Call{}) == fault {
				got += "x"
			} else {
				got += "."
			}
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f(Always(fault), "xxxxxx")
	f(Nth(2, fault), ".x....")
	f(Until(2, fault), "xx....")
	f(After(2, fault), "..xxxx")
	f(Sometimes(1, 0, fault), "......")
	f(Sometimes(1, 1, fault), "xxxxxx")
	f(Sometimes(3, 0.5, fault), func() string {
		again, s := Sometimes(3, 0.5, fault), ""
		for range 6 {
			if again(Call{}) == fault {
				s += "x"
			} else {
				s += "."
			}
		}
		return s
	}())
}

// Shows that waiting costs the time that it says, and ends with the context; listings break off.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(inner(t))
		b.Plan(Always(Fault{Latency: time.Second, BodyLatency: time.Second}))
		start := time.Now()
		if _, err := read(t, b, "a/1"); err != nil || time.Since(start) < 2*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		for _, fault := range []Fault{{Latency: time.Hour}, {Stall: true}} {
			b.Plan(Always(fault))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := b.Exists(ctx, "a/1"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%+v: %v", fault, err)
			}
			cancel()
		}
		b.Plan(Always(Fault{Cut: 1}))
		n := 0
		if err := b.Iter(t.Context(), "", func(string) error { n++; return nil }); !errors.Is(err, io.ErrUnexpectedEOF) || n != 1 {
			t.Errorf("%d entries, %v", n, err)
		}
	})
}
