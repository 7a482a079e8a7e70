package compact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/block/stream"
)

// SetAsideFilename is the mark of a block that can't be read. Beside it are Thanos's marks against compaction and
// downsampling. The block is tried again, and the marks are taken off, when one of them was removed or an object of the
// block was replaced.
const SetAsideFilename = "koios-set-aside.json"

const (
	// faultFuture is the fault of a block whose data is of the future. It comes back when its time has come.
	faultFuture = "future"
	// futureSlack is how far ahead the clocks of others may be.
	futureSlack = 2 * time.Hour
	// setAsideBytesMax bounds the mark, in bytes.
	setAsideBytesMax = 1 << 20
)

// SetAsideMark says why a block is set aside.
type SetAsideMark struct {
	ID      ulid.ULID `json:"id"`
	Version int       `json:"version"`
	// Time is when, in seconds since the epoch.
	Time int64 `json:"set_aside_time"`
	// Cause says why; File, Part and Fault say it for programs, if it is a defect of a file.
	Cause string `json:"cause"`
	File  string `json:"file,omitempty"`
	Part  string `json:"part,omitempty"`
	Fault string `json:"fault,omitempty"`
	// State stands for the objects of the block as they were; one that was replaced changes it.
	State string `json:"state,omitempty"`
}

func writeSetAside(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, cause error, now time.Time) error {
	m := SetAsideMark{ID: id, Version: 1, Time: now.Unix(), Cause: cause.Error()}
	if c := stream.AsCorrupt(cause); c != nil {
		m.File, m.Part, m.Fault = c.File, c.Part, string(c.Fault)
	}
	if errors.Is(cause, errNotWhole) {
		m.Fault = string(stream.FaultMissing)
	}
	if errors.Is(cause, errFuture) {
		m.Fault = faultFuture
	}
	var err error
	if m.State, err = blockState(ctx, bkt, id); err != nil {
		return err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	name := block.Object(id, SetAsideFilename)
	if err := bkt.Upload(ctx, name, bytes.NewReader(b)); err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	return nil
}

// blockState stands for the objects of a block but its marks: their names, lengths, and when they were written.
func blockState(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (string, error) {
	h := sha256.New()
	dir := id.String() + objstore.DirDelim
	err := bkt.Iter(ctx, dir, func(name string) error {
		switch rel := strings.TrimPrefix(name, dir); {
		case strings.HasSuffix(rel, objstore.DirDelim):
			return nil
		case rel == SetAsideFilename || rel == block.DeletionMarkFilename || rel == block.NoCompactMarkFilename || rel == block.NoDownsampleMarkFilename:
			return nil
		}
		a, err := bkt.Attributes(ctx, name)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(h, "%s %d %d\n", name, a.Size, a.LastModified.UnixMilli())
		return nil
	}, objstore.WithRecursiveIter())
	if err != nil {
		return "", fmt.Errorf("look at the objects of block %s: %w", id, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// errFuture is why a block is set aside whose data is of the future.
var errFuture = errors.New("its data is of the future: the clock of its writer was ahead")

// examine sets those blocks aside that their metadata shows to be bad, and brings back those that were mended. What goes
// wrong with one block does not keep others from it.
func (c *Compactor) examine(ctx context.Context) error {
	blocks, view, _ := c.eyes.seen()
	var errs []error
	for id, cause := range view.Partial {
		if !block.IsRemains(cause) {
			errs = append(errs, c.setAsideOnce(ctx, id, cause))
		}
	}
	back := false
	now := c.cfg.Now()
	for _, b := range blocks {
		switch {
		case b.Deleting:
		case b.SetAside:
			why, err := c.mended(ctx, b)
			if err == nil && why != "" {
				err = c.bringBack(ctx, b.Meta.ULID, why)
				back = true
			}
			errs = append(errs, err)
		case b.Meta.MinTime > now.Add(futureSlack).UnixMilli():
			a, err := c.bkt.Attributes(ctx, block.Object(b.Meta.ULID, block.MetaFilename))
			if err != nil || a.LastModified.After(now.Add(futureSlack)) {
				continue // it is gone, or the clock here is behind
			}
			errs = append(errs, c.setAsideOnce(ctx, b.Meta.ULID, fmt.Errorf("%w: it begins at %s", errFuture, time.UnixMilli(b.Meta.MinTime).UTC().Format(time.RFC3339))))
		}
	}
	if back {
		errs = append(errs, c.eyes.look(ctx))
	}
	return errors.Join(errs...)
}

// setAsideOnce sets a block aside that does not have its mark yet.
func (c *Compactor) setAsideOnce(ctx context.Context, id ulid.ULID, cause error) error {
	there, err := c.bkt.Exists(ctx, block.Object(id, SetAsideFilename))
	if err != nil || there {
		return err
	}
	return c.setAside(ctx, id, cause)
}

// mended tells why a block that is set aside is to be tried again; "" is that it is not.
func (c *Compactor) mended(ctx context.Context, b *Block) (why string, err error) {
	id := b.Meta.ULID
	name := block.Object(id, SetAsideFilename)
	if !b.NoCompact || !b.NoDownsample {
		return "one of its marks was removed", nil
	}
	there, err := c.bkt.Exists(ctx, name)
	switch {
	case err != nil:
		return "", fmt.Errorf("look for %s: %w", name, err)
	case !there:
		return SetAsideFilename + " was removed", nil
	}
	r, err := c.bkt.Get(ctx, name)
	if err != nil {
		return "", fmt.Errorf("get %s: %w", name, err)
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, setAsideBytesMax))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	var m SetAsideMark
	if json.Unmarshal(text, &m) != nil || m.State == "" {
		return "", nil // somebody else's: it stays until it is removed
	}
	if m.Fault == faultFuture && b.Meta.MinTime <= c.cfg.Now().UnixMilli() {
		return "its time has come", nil
	}
	state, err := blockState(ctx, c.bkt, id)
	if err != nil || state == m.State {
		return "", err
	}
	return "an object of it was replaced", nil
}

// bringBack takes the marks off a block. Our own goes first: without it the others are taken off too, so that this may
// break off anywhere. Marks of other people stay.
func (c *Compactor) bringBack(ctx context.Context, id ulid.ULID, why string) error {
	_ = level.Info(c.logger).Log("msg", "block that was set aside is tried again", "block", id, "reason", why)
	if err := block.RemoveMark(ctx, c.bkt, id, SetAsideFilename); err != nil {
		return err
	}
	var keepNoDownsample, keepNoCompact bool
	nd, err := block.ReadNoDownsampleMark(ctx, c.bkt, id)
	if err == nil && nd != nil {
		if keepNoDownsample = !strings.HasPrefix(nd.Details, setAsideDetails); !keepNoDownsample {
			err = block.RemoveMark(ctx, c.bkt, id, block.NoDownsampleMarkFilename)
		}
	}
	if err != nil {
		return err
	}
	nc, err := block.ReadNoCompactMark(ctx, c.bkt, id)
	if err == nil && nc != nil {
		if keepNoCompact = !strings.HasPrefix(nc.Details, setAsideDetails); !keepNoCompact {
			err = block.RemoveMark(ctx, c.bkt, id, block.NoCompactMarkFilename)
		}
	}
	if err != nil {
		return err
	}
	c.eyes.note(result{marked: map[ulid.ULID]func(*Block){id: func(b *Block) {
		b.NoCompact, b.NoDownsample, b.SetAside = keepNoCompact, keepNoDownsample, false
	}}})
	c.eyes.fetcher.Forget(id)
	return nil
}

// restsOn tells whether another block may go because this one is there: it is not marked for deletion, not set aside by
// anyone since the plan was made, and whole. One that is not whole is set aside.
func (c *Compactor) restsOn(ctx context.Context, id ulid.ULID) (bool, error) {
	if err := stillWanted(ctx, c.bkt, []ulid.ULID{id}); err != nil {
		return false, ofBucket(err)
	}
	aside, err := c.bkt.Exists(ctx, block.Object(id, SetAsideFilename))
	switch {
	case err != nil:
		return false, ofBucket(fmt.Errorf("look for the mark of block %s: %w", id, err))
	case aside:
		return false, ofBucket(fmt.Errorf("block %s was set aside", id)) // the next look sees it
	}
	if err := verifyWhole(ctx, c.bkt, id); err != nil {
		if errors.Is(err, errNotWhole) {
			return false, c.setAside(ctx, id, err)
		}
		return false, ofBucket(err)
	}
	return true, nil
}
