package compact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/merge"
	"github.com/koios-metrics/koios/pkg/block/stream"
	"github.com/koios-metrics/koios/pkg/downsample"
)

const (
	// The texts of deletion marks, which are Thanos's.
	detailsSource  = "source of compacted block"
	detailsGarbage = "outdated block"
	// An upload is tried so often before its step fails: the work is done by then, and the same id completes it.
	uploadTries = 3
	// How much is read at once from a local copy and from the bucket. Reads of local copies are cheap: all windows
	// of a step together get no longer than windowsLocalMax.
	windowLocalMax  = stream.WindowBytesDefault
	windowLocalMin  = 32 << 10
	windowsLocalMax = 6 << 20
	windowBucketMax = 4 << 20
	// Of the memory of a step, what the batches of the merge may hold, at most. More makes nothing faster.
	batchBytesMax = 4 << 20
)

// do carries out a step.
func (c *Compactor) do(ctx context.Context, st Step) error {
	switch st.Kind {
	case KindExpire:
		return c.doExpire(ctx, st)
	case KindCollect:
		return c.doCollect(ctx, st)
	case KindNoCompact:
		return c.doNoCompact(ctx, st)
	case KindMerge:
		return c.doMerge(ctx, st)
	case KindDownsample:
		return c.doDownsample(ctx, st)
	}
	return fmt.Errorf("BUG: unknown step %q", st.Kind)
}

// doExpire marks a block that is past its retention, after a look at those that must have its data.
func (c *Compactor) doExpire(ctx context.Context, st Step) error {
	for _, id := range st.Successors {
		if ok, err := c.restsOn(ctx, id); !ok {
			return err
		}
	}
	id := st.Inputs[0]
	if b := c.block(id); b != nil && b.SetAside {
		_ = level.Warn(c.logger).Log("msg", "block that was set aside is past its retention: it goes, though nothing was made of it", "block", id, "group", st.Group)
	}
	return c.markForDeletion(ctx, id, st.Reason)
}

// doCollect marks a block whose data is in another one, after a look at the other one.
func (c *Compactor) doCollect(ctx context.Context, st Step) (err error) {
	c.metrics.collections.Inc()
	began := c.cfg.Now()
	defer func() {
		c.metrics.collectionDuration.Observe(c.cfg.Now().Sub(began).Seconds())
		if err != nil && !errors.Is(err, errAbandoned) {
			c.metrics.collectionFailures.Inc()
		}
	}()
	if ok, err := c.restsOn(ctx, st.Cover); !ok {
		return err
	}
	if err := c.markForDeletion(ctx, st.Inputs[0], detailsGarbage); err != nil {
		return err
	}
	c.metrics.collected.Inc()
	return nil
}

func (c *Compactor) doNoCompact(ctx context.Context, st Step) error {
	return c.markNoCompact(ctx, st.Inputs[0], block.NoCompactIndexSize, st.Reason)
}

func (c *Compactor) markNoCompact(ctx context.Context, id ulid.ULID, reason block.NoCompactReason, details string) error {
	fresh, err := block.MarkForNoCompact(ctx, c.bkt, id, reason, details, c.cfg.Now())
	if err != nil {
		return ofBucket(err)
	}
	if fresh {
		c.metrics.marked.WithLabelValues(markerNoCompact, string(reason)).Inc()
	}
	c.eyes.note(result{marked: map[ulid.ULID]func(*Block){id: func(b *Block) { b.NoCompact = true }}})
	return nil
}

func (c *Compactor) markForDeletion(ctx context.Context, id ulid.ULID, details string) error {
	fresh, err := block.MarkForDeletion(ctx, c.bkt, id, details, c.cfg.Now())
	if err != nil {
		return ofBucket(fmt.Errorf("mark block %s for deletion: %w", id, err))
	}
	if fresh {
		c.metrics.marked.WithLabelValues(markerDeletion, "").Inc()
	}
	c.eyes.note(result{removed: []ulid.ULID{id}})
	return nil
}

