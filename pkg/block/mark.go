package block

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/thanos-io/objstore"
)

const (
	// The only version of a mark there is.
	markVersion = 1
	// A mark is a few dozen bytes and a text.
	markBytesMax = 1 << 20
)

// ErrMarkUndecodable is wrapped by the error of reading a mark whose bytes make no sense. Whoever reads it warns and
// goes on as if there were no mark.
var ErrMarkUndecodable = errors.New("undecodable mark")

// DeletionMark says that a block will be deleted some time after DeletionTime.
type DeletionMark struct {
	ID      ulid.ULID `json:"id"`
	Version int       `json:"version"`
	// Details says why.
	Details string `json:"details,omitempty"`
	// DeletionTime is when the mark was made, in seconds since the epoch.
	DeletionTime int64 `json:"deletion_time"`
}

// NoCompactReason says why a block is not compacted.
type NoCompactReason string

// The reasons.
const (
	NoCompactManual             NoCompactReason = "manual"
	NoCompactIndexSize          NoCompactReason = "index-size-exceeding"
	NoCompactOutOfOrderChunk    NoCompactReason = "block-index-out-of-order-chunk"
	NoCompactDownsampleVertical NoCompactReason = "downsample-vertical-compaction"
)

// NoCompactMark keeps a block out of compaction.
type NoCompactMark struct {
	ID      ulid.ULID `json:"id"`
	Version int       `json:"version"`
	Details string    `json:"details,omitempty"`
	// NoCompactTime is when the mark was made, in seconds since the epoch.
	NoCompactTime int64           `json:"no_compact_time"`
	Reason        NoCompactReason `json:"reason"`
}

// NoDownsampleReason says why a block is not downsampled.
type NoDownsampleReason string

// NoDownsampleManual is the only reason so far.
const NoDownsampleManual NoDownsampleReason = "manual"

// NoDownsampleMark keeps a block out of downsampling.
type NoDownsampleMark struct {
	ID      ulid.ULID `json:"id"`
	Version int       `json:"version"`
	Details string    `json:"details,omitempty"`
	// NoDownsampleTime is when the mark was made, in seconds since the epoch.
	NoDownsampleTime int64              `json:"no_downsample_time"`
	Reason           NoDownsampleReason `json:"reason"`
}

// ReadDeletionMark reads the deletion mark of a block: nil without an error if there is none.
func ReadDeletionMark(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (*DeletionMark, error) {
	var m DeletionMark
	return found(&m, readMark(ctx, bkt, Object(id, DeletionMarkFilename), &m, &m.Version))
}

// ReadNoCompactMark reads the no-compact mark of a block: nil without an error if there is none.
func ReadNoCompactMark(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (*NoCompactMark, error) {
	var m NoCompactMark
	return found(&m, readMark(ctx, bkt, Object(id, NoCompactMarkFilename), &m, &m.Version))
}

// ReadNoDownsampleMark reads the no-downsample mark of a block: nil without an error if there is none.
func ReadNoDownsampleMark(ctx context.Context, bkt objstore.BucketReader, id ulid.ULID) (*NoDownsampleMark, error) {
	var m NoDownsampleMark
	return found(&m, readMark(ctx, bkt, Object(id, NoDownsampleMarkFilename), &m, &m.Version))
}

// MarkForDeletion marks a block for deletion. It reports false when the block is marked already; the mark is left as it
// is then.
func MarkForDeletion(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, details string, now time.Time) (bool, error) {
	return writeMark(ctx, bkt, Object(id, DeletionMarkFilename),
		DeletionMark{ID: id, Version: markVersion, Details: details, DeletionTime: now.Unix()})
}

// MarkForNoCompact keeps a block out of compaction. It reports false when the block is marked already.
func MarkForNoCompact(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, reason NoCompactReason, details string, now time.Time) (bool, error) {
	return writeMark(ctx, bkt, Object(id, NoCompactMarkFilename),
		NoCompactMark{ID: id, Version: markVersion, Details: details, NoCompactTime: now.Unix(), Reason: reason})
}

// MarkForNoDownsample keeps a block out of downsampling. It reports false when the block is marked already.
func MarkForNoDownsample(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, reason NoDownsampleReason, details string, now time.Time) (bool, error) {
	return writeMark(ctx, bkt, Object(id, NoDownsampleMarkFilename),
		NoDownsampleMark{ID: id, Version: markVersion, Details: details, NoDownsampleTime: now.Unix(), Reason: reason})
}

// RemoveMark removes a mark, given by the name of its object below the block. One that is not there is no error.
func RemoveMark(ctx context.Context, bkt objstore.Bucket, id ulid.ULID, markFilename string) error {
	return deleteObject(ctx, bkt, Object(id, markFilename))
}

var errNoMark = errors.New("no mark")

func found[T any](m *T, err error) (*T, error) {
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, errNoMark):
		return nil, nil
	}
	return nil, err
}

func readMark(ctx context.Context, bkt objstore.BucketReader, name string, mark any, version *int) error {
	r, err := quiet(bkt).Get(ctx, name)
	if err != nil {
		if bkt.IsObjNotFoundErr(err) {
			return errNoMark
		}
		return fmt.Errorf("get %s: %w", name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, markBytesMax))
	if err != nil {
		if bkt.IsObjNotFoundErr(err) {
			return errNoMark
		}
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(b, mark); err != nil {
		return fmt.Errorf("%w %s: %w", ErrMarkUndecodable, name, err)
	}
	if *version != markVersion {
		return fmt.Errorf("%s has version %d, only %d is known", name, *version, markVersion)
	}
	return nil
}

func writeMark(ctx context.Context, bkt objstore.Bucket, name string, mark any) (bool, error) {
	ok, err := bkt.Exists(ctx, name)
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", name, err)
	}
	if ok {
		return false, nil
	}
	b, err := json.Marshal(mark)
	if err != nil {
		return false, fmt.Errorf("encode %s: %w", name, err)
	}
	if err := bkt.Upload(ctx, name, bytes.NewReader(b)); err != nil {
		return false, fmt.Errorf("upload %s: %w", name, err)
	}
	return true, nil
}

// quiet returns the bucket with "not found" taken off its failure metric, if it has one: looking for objects that may
// be absent is no failure.
func quiet(bkt objstore.BucketReader) objstore.BucketReader {
	if ib, ok := bkt.(objstore.InstrumentedBucketReader); ok {
		return ib.ReaderWithExpectedErrs(bkt.IsObjNotFoundErr)
	}
	return bkt
}
