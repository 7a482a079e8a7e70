package stream

import (
	"context"
	"sync"
)

// Ordered moves items through three steps: produce fills one after the other, several workers work on them at
// once, and consume gets them in the order in which they were produced. There are depth items, used again and again; that
// bounds what is under way.
//
// Produce returns false when there is no more; it and consume are each called by one goroutine at a time. The first
// error, or the end of the context, ends all steps; Ordered returns when all have ended.
func Ordered[T any](ctx context.Context, workers, depth int, items func() *T,
	produce func(*T) (bool, error), work func(*T) error, consume func(*T) error,
) error {
	type slot struct {
		item *T
		done chan error
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		free  = make(chan *slot, depth)
		jobs  = make(chan *slot, depth)
		order = make(chan *slot, depth)
		wg    sync.WaitGroup
	)
	for range depth {
		free <- &slot{item: items(), done: make(chan error, 1)}
	}
	wg.Go(func() {
		defer close(order)
		defer close(jobs)
		for {
			var s *slot
			select {
			case s = <-free:
			case <-ctx.Done():
				return
			}
			more, err := produce(s.item)
			if err != nil {
				cancel(err)
				return
			}
			if !more {
				return
			}
			jobs <- s // as long as there are slots, there is room
			order <- s
		}
	})
	for range workers {
		wg.Go(func() {
			for s := range jobs {
				if ctx.Err() != nil {
					s.done <- ctx.Err()
					continue
				}
				s.done <- work(s.item)
			}
		})
	}
	for s := range order {
		err := <-s.done
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = consume(s.item)
		}
		if err != nil {
			cancel(err)
			break
		}
		free <- s
	}
	// Slots that are still under way are let go; there is room for all of them in every channel.
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}