// setAside marks a block that can't be read: against compaction and downsampling, with the cause. A mark that keeps
// only one of these is overwritten by nobody, so both are tried.
func (c *Compactor) setAside(ctx context.Context, id ulid.ULID, cause error) error {
	details := setAsideDetails + cause.Error()
	_ = level.Error(c.logger).Log("msg", "block set aside: it can't be read; see the tools to verify and rewrite blocks", "block", id, "err", cause)
	if err := writeSetAside(ctx, c.bkt, id, cause, c.cfg.Now()); err != nil {
		return ofBucket(err)
	}
	if _, err := block.MarkForNoDownsample(ctx, c.bkt, id, block.NoDownsampleManual, details, c.cfg.Now()); err != nil {
		return ofBucket(err)
	}
	fresh, err := block.MarkForNoCompact(ctx, c.bkt, id, block.NoCompactManual, details, c.cfg.Now())
	if err != nil {
		return ofBucket(err)
	}
	if fresh {
		c.metrics.marked.WithLabelValues(markerNoCompact, string(block.NoCompactManual)).Inc()
	}
	c.eyes.note(result{marked: map[ulid.ULID]func(*Block){id: func(b *Block) {
		b.NoCompact, b.NoDownsample, b.SetAside = true, true, true
	}}})
	return nil
}

// job is a merge or a downsampling under way: its directory, its inputs, and what it has reserved.
type job struct {
	c      *Compactor
	st     Step
	blocks []*Block
	files  []stream.Files
	bytes  int64 // of all inputs
	remote bool  // inputs are read from the bucket
	dir    string
	free   func()
}

// begin reserves scratch space and copies the inputs there, if they fit.
func (c *Compactor) begin(ctx context.Context, st Step) (j *job, err error) {
	j = &job{c: c, st: st, dir: filepath.Join(c.cfg.workDir(), st.Inputs[0].String()+"-"+string(st.Kind))}
	for _, id := range st.Inputs {
		b := c.block(id)
		if b == nil {
			return nil, fmt.Errorf("block %s: %w", id, errAbandoned)
		}
		n, err := c.blockBytes(ctx, b)
		if err != nil {
			return nil, ofBucket(err)
		}
		j.bytes += n
		j.blocks = append(j.blocks, b)
	}
	need := 2 * j.bytes // the inputs, and an output that is no longer
	if !c.scratch.fits(need) {
		j.remote, need = true, j.bytes
	}
	if !c.scratch.fits(need) {
		return nil, fmt.Errorf("its output may take %d bytes of scratch space, of %d: raise --compact.max-scratch", need, c.cfg.ScratchBytesMax)
	}
	if j.free, err = c.scratch.reserve(ctx, need); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.end()
		}
	}()
	if err := errors.Join(os.RemoveAll(j.dir), os.MkdirAll(j.out(), 0o777)); err != nil {
		return nil, err
	}
	return j, j.fetch(ctx)
}

func (j *job) out() string { return filepath.Join(j.dir, "out") }

// fetch makes the inputs readable.
func (j *job) fetch(ctx context.Context) error {
	j.files = make([]stream.Files, len(j.blocks))
	if j.remote {
		for i, b := range j.blocks {
			j.files[i] = stream.Bucket(ctx, j.c.bkt, b.Meta.ULID)
		}
		return nil
	}
	release, err := j.c.downloads.enter(ctx)
	if err != nil {
		return err
	}
	defer release()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(j.c.cfg.BlocksFetchConcurrency)
	for i, b := range j.blocks {
		id := b.Meta.ULID
		dir := filepath.Join(j.dir, id.String())
		j.files[i] = stream.Dir(dir)
		g.Go(func() error {
			_, err := block.Download(gctx, j.c.bkt, id, dir, j.c.cfg.FilesConcurrency)
			if err == nil || gctx.Err() != nil {
				return err
			}
			if errors.Is(err, block.ErrPartial) || j.c.bkt.IsObjNotFoundErr(err) {
				if gone := stillWanted(gctx, j.c.bkt, []ulid.ULID{id}); gone != nil {
					return ofBucket(gone)
				}
			}
			return ofBucket(fmt.Errorf("download block %s: %w", id, err))
		})
	}
	return g.Wait()
}

// end removes what the job has on disk, and gives back its space.
func (j *job) end() {
	if err := os.RemoveAll(j.dir); err != nil {
		_ = level.Warn(j.c.logger).Log("msg", "scratch space could not be cleaned", "dir", j.dir, "err", err)
	}
	j.free()
}

