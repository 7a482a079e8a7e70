package bucket

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-kit/log/level"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block/indexheader"
)

const (
	// A block of which nothing can be read is left alone for so long, and then tried again.
	damagePause = time.Minute
	// A block that turned out to be damaged is listed so long after it was last found to be.
	damageListed = time.Hour
)

// damagedPart is what of a block is damaged, or gone. The texts are values of the label "part".
type damagedPart string

const (
	damagedHeader   damagedPart = "index_header"
	damagedPostings damagedPart = "postings"
	damagedSeries   damagedPart = "series"
	damagedChunks   damagedPart = "chunks"
)

var damagedParts = []damagedPart{damagedHeader, damagedPostings, damagedSeries, damagedChunks}

// damage is what was found to be wrong with a block while it was read.
type damage struct {
	part  damagedPart
	cause error
	at    time.Time
}

// whole tells whether nothing can be read of the block; otherwise what is well of it goes on to be served.
func (d *damage) whole() bool { return d.part == damagedHeader }

// isDamage tells whether an error is a block's own fault.
func isDamage(bkt objstore.BucketReader, err error) bool {
	return errors.Is(err, errCorrupt) || errors.Is(err, indexheader.ErrCorrupt) || notFound(bkt, err)
}

// damaged notes what went wrong with the block if it is the block's own fault. The log and the metric hear of it once
// in a while.
func (b *loaded) damaged(part damagedPart, err error) {
	if !isDamage(b.bkt, err) {
		return
	}
	if part != damagedChunks && notFound(b.bkt, err) {
		part = damagedHeader // the index is gone
	}
	d := &damage{part, err, time.Now()}
	for {
		old := b.damage.Load()
		known := old != nil && old.part == part && d.at.Sub(old.at) < damageListed
		if old != nil && old.whole() && part != damagedHeader && d.at.Sub(old.at) < damagePause {
			return
		}
		if !b.damage.CompareAndSwap(old, d) {
			continue
		}
		if !known {
			b.metrics.damaged.WithLabelValues(string(part)).Inc()
			_ = level.Error(b.logger).Log("msg", "block is damaged; what can't be read of it is missing from answers, with a warning", "block", b.meta.ULID, "mint", b.meta.MinTime, "maxt", b.meta.MaxTime, "part", part, "err", err)
		}
		return
	}
}

// leftAlone returns why the block is not to be read now; nil if it is.
func (b *loaded) leftAlone() error {
	d := b.damage.Load()
	if d == nil || !d.whole() || time.Since(d.at) >= damagePause {
		return nil
	}
	return fmt.Errorf("the block is set aside since %s and tried again after %s: %w", d.at.UTC().Format(time.RFC3339), damagePause, d.cause)
}

// healed notes that the index header could be opened.
func (b *loaded) healed() {
	if d := b.damage.Load(); d != nil && d.whole() {
		b.damage.CompareAndSwap(d, nil)
	}
}
