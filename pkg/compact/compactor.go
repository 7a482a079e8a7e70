package compact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// marksConcurrency bounds the steps that write marks only.
const marksConcurrency = 8

// stage admits so many at a time.
type stage chan struct{}

func newStage(n int) stage { return make(stage, n) }

func (s stage) enter(ctx context.Context) (leave func(), err error) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Compactor works on a bucket. Any number of them may work on one.
//
// Merges go through three stages, download, work and upload, each of which admits Config.Concurrency at a time; twice as
// many merges are under way, so that one is copied while another is merged.
type Compactor struct {
	bkt     objstore.Bucket
	cfg     Config
	logger  log.Logger
	metrics *metrics

	eyes                                   *eyes
	failures                               failures
	leases                                 *leases              // made by the first pass
	leased                                 map[string]time.Time // until when steps are left to others; used by pass only
	scratch                                *budget
	downloads, work, uploads, downsampling stage
	retryAfter                             time.Duration

	mu       sync.Mutex
	running  map[string]running
	groups   []*Group // as last planned
	planned  []Step
	progress time.Time // when something last went on, or there was nothing to do
	pace     pace
	pending  atomic.Bool
	stopped  atomic.Bool
}

// running is a step under way.
type running struct {
	Step  Step      `json:"step"`
	Since time.Time `json:"since"`
	bytes int64     // of the inputs
}

// New makes a Compactor. It empties its working directory; nothing is asked of the bucket yet.
func New(bkt objstore.Bucket, cfg Config, logger log.Logger, reg prometheus.Registerer) (*Compactor, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := errors.Join(os.RemoveAll(cfg.workDir()), os.MkdirAll(cfg.workDir(), 0o777)); err != nil {
		return nil, fmt.Errorf("empty working directory: %w", err)
	}
	e, err := newEyes(bkt, &cfg, logger, reg)
	if err != nil {
		return nil, err
	}
	c := &Compactor{
		bkt: bkt, cfg: cfg, logger: logger, metrics: newMetrics(reg), eyes: e,
		scratch:   newBudget(cfg.ScratchBytesMax),
		downloads: newStage(cfg.Concurrency + cfg.DownsampleConcurrency), work: newStage(cfg.Concurrency),
		uploads: newStage(cfg.Concurrency + cfg.DownsampleConcurrency), downsampling: newStage(cfg.DownsampleConcurrency),
		retryAfter: 2 * time.Second, running: map[string]running{}, leased: map[string]time.Time{}, progress: cfg.Now(),
	}
	c.metrics.deleteDelay.Set(cfg.DeleteDelay.Seconds())
	c.metrics.consistencyDelay.Set(cfg.ConsistencyDelay.Seconds())
	c.metrics.lastProgress.Set(float64(c.progress.Unix()))
	return c, nil
}

// FailedError names what could not be done.
type FailedError struct{ Failures []Failure }

// Error implements error.
func (e *FailedError) Error() string {
	parts := make([]string, len(e.Failures))
	for i, f := range e.Failures {
		parts[i] = fmt.Sprintf("%s: %s", f.Key, f.Cause)
	}
	return fmt.Sprintf("%d steps failed, everything else is done: %s", len(parts), strings.Join(parts, "; "))
}

// RunOnce does everything there is to do, once, and returns a *FailedError if a part of it could not be done.
func (c *Compactor) RunOnce(ctx context.Context) error {
	if err := c.pass(ctx); err != nil {
		return err
	}
	cleanErr := c.Clean(ctx)
	failed := c.failures.list()
	for _, g := range c.stuck() {
		failed = append(failed, Failure{Key: g.Key, Cause: g.Stuck, Parked: true})
	}
	if len(failed) > 0 {
		slices.SortFunc(failed, func(a, b Failure) int { return strings.Compare(a.Key, b.Key) })
		return errors.Join(&FailedError{failed}, cleanErr)
	}
	return cleanErr
}

// Run works until the context ends. Compaction and downsampling, cleaning, and counting are loops of their own.
func (c *Compactor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		c.loop(ctx, c.cfg.CleanupInterval, func() {
			if err := c.Clean(ctx); err != nil && ctx.Err() == nil {
				_ = level.Warn(c.logger).Log("msg", "cleaning: trying again later", "err", err)
			}
		})
	})
	wg.Go(func() { c.loop(ctx, c.cfg.ProgressInterval, c.count) })
	c.loop(ctx, c.cfg.WaitInterval, func() {
		if err := c.pass(ctx); err != nil && ctx.Err() == nil {
			c.metrics.retries.Inc()
			_ = level.Warn(c.logger).Log("msg", "pass over the bucket ended early: trying again later", "err", err)
		}
	})
	wg.Wait()
	return nil
}