// window is how much is read at once from each input, of the index and of chunks, so that all windows of a step fit
// into half of its memory.
func (j *job) window() int {
	total, most := j.c.cfg.MemoryBytesMax/int64(j.c.cfg.Concurrency+j.c.cfg.DownsampleConcurrency)/2, windowBucketMax
	if !j.remote {
		total, most = min(total, windowsLocalMax), windowLocalMax
	}
	return int(min(max(total/3/int64(len(j.blocks)), windowLocalMin), int64(most)))
}

// publish uploads an output, reads it back, and remembers it. Before it becomes visible the inputs are looked at again:
// if one is gone or marked, somebody else did the work, or wants the data gone.
func (j *job) publish(ctx context.Context, m *block.Meta) error {
	c := j.c
	release, err := c.uploads.enter(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := stillWanted(ctx, c.bkt, j.st.Inputs); err != nil {
		return ofBucket(err)
	}
	dir := filepath.Join(j.out(), m.ULID.String())
	opts := block.UploadOptions{Hash: c.cfg.Hash, Concurrency: c.cfg.FilesConcurrency, AllowNoLabels: len(m.Thanos.Labels) == 0, Now: c.cfg.Now}
	for try := 1; ; try++ {
		up, err := block.Upload(ctx, c.bkt, dir, opts)
		if err == nil {
			m = up
			break
		}
		if try == uploadTries || ctx.Err() != nil {
			return ofBucket(fmt.Errorf("upload block %s: %w", m.ULID, err))
		}
		_ = level.Warn(c.logger).Log("msg", "upload failed, trying again", "block", m.ULID, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(c.retryAfter):
		}
	}
	if err := verifyWhole(ctx, c.bkt, m.ULID); err != nil {
		if errors.Is(err, errNotWhole) {
			// Somebody took the upload for one that never ends. Nothing rests on it yet.
			err = errors.Join(err, c.markForDeletion(ctx, m.ULID, "upload was cleaned before it ended"))
		}
		return ofBucket(fmt.Errorf("verify uploaded block %s: %w", m.ULID, err))
	}
	c.eyes.note(result{made: &Block{Meta: m}})
	_ = level.Info(c.logger).Log("msg", "block uploaded", "step", j.st.Kind, "group", j.st.Group, "block", m.ULID, "from", len(j.st.Inputs), "samples", m.Stats.NumSamples)
	return nil
}

func (c *Compactor) doMerge(ctx context.Context, st Step) (err error) {
	res := resolutionLabel(st.Resolution)
	c.metrics.runsStarted.WithLabelValues(res).Inc()
	defer func() {
		switch {
		case err == nil || errors.Is(err, errAbandoned):
			c.metrics.runsCompleted.WithLabelValues(res).Inc()
		case ctx.Err() == nil:
			c.metrics.compactionFailures.WithLabelValues(res).Inc()
		}
	}()
	j, err := c.begin(ctx, st)
	if err != nil {
		return err
	}
	defer j.end()
	m, err := j.merge(ctx)
	if err != nil {
		return c.blame(ctx, j, err)
	}
	if m == nil {
		return j.markEmpty(ctx)
	}
	if err := j.publish(ctx, m); err != nil {
		return err
	}
	for _, id := range st.Inputs {
		if err := c.markForDeletion(ctx, id, detailsSource); err != nil {
			return err
		}
	}
	c.metrics.compactions.WithLabelValues(res).Inc()
	c.metrics.tsdb.compactions.Inc()
	if st.Vertical {
		c.metrics.verticalCompaction.WithLabelValues(res).Inc()
		c.metrics.tsdb.verticalCompactions.Inc()
	}
	return nil
}

// merge makes the output on disk.
func (j *job) merge(ctx context.Context) (*block.Meta, error) {
	release, err := j.c.work.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	cfg := merge.Config{
		WindowBytes: j.window(), BatchBytes: int(min(j.c.cfg.MemoryBytesMax/int64(4*j.c.cfg.Concurrency), batchBytesMax)),
		RefuseDisorder: j.c.cfg.SkipDisorder, Unsorted: j.c.cfg.Unsorted,
	}
	if j.c.cfg.Penalty {
		cfg.Dedup = merge.Penalty
	}
	for i, b := range j.blocks {
		cfg.Inputs = append(cfg.Inputs, merge.Input{Files: j.files[i], Meta: b.Meta, Replica: b.Replica})
	}
	began := j.c.cfg.Now()
	j.c.metrics.tsdb.populating.Inc()
	m, r, err := merge.Compact(ctx, cfg, j.blocks[0].Meta.Thanos.Labels, j.out())
	j.c.metrics.tsdb.populating.Dec()
	if err == nil {
		j.c.metrics.tsdb.duration.Observe(j.c.cfg.Now().Sub(began).Seconds())
		_ = level.Info(j.c.logger).Log("msg", "blocks merged", "group", j.st.Group, "from", len(j.blocks), "duplicates", r.Duplicates, "chunksPassed", r.ChunksPassed, "chunksMade", r.ChunksMade, "disorder", r.Disorder)
	}
	return m, err
}

// markEmpty marks inputs without samples, whose merge is no block.
func (j *job) markEmpty(ctx context.Context) error {
	marked := 0
	for _, b := range j.blocks {
		if b.Meta.Stats.NumSamples > 0 {
			continue
		}
		marked++
		if err := j.c.markForDeletion(ctx, b.Meta.ULID, detailsSource); err != nil {
			return err
		}
	}
	if marked == 0 {
		return errors.New("its blocks say that they have samples, and none was found")
	}
	return nil
}

// blame finds out whose fault the failure of a merge or downsampling is. A corrupt input is set aside, and the group
// goes on without it.
func (c *Compactor) blame(ctx context.Context, j *job, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	corrupt := stream.AsCorrupt(err)
	var in *merge.InputError
	switch {
	case errors.As(err, &in) && errors.Is(err, merge.ErrDisorder):
		return c.markNoCompact(ctx, in.ID, block.NoCompactOutOfOrderChunk, err.Error())
	case errors.As(err, &in) && corrupt != nil:
		return c.setAside(ctx, in.ID, err)
	case j.st.Kind == KindDownsample && corrupt != nil:
		return c.setAside(ctx, j.st.Inputs[0], err)
	case errors.As(err, &in) && j.remote:
		return ofBucket(err)
	}
	return err
}

func (c *Compactor) doDownsample(ctx context.Context, st Step) (err error) {
	res := resolutionLabel(st.Resolution)
	began := c.cfg.Now()
	defer func() {
		if err != nil && ctx.Err() == nil && !errors.Is(err, errAbandoned) {
			c.metrics.downsampleFailures.WithLabelValues(res).Inc()
		}
	}()
	j, err := c.begin(ctx, st)
	if err != nil {
		return err
	}
	defer j.end()
	m, err := j.downsample(ctx)
	if err != nil {
		return c.blame(ctx, j, err)
	}
	if m == nil {
		if _, err := block.MarkForNoDownsample(ctx, c.bkt, st.Inputs[0], block.NoDownsampleManual, "no sample of it makes a window", c.cfg.Now()); err != nil {
			return ofBucket(err)
		}
		c.eyes.note(result{marked: map[ulid.ULID]func(*Block){st.Inputs[0]: func(b *Block) { b.NoDownsample = true }}})
		return nil
	}
	if err := j.publish(ctx, m); err != nil {
		return err
	}
	c.metrics.downsamples.WithLabelValues(res).Inc()
	c.metrics.downsampleDuration.WithLabelValues(res).Observe(c.cfg.Now().Sub(began).Seconds())
	return nil
}

func (j *job) downsample(ctx context.Context) (*block.Meta, error) {
	release, err := j.c.downsampling.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	m, r, err := downsample.Downsample(ctx, j.files[0], j.blocks[0].Meta, j.out(), downsample.Config{WindowBytes: j.window(), Unsorted: j.c.cfg.Unsorted})
	if err == nil {
		_ = level.Info(j.c.logger).Log("msg", "block downsampled", "group", j.st.Group, "block", j.st.Inputs[0], "to", resolutionName(j.st.Target()), "seriesLeftOut", r.SeriesLeftOut)
	}
	return m, err
}
