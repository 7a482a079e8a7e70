package fanout

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-kit/log/level"

	"github.com/koios-metrics/koios/pkg/store"
)

// part is the cursor over what one Store is asked for, whoever delivers it in the end. When the Store fails,
// a standby goes on from the last labels handed out; when it is late, a standby is asked too, and the first
// to have something is kept. What nobody delivers is a loss, which the whole answer is judged by.
//
// The reader's goroutine pulls the attempt that stands. Another attempt runs in the background at most, and
// takes over by ending the reader's wait.
type part struct {
	run      *run
	target   *target
	standbys []standby // that have not failed
	combined bool      // those that hold a part have been put together
	tries    int       // attempts so far
	dog      *watchdog

	pos     position
	tracked bool // pos is kept: somebody could take over

	used     []*target      // that have delivered
	others   store.Warnings // of attempts that are over
	primed   bool           // the first series has been asked for ahead of Next
	first    bool           // …and this is what came of it
	seen     bool           // a series has come
	ended    bool
	complete bool // ended by itself, and without doubts
	lost     *loss
	err      error // why the request failed
	sketch   *sketch

	mu    sync.Mutex // guards what the background reads and writes
	now   *attempt   // the one that stands
	extra *attempt   // the one in the background
	wg    sync.WaitGroup
}

// loss is what a request does not get: all or the rest of what a target holds for it.
type loss struct {
	target *target
	cause  error
	err    error // the cause, and what was done
}

func (r *run) newPart(o order) *part {
	p := &part{run: r, target: o.target, standbys: o.standbys, tracked: len(o.standbys) > 0}
	p.now = p.attempt(standby{o.target, true})
	return p
}

// triesMax bounds the attempts at one part.
const triesMax = 8

func (p *part) attempt(s standby) *attempt {
	p.tries++
	a := &attempt{standby: s, of: p.run.of, req: p.run.req, started: time.Now()}
	a.ctx, a.cancel = context.WithCancelCause(p.run.ctx)
	return a
}

// open asks for the first series.
func (p *part) open() {
	pa := p.run.patience
	if p.hasFull() || p.partial() > 1 {
		pa.hedge = p.run.of.pace.delay(p.run.size)
		p.run.of.pace.earn()
	}
	p.dog = newWatchdog(pa, p.hedge, p.late)
	p.primed, p.first = true, p.move()
	if p.err == nil && p.lost == nil && !p.target.rest {
		p.run.of.pace.note(p.run.size, time.Since(p.now.started))
	}
}

func (p *part) hasFull() bool {
	return slices.ContainsFunc(p.standbys, func(s standby) bool { return s.full })
}

// partial is how many standbys hold a part of what the target does.
func (p *part) partial() (n int) {
	for _, s := range p.standbys {
		if !s.full {
			n++
		}
	}
	return n
}

// combine puts those together, if they are needed; the caller holds mu.
func (p *part) combine() {
	if p.combined || p.hasFull() || p.partial() < 2 {
		return
	}
	p.combined = true
	p.standbys = combine(p.target, p.standbys)
}

// Next implements store.Cursor.
func (p *part) Next() bool {
	if p.primed {
		p.primed = false
		return p.first
	}
	return !p.ended && p.move()
}

// move moves to the next series.
func (p *part) move() bool {
	if p.seen {
		p.passed()
	}
	a := p.now
	wait := p.dog.begin(p.inVain())
	ok := a.next()
	if p.dog.end(wait) {
		if ok || a.err == nil {
			p.dropExtra()
		}
	} else {
		p.run.of.overtaken(a.target)
		p.leave(a)
		p.mu.Lock()
		p.restore(a)
		p.mu.Unlock()
		a = p.takeExtra()
		ok = a.ok
	}
	for !ok && a.err != nil {
		next := p.instead(a)
		if next == nil {
			p.ended = true
			return false
		}
		a, ok = next, next.ok
	}
	p.stand(a)
	if ok {
		p.seen = true
		return true
	}
	p.finish(a)
	return false
}

// passed takes note of the current series before it is left.
func (p *part) passed() {
	if p.sketch != nil {
		p.sketch.add(p.now.at().Labels)
	}
	if p.tracked {
		p.mu.Lock()
		p.pos.pass(p.now.at())
		p.mu.Unlock()
	}
}

// inVain is how many waits of the merge were in vain: time in which a Store that sends ahead could get ready.
func (p *part) inVain() int64 {
	if p.target.desc.Local {
		return 0
	}
	return p.run.inVain.Load()
}

// stand makes an attempt the one to pull from.
func (p *part) stand(a *attempt) {
	if n := len(p.used); n == 0 || p.used[n-1] != a.target {
		p.used = append(p.used, a.target)
	}
	p.mu.Lock()
	p.now = a
	p.mu.Unlock()
}

// leave lets go of an attempt that others follow.
func (p *part) leave(a *attempt) {
	p.others = append(p.others, a.warnings()...)
	a.left = true
	_ = a.close()
}

// late ends a wait that lasts too long.
func (p *part) late(wait uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dog.during(wait) {
		return
	}
	if p.run.merging.Load() {
		p.run.inVain.Add(1)
	}
	p.now.cancel(err)
}

