package dataset

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// Start is when the data of the blocks begins; it is the start of a two-hour block.
var Start = time.Date(2025, 3, 4, 0, 0, 0, 0, time.UTC)

const (
	// BlockSpan is the time that a block covers.
	BlockSpan = 2 * time.Hour
	// Blocks is the number of blocks of each replica.
	Blocks = 3
	// Interval is the time between two samples of a series.
	Interval = 15 * time.Second
)

// End is the first moment after the data of the blocks.
var End = Start.Add(Blocks * BlockSpan)

// Replica is one Prometheus of an HA pair: when it scrapes, and when it was away.
type Replica struct {
	// Offset is the time of its first scrape after Start, less than Interval.
	Offset time.Duration
	// AwayFrom and AwayTo bound the time since Start in which it has no samples.
	AwayFrom, AwayTo time.Duration
}

// A and B are the pair that most tests use. B was away across the border of its first two blocks, A later,
// so that at any time one of them was there.
var (
	A = Replica{Offset: 1 * time.Second, AwayFrom: 250 * time.Minute, AwayTo: 271 * time.Minute}
	B = Replica{Offset: 8123 * time.Millisecond, AwayFrom: 100 * time.Minute, AwayTo: 131 * time.Minute}
)

// Times returns the times in ms at which the replica has samples, in order.
func (r Replica) Times() []int64 {
	var ts []int64
	for at := r.Offset; at < Blocks*BlockSpan; at += Interval {
		if at < r.AwayFrom || at >= r.AwayTo {
			ts = append(ts, Start.Add(at).UnixMilli())
		}
	}
	return ts
}

// WriteBlocks writes the blocks that the replica would hold into dir.
func WriteBlocks(ctx context.Context, dir string, r Replica) ([]ulid.ULID, error) {
	w := blockWriter{ctx: ctx, dir: dir, all: All()}
	w.was = make([]bool, len(w.all))
	times := r.Times()
	var ids []ulid.ULID
	for n := range int64(Blocks) {
		end := Start.UnixMilli() + (n+1)*BlockSpan.Milliseconds()
		var inside []int64
		for len(times) > 0 && times[0] < end {
			inside, times = append(inside, times[0]), times[1:]
		}
		id, err := w.write(inside)
		if err != nil {
			return ids, fmt.Errorf("write block %d: %w", n, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

type blockWriter struct {
	ctx context.Context
	dir string
	all []Series
	was []bool // which series were present at the last time
}

func (b *blockWriter) write(times []int64) (ulid.ULID, error) {
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), b.dir, BlockSpan.Milliseconds())
	if err != nil {
		return ulid.ULID{}, err
	}
	defer w.Close()
	for _, at := range times {
		app := w.Appender(b.ctx)
		for i := range b.all {
			if err := b.append(app, i, at); err != nil {
				return ulid.ULID{}, fmt.Errorf("append to %s: %w", b.all[i].Labels, err)
			}
		}
		if err := app.Commit(); err != nil {
			return ulid.ULID{}, err
		}
	}
	return w.Flush(b.ctx)
}

func (b *blockWriter) append(app storage.Appender, i int, at int64) error {
	s, since := &b.all[i], at-Start.UnixMilli()
	present := s.Present == nil || s.Present(since)
	left := b.was[i] && !present
	b.was[i] = present
	switch {
	case left && s.Stale:
		return appendFloat(app, s.Labels, at, math.Float64frombits(value.StaleNaN))
	case !present:
		return nil
	case s.Histogram != nil:
		_, err := app.AppendHistogram(0, s.Labels, at, s.Histogram(since), nil)
		return err
	default:
		return appendFloat(app, s.Labels, at, s.Float(since))
	}
}

func appendFloat(app storage.Appender, ls labels.Labels, at int64, v float64) error {
	_, err := app.Append(0, ls, at, v)
	return err
}
