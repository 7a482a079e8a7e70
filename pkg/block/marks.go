package block

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/gate"
)

// usesListing is a Filter that asks less of the bucket when it knows what the listing saw. The listing is set before
// each call of Filter.
type usesListing interface{ setListing(listing) }

// markSet is the marks of one kind, as they were at the last look. A mark is read when the listing shows that it is new
// or was written again. Where the listing does not show marks it is looked for at each look.
type markSet[T any] struct {
	bkt         objstore.BucketReader
	filename    string
	read        func(context.Context, objstore.BucketReader, ulid.ULID) (*T, error)
	concurrency int
	logger      log.Logger
	listing     listing

	mu    sync.Mutex
	marks map[ulid.ULID]*T
	// modified is when the marks in marks were written, and those that are malformed.
	modified map[ulid.ULID]time.Time
}

func (s *markSet[T]) setListing(l listing) { s.listing = l }

// look reads the marks of blocks that are not known yet. One that can't be read now counts as it did before; one that
// is malformed counts as none.
func (s *markSet[T]) look(ctx context.Context, metas map[ulid.ULID]*Meta) error {
	before := s.Marks()
	marks, modified := map[ulid.ULID]*T{}, map[ulid.ULID]time.Time{}
	var unknown []ulid.ULID
	for id := range metas {
		if s.listing.deep {
			o := s.listing.blocks[id].marks[s.filename]
			if !o.there {
				continue
			}
			if t, ok := s.modified[id]; ok && !o.modified.After(t) {
				modified[id] = t
				if m := before[id]; m != nil {
					marks[id] = m
				}
				continue
			}
		}
		unknown = append(unknown, id)
	}
	var mu sync.Mutex
	gate.Spread(ctx, s.concurrency, len(unknown), func(i int) bool {
		id := unknown[i]
		m, err := s.read(ctx, s.bkt, id)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case errors.Is(err, ErrMarkUndecodable):
			level.Warn(s.logger).Log("msg", "mark is malformed and counts as none", "block", id, "err", err)
			m = nil
		case err != nil:
			level.Warn(s.logger).Log("msg", "mark could not be read, the block counts as it did before", "block", id, "err", err)
			if m = before[id]; m != nil {
				marks[id] = m
			}
			return false
		}
		modified[id] = s.listing.blocks[id].marks[s.filename].modified
		if m != nil {
			marks[id] = m
		}
		return true
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	s.marks, s.modified = marks, modified
	s.mu.Unlock()
	return nil
}

// Marks returns the marks found at the last look, of the blocks that the filters before this one left. The map must not
// be changed.
func (s *markSet[T]) Marks() map[ulid.ULID]*T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks
}

// DeletionMarks is a Filter that hides blocks which were marked for deletion more than a delay ago. The delay gives
// whatever replaces them time to be found by everyone. Marks tells of all marks, those within the delay too.
type DeletionMarks struct {
	markSet[DeletionMark]
	delay time.Duration
	now   func() time.Time
}

// NewDeletionMarks makes a DeletionMarks that reads concurrency marks at a time.
func NewDeletionMarks(bkt objstore.BucketReader, delay time.Duration, concurrency int, logger log.Logger) *DeletionMarks {
	return &DeletionMarks{
		markSet: markSet[DeletionMark]{bkt: bkt, filename: DeletionMarkFilename, read: ReadDeletionMark, concurrency: concurrency, logger: logger},
		delay:   delay, now: time.Now,
	}
}

// Filter implements Filter. A mark that can't be read now counts as it did before; one that is malformed counts as
// none.
func (f *DeletionMarks) Filter(ctx context.Context, metas map[ulid.ULID]*Meta, excluded func(ulid.ULID, State)) error {
	if err := f.look(ctx, metas); err != nil {
		return err
	}
	for id, m := range f.Marks() {
		if f.now().Sub(time.Unix(m.DeletionTime, 0)) > f.delay {
			delete(metas, id)
			excluded(id, StateMarkedForDeletion)
		}
	}
	return nil
}

// NoCompactMarks is a Filter that hides nothing and gathers the marks that keep blocks out of compaction.
type NoCompactMarks struct{ markSet[NoCompactMark] }

// NewNoCompactMarks makes a NoCompactMarks that reads concurrency marks at a time.
func NewNoCompactMarks(bkt objstore.BucketReader, concurrency int, logger log.Logger) *NoCompactMarks {
	return &NoCompactMarks{markSet[NoCompactMark]{bkt: bkt, filename: NoCompactMarkFilename, read: ReadNoCompactMark, concurrency: concurrency, logger: logger}}
}

// Filter implements Filter.
func (f *NoCompactMarks) Filter(ctx context.Context, metas map[ulid.ULID]*Meta, _ func(ulid.ULID, State)) error {
	return f.look(ctx, metas)
}

func (f *NoCompactMarks) marked() (State, int) { return StateMarkedForNoCompact, len(f.Marks()) }

// NoDownsampleMarks is a Filter that hides nothing and gathers the marks that keep blocks from being downsampled.
type NoDownsampleMarks struct{ markSet[NoDownsampleMark] }

// NewNoDownsampleMarks makes a NoDownsampleMarks that reads concurrency marks at a time.
func NewNoDownsampleMarks(bkt objstore.BucketReader, concurrency int, logger log.Logger) *NoDownsampleMarks {
	return &NoDownsampleMarks{markSet[NoDownsampleMark]{bkt: bkt, filename: NoDownsampleMarkFilename, read: ReadNoDownsampleMark, concurrency: concurrency, logger: logger}}
}

// Filter implements Filter.
func (f *NoDownsampleMarks) Filter(ctx context.Context, metas map[ulid.ULID]*Meta, _ func(ulid.ULID, State)) error {
	return f.look(ctx, metas)
}

func (f *NoDownsampleMarks) marked() (State, int) { return StateMarkedForNoDownsample, len(f.Marks()) }

// countsMarked is a Filter that gathers marks of blocks it leaves in the view.
type countsMarked interface{ marked() (State, int) }