// hedge asks a standby that holds the same, while the reader still waits.
func (p *part) hedge(wait uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.extra != nil || !p.dog.during(wait) {
		return
	}
	p.combine()
	if !p.hasFull() || !p.run.of.pace.spend() {
		return
	}
	p.run.of.metrics.hedges.Inc()
	p.launch(func(a *attempt) {
		if a.err == nil && p.dog.end(wait) {
			p.now.cancel(errOvertaken) // the reader does not let go of it before a is done
		}
	})
}

// launch tries the next standby in the background, rather one that holds all; the caller holds mu.
func (p *part) launch(then func(*attempt)) {
	i := max(0, slices.IndexFunc(p.standbys, func(s standby) bool { return s.full }))
	a := p.attempt(p.standbys[i])
	p.standbys = slices.Concat(p.standbys[:i], p.standbys[i+1:])
	if p.pos.any {
		from := p.pos
		from.chunks = slices.Clone(from.chunks)
		a.from = &from
	}
	a.done = make(chan struct{})
	p.extra = a
	p.wg.Go(func() {
		defer close(a.done)
		a.ok = a.next()
		then(a)
	})
}

// takeExtra waits for the attempt in the background, and takes it over.
func (p *part) takeExtra() *attempt {
	p.mu.Lock()
	a := p.extra
	p.extra = nil
	p.mu.Unlock()
	<-a.done
	return a
}

// restore makes a standby again of one who was slower than another: it has not failed. The caller holds mu.
func (p *part) restore(a *attempt) {
	if p.tries < triesMax {
		p.standbys = append(p.standbys, a.standby)
	}
}

// dropExtra lets go of the attempt in the background: it is not needed.
func (p *part) dropExtra() {
	if !p.tracked {
		return
	}
	p.mu.Lock()
	a := p.extra
	p.extra = nil
	if a == nil {
		p.mu.Unlock()
		return
	}
	select {
	case <-a.done:
		if a.err == nil {
			p.restore(a)
		}
	default:
		p.restore(a)
	}
	p.mu.Unlock()
	a.cancel(errClosed)
	p.wg.Go(func() {
		<-a.done
		_ = a.close()
	})
}

// instead returns the attempt to go on with after one that failed, at its first series or its end; nil if
// there is none, so that the part is lost.
func (p *part) instead(failed *attempt) *attempt {
	err, doing := failed.failed(), failed.doing()
	p.leave(failed)
	if p.run.ctx.Err() != nil {
		p.err = context.Cause(p.run.ctx)
		return nil
	}
	p.run.of.pace.blame(failed.target.desc.Name, troubleFailed)
	if p.lost == nil {
		p.lost = &loss{p.target, err, fmt.Errorf("%s series: %w", doing, err)}
		level.Debug(p.run.of.logger).Log("msg", "a store does not answer a request", "store", p.target.desc.Name, "err", p.lost.err)
	}
	switch store.KindOf(err) {
	case store.KindBadRequest, store.KindLimit:
		// Others would say the same, or do what this one was not allowed to.
		p.dropExtra()
		p.standbys = nil
		p.lose()
		return nil
	}
	p.mu.Lock()
	if p.extra == nil {
		if len(p.standbys) == 0 {
			p.mu.Unlock()
			p.lose()
			return nil
		}
		p.combine()
		p.run.of.metrics.takeovers.Inc()
		p.launch(func(*attempt) {})
	}
	a := p.extra
	p.mu.Unlock()

	limit, late := p.run.patience.allowed(time.Now(), 0)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-a.done:
	case <-timer.C:
		a.cancel(late)
	}
	return p.takeExtra()
}

// lose ends the request if it wants all or nothing and nobody can make up for the loss.
func (p *part) lose() {
	if p.err == nil && p.run.abort {
		p.err = p.run.certain(p.lost)
	}
}

// finish is called at the end of what a has.
func (p *part) finish(a *attempt) {
	p.ended = true
	doubts := slices.Concat(p.others, a.warnings()).Doubts()
	if p.run.abort && len(doubts) > 0 {
		p.lost = &loss{p.target, doubts[0], doubts[0]}
		p.lose()
		return
	}
	p.complete = len(doubts) == 0
	if p.lost != nil && len(within(p.target.needs.list, a.target.needs.list)) == len(p.target.needs.list) && (a.target == p.target || a.target.desc.OnlyBlocks) {
		p.lost = nil // made up for
	}
	if !p.seen && len(a.warnings()) == 0 && !p.target.rest {
		p.run.of.metrics.emptyStreams.Inc()
	}
}

func (p *part) At() *store.Series   { return p.now.at() }
func (p *part) Keep() *store.Series { return p.now.keep() }
func (p *part) Err() error          { return p.err }

// Warnings returns those of the Stores. What is lost is told by the whole answer.
func (p *part) Warnings() store.Warnings {
	if p.ended && p.lost != nil && p.run.abort {
		return nil // told by the error, or made up for by others
	}
	return slices.Concat(p.others, p.now.warnings())
}

func (p *part) Close() error {
	p.dog.stop()
	p.dropExtra()
	err := p.now.close()
	p.wg.Wait()
	return err
}
