package shipper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// readMeta returns the metadata of a block in the bucket; nil if it has none that can be decoded, as
// after an upload that was cut off in a bucket that shows parts of objects.
func (s *Shipper) readMeta(ctx context.Context, id ulid.ULID) (*block.Meta, error) {
	ok, err := block.Exists(ctx, s.bkt, id)
	if err != nil || !ok {
		return nil, err
	}
	name := block.Object(id, block.MetaFilename)
	r, err := s.bkt.Get(ctx, name)
	if s.bkt.IsObjNotFoundErr(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	m, err := block.ParseMeta(b)
	if err != nil {
		level.Warn(s.logger).Log("msg", "block in the bucket has a malformed meta.json", "block", id, "err", err)
		return nil, nil
	}
	return m, nil
}

// isUploaded tells whether the bucket holds the block, whole. A block that is marked for deletion but
// still there has been uploaded once; one of which only the mark and perhaps parts are left is being
// deleted, and what is uploaded now would go with it.
func (s *Shipper) isUploaded(ctx context.Context, id ulid.ULID) (bool, error) {
	m, err := s.readMeta(ctx, id)
	if err != nil || m != nil {
		return m != nil, err
	}
	mark := block.Object(id, block.DeletionMarkFilename)
	marked, err := s.bkt.Exists(ctx, mark)
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", mark, err)
	}
	if marked {
		return false, &deletingError{id: id, mark: mark}
	}
	return false, nil
}

// deletingError says that a block must not be uploaded while the same one is being deleted.
type deletingError struct {
	id   ulid.ULID
	mark string
}

func (e *deletingError) Error() string {
	return fmt.Sprintf("block %s is being deleted from the bucket: %s is there without a meta.json; it is uploaded when the mark is gone", e.id, e.mark)
}

// overlapError says that a compacted block must not be uploaded.
type overlapError struct {
	id, with ulid.ULID
}

func (e *overlapError) Error() string {
	return fmt.Sprintf("compacted block %s overlaps in time with block %s, which is in the bucket with the same labels; not uploaded", e.id, e.with)
}

// overlaps knows the blocks in the bucket that have certain labels. It lists the bucket when it is first
// asked.
type overlaps struct {
	s      *Shipper
	labels labels.Labels
	listed bool
	metas  []*block.Meta
}

// check returns an overlapError if a block in the bucket shares time with m, which has the labels.
func (o *overlaps) check(ctx context.Context, m *block.Meta) error {
	ls := m.Labels()
	if !o.listed || !labels.Equal(ls, o.labels) {
		if err := o.list(ctx, ls); err != nil {
			return fmt.Errorf("list blocks in the bucket to find overlaps: %w", err)
		}
	}
	for _, r := range o.metas {
		// Both ranges are half open.
		if r.ULID != m.ULID && r.MinTime < m.MaxTime && m.MinTime < r.MaxTime {
			return &overlapError{id: m.ULID, with: r.ULID}
		}
	}
	return nil
}

// add tells of a block that has just been uploaded.
func (o *overlaps) add(m *block.Meta) {
	if o.listed && labels.Equal(m.Labels(), o.labels) {
		o.metas = append(o.metas, m)
	}
}

func (o *overlaps) list(ctx context.Context, ls labels.Labels) error {
	var ids []ulid.ULID
	err := o.s.bkt.Iter(ctx, "", func(name string) error {
		if id, ok := block.ParseID(strings.TrimSuffix(name, objstore.DirDelim)); ok {
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	o.listed, o.labels, o.metas = false, ls, nil
	for _, id := range ids {
		m, err := o.s.readMeta(ctx, id)
		if err != nil {
			return err
		}
		if m != nil && labels.Equal(m.Labels(), ls) {
			o.metas = append(o.metas, m)
		}
	}
	o.listed = true
	return nil
}

// standsAlone tells whether an error is about one block that the bucket has, or had, in some way, so that no
// compactor waits for it.
func standsAlone(err error) bool {
	var o *overlapError
	var d *deletingError
	return errors.As(err, &o) || errors.As(err, &d)
}