// loop calls f at once and then from time to time; an interval of 0 is never.
func (c *Compactor) loop(ctx context.Context, interval time.Duration, f func()) {
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// outcome is how a step ended.
type outcome struct {
	st  Step
	err error
}

// pass looks at the bucket and works until there is nothing left that need not wait. As steps end, new ones are
// planned: nobody waits for the slowest.
func (c *Compactor) pass(ctx context.Context) error {
	if err := c.eyes.look(ctx); err != nil {
		return err
	}
	if err := c.examine(ctx); err != nil && ctx.Err() == nil {
		_ = level.Warn(c.logger).Log("msg", "blocks that are bad or were mended: trying again later", "err", err)
	}
	if c.leases == nil {
		c.setLeases(c.newLeases(ctx))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan outcome)
	under := map[string]Step{}
	busy := map[ulid.ULID]bool{}
	lookAgain := false
	for {
		if lookAgain && ctx.Err() == nil {
			lookAgain = false
			if err := c.eyes.look(ctx); err != nil {
				_ = level.Warn(c.logger).Log("msg", "going on with what is known", "err", err)
			}
		}
		if ctx.Err() == nil && !c.stopped.Load() {
			for _, st := range c.next(under, busy) {
				c.start(ctx, st, under, busy, done)
			}
		}
		if len(under) == 0 {
			break
		}
		o := <-done
		lookAgain = c.finish(ctx, o, under, busy) || lookAgain
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.metrics.iterations.Inc()
	return nil
}

// next plans, and returns the steps that may begin now.
func (c *Compactor) next(under map[string]Step, busy map[ulid.ULID]bool) (steps []Step) {
	blocks, _, _ := c.eyes.seen()
	now := c.cfg.Now()
	p := Plan(blocks, c.cfg.Settings, now, c.failures.plannedAround)
	planned := map[string]bool{}
	counts := map[Kind]int{}
	for _, st := range under {
		counts[st.Kind]++
	}
	pending := false
	for _, st := range p.Steps {
		planned[st.Key()] = true
		if c.failures.waits(st, now) {
			pending = true
			continue
		}
		if now.Before(c.leased[stepID(st)]) || busy[st.Cover] || slices.ContainsFunc(st.Inputs, func(id ulid.ULID) bool { return busy[id] }) {
			continue
		}
		pending = true
		if counts[st.Kind] >= c.limit(st.Kind) {
			continue
		}
		counts[st.Kind]++
		steps = append(steps, st)
	}
	for _, g := range p.Groups {
		if c.failures.plannedAround(g.Key) {
			planned[g.Key] = true
		}
	}
	c.failures.keep(planned, now)
	working := map[string]bool{}
	for _, st := range p.Steps {
		if st.Kind == KindMerge || st.Kind == KindDownsample {
			working[st.Group] = true
		}
	}
	for _, st := range under {
		working[st.Group] = true
	}
	c.mu.Lock()
	c.groups, c.planned = p.Groups, p.Steps
	c.pace.plan(working, now)
	c.metrics.behind.Set(c.pace.longest(now).Seconds())
	c.mu.Unlock()
	if !pending && len(under) == 0 {
		c.progressed()
	}
	c.pending.Store(pending || len(under) > 0)
	c.showHalted()
	return steps
}

func (c *Compactor) limit(k Kind) int {
	switch k {
	case KindMerge:
		return 2 * c.cfg.Concurrency
	case KindDownsample:
		return 2 * c.cfg.DownsampleConcurrency
	}
	return marksConcurrency
}

func (c *Compactor) start(ctx context.Context, st Step, under map[string]Step, busy map[ulid.ULID]bool, done chan<- outcome) {
	key := stepID(st)
	under[key] = st
	for _, id := range st.Inputs {
		busy[id] = true
	}
	bytes := stepBytes(c.known(), st)
	c.mu.Lock()
	c.running[key] = running{Step: st, Since: c.cfg.Now(), bytes: bytes}
	c.mu.Unlock()
	go func() {
		release, err := c.leases.take(ctx, st)
		if err == nil {
			err = c.do(ctx, st)
			release()
		}
		done <- outcome{st, err}
	}()
}

// stepID tells steps apart that are under way.
func stepID(st Step) string { return string(st.Kind) + " " + st.Inputs[0].String() }

// finish takes in how a step ended, and tells whether the bucket may differ from what is known.
func (c *Compactor) finish(ctx context.Context, o outcome, under map[string]Step, busy map[ulid.ULID]bool) (lookAgain bool) {
	delete(under, stepID(o.st))
	for _, id := range o.st.Inputs {
		delete(busy, id)
	}
	c.mu.Lock()
	if r := c.running[stepID(o.st)]; o.err == nil && (o.st.Kind == KindMerge || o.st.Kind == KindDownsample) {
		c.pace.ended(r.bytes, c.cfg.Now().Sub(r.Since))
	}
	delete(c.running, stepID(o.st))
	c.mu.Unlock()
	var be *bucketError
	switch {
	case ctx.Err() != nil:
		return false
	case o.err == nil:
		c.failures.done(o.st)
		c.progressed()
		return false
	case errors.Is(o.err, errLeased):
		c.leased[stepID(o.st)] = c.cfg.Now().Add(min(leasedPause, c.cfg.LeaseLength/3))
		c.progressed() // of somebody
		return false
	case errors.Is(o.err, errAbandoned):
		_ = level.Info(c.logger).Log("msg", "step abandoned", "step", o.st.Kind, "group", o.st.Group, "reason", o.err)
		return true
	case errors.As(o.err, &be):
		c.metrics.retries.Inc()
		c.failures.add(o.st, o.err, false, c.cfg.Now())
		_ = level.Warn(c.logger).Log("msg", "step failed, trying again later; everything else goes on", "step", o.st.Kind, "group", o.st.Group, "block", o.st.Inputs[0], "err", o.err)
	default:
		c.failures.add(o.st, o.err, c.cfg.ParkOnError, c.cfg.Now())
		_ = level.Error(c.logger).Log("msg", "step failed, look at its cause; everything else goes on", "step", o.st.Kind, "group", o.st.Group, "block", o.st.Inputs[0], "err", o.err)
		if c.cfg.StopOnError {
			c.stopped.Store(true)
			_ = level.Error(c.logger).Log("msg", "all work stops until a restart, as --compact.stop-on-error asks")
		}
	}
	c.showHalted()
	return true
}

// setLeases hands the leases to the other loops.
func (c *Compactor) setLeases(l *leases) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leases = l
}

func (c *Compactor) progressed() {
	now := c.cfg.Now()
	c.mu.Lock()
	c.progress = now
	c.mu.Unlock()
	c.metrics.lastProgress.Set(float64(now.Unix()))
}

// showHalted shows whether somebody should look.
func (c *Compactor) showHalted() {
	halted := c.stopped.Load() || len(c.stuck()) > 0
	fs := c.failures.list()
	for _, f := range fs {
		halted = halted || f.Parked
	}
	c.metrics.waiting.Set(float64(len(fs)))
	if halted {
		c.metrics.halted.Set(1)
	} else {
		c.metrics.halted.Set(0)
	}
}

// stuck are the groups with something that only a person can decide. Without ParkOnError none is.
func (c *Compactor) stuck() (gs []*Group) {
	if !c.cfg.ParkOnError {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.groups {
		if g.Stuck != "" {
			gs = append(gs, g)
		}
	}
	return gs
}

// Stalled returns an error when there is something to do and nothing has progressed for too long.
func (c *Compactor) Stalled() error {
	if c.cfg.StallAfter <= 0 {
		return nil
	}
	c.mu.Lock()
	since := c.cfg.Now().Sub(c.progress)
	c.mu.Unlock()
	if since <= c.cfg.StallAfter {
		return nil
	}
	return fmt.Errorf("nothing has progressed for %s", since.Round(time.Second))
}

// count counts what there is to do.
func (c *Compactor) count() {
	blocks, _, looked := c.eyes.seen()
	if looked.IsZero() {
		return
	}
	t := Count(blocks, c.cfg.Settings, c.cfg.Now())
	c.metrics.todoMerges.Set(float64(t.Merges))
	c.metrics.todoMergedBlocks.Set(float64(t.MergedBlocks))
	c.metrics.todoDownsamples.Set(float64(t.Downsamples))
	c.metrics.todoDeletions.Set(float64(t.Deletions))
	c.mu.Lock()
	c.metrics.behind.Set(c.pace.longest(c.cfg.Now()).Seconds())
	c.mu.Unlock()
}

// known are the blocks by their ids.
func (c *Compactor) known() map[ulid.ULID]*Block {
	blocks, _, _ := c.eyes.seen()
	known := make(map[ulid.ULID]*Block, len(blocks))
	for _, b := range blocks {
		known[b.Meta.ULID] = b
	}
	return known
}

// block returns what is known of a block, nil if nothing is.
func (c *Compactor) block(id ulid.ULID) *Block {
	blocks, _, _ := c.eyes.seen()
	for _, b := range blocks {
		if b.Meta.ULID == id {
			return b
		}
	}
	return nil
}

// blockBytes is the size of a block, from its metadata or else from its objects.
func (c *Compactor) blockBytes(ctx context.Context, b *Block) (n int64, err error) {
	for _, f := range b.Meta.Thanos.Files {
		n += f.SizeBytes
	}
	if n > 0 {
		return n, nil
	}
	err = c.bkt.Iter(ctx, b.Meta.ULID.String()+objstore.DirDelim, func(name string) error {
		a, err := c.bkt.Attributes(ctx, name)
		n += a.Size
		return err
	}, objstore.WithRecursiveIter())
	if err != nil {
		return 0, fmt.Errorf("measure block %s: %w", b.Meta.ULID, err)
	}
	return n, nil
}

// Blocks returns the metadata of the blocks that are worked on.
func (c *Compactor) Blocks() []*block.Meta {
	blocks, _, _ := c.eyes.seen()
	ms := make([]*block.Meta, 0, len(blocks))
	for _, b := range blocks {
		ms = append(ms, b.Meta)
	}
	return ms
}
