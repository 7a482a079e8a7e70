package components

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/go-kit/log"
)

// When something ends the process, servers drain first, while loops still run; then loops end; then
// what was opened is closed, last opened first; and the cause is the error of the process.
func TestOrderOfTheEnd(t *testing.T) {
	var mtx sync.Mutex
	var order []string
	note := func(what string) {
		mtx.Lock()
		defer mtx.Unlock()
		order = append(order, what)
	}
	cause := errors.New("disk is full")
	fail := make(chan struct{})
	p := newProcess("query", &flags{}, log.NewNopLogger())
	build := func(p *process) error {
		p.close(func() error { note("first closed"); return nil })
		p.close(func() error { note("second closed"); return errors.New("is logged") })
		looping := make(chan struct{})
		p.loop(func(ctx context.Context) error {
			close(looping)
			<-ctx.Done()
			note("loop")
			return nil
		})
		p.loop(func(ctx context.Context) error {
			select {
			case <-fail:
				return cause
			case <-ctx.Done():
				return nil
			}
		})
		p.probe.Ready()
		p.serve(func(ctx context.Context) error {
			<-looping
			close(fail)
			<-ctx.Done()
			if p.probe.IsReady() {
				t.Error("ready while draining")
			}
			note("server")
			return nil
		})
		p.serve(func(ctx context.Context) error { <-ctx.Done(); note("server"); return nil })
		return nil
	}
	if err := p.main(&globals{}, build); !errors.Is(err, cause) {
		t.Errorf("ended with %v", err)
	}
	if want := []string{"server", "server", "loop", "second closed", "first closed"}; !slices.Equal(order, want) {
		t.Errorf("order %v: want %v", order, want)
	}
}

// A server that can't serve ends the process; what was opened is closed also when building fails.
func TestFailures(t *testing.T) {
	cause := errors.New("no port")
	p := newProcess("query", &flags{}, log.NewNopLogger())
	err := p.main(&globals{}, func(p *process) error {
		p.serve(func(context.Context) error { return cause })
		p.serve(func(ctx context.Context) error { <-ctx.Done(); return nil })
		p.loop(func(ctx context.Context) error { <-ctx.Done(); return nil })
		return nil
	})
	if !errors.Is(err, cause) {
		t.Errorf("server: %v", err)
	}
	closed := false
	p = newProcess("query", &flags{}, log.NewNopLogger())
	err = p.main(&globals{}, func(p *process) error {
		p.close(func() error { closed = true; return nil })
		return cause
	})
	if !errors.Is(err, cause) || !closed {
		t.Errorf("build: %v, closed %v", err, closed)
	}
}
