package bucketops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/block"
)

// failuresNamedMax bounds the blocks that the error at the end names; the log names all.
const failuresNamedMax = 10

// Progress is told how far a tool is: what it does, how much of it is done, and of how much. It may be called from
// several goroutines. Nil is nobody.
type Progress func(what string, done, total int)

// outcome collects what became of the blocks of a run. It may be used in parallel.
type outcome struct {
	what     string // "blocks verified"
	progress Progress
	logger   log.Logger

	mu     sync.Mutex
	total  int
	done   int
	failed []error
}

// fail notes that a block failed; the run goes on.
func (o *outcome) fail(id ulid.ULID, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = append(o.failed, fmt.Errorf("block %s: %w", id, err))
	_ = level.Error(o.logger).Log("msg", "block failed, the others go on", "block", id, "err", err)
}

// failView notes the blocks whose metadata could not be read.
func (o *outcome) failView(v block.View) {
	for id, err := range v.Failed {
		if v.Metas[id] == nil {
			o.fail(id, err)
		}
	}
}

// each calls f for the blocks, so many at a time; what fails for one does not keep others from it.
func (o *outcome) each(ctx context.Context, concurrency int, ids []ulid.ULID, f func(ctx context.Context, id ulid.ULID) error) {
	o.mu.Lock()
	o.total += len(ids)
	o.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(max(concurrency, 1))
	for _, id := range ids {
		g.Go(func() error {
			if ctx.Err() == nil {
				if err := f(ctx, id); err != nil && ctx.Err() == nil {
					o.fail(id, err)
				}
			}
			o.step()
			return nil
		})
	}
	_ = g.Wait()
}

func (o *outcome) step() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.done++
	if o.progress != nil {
		o.progress(o.what, o.done, o.total)
	}
}

// err is what to end with: nil if all went well, else how many failed and the first of them.
func (o *outcome) err(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(o.failed) == 0 {
		return nil
	}
	named := slices.Clone(o.failed[:min(len(o.failed), failuresNamedMax)])
	return fmt.Errorf("%s: %d failed: %w", o.what, len(o.failed), errors.Join(named...))
}

func idsOf(ms []*block.Meta) []ulid.ULID {
	ids := make([]ulid.ULID, len(ms))
	for i, m := range ms {
		ids[i] = m.ULID
	}
	return ids
}
