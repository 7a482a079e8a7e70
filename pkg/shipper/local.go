package shipper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/koios-metrics/koios/pkg/block"
)

// corruptedError says that a local block can't be read, so that it can't be uploaded either.
type corruptedError struct {
	id  ulid.ULID
	err error
}

func (e *corruptedError) Error() string {
	return fmt.Sprintf("local block %s is corrupted: %v (repair or remove it, or go on without it by --shipper.skip-corrupted-blocks)", e.id, e.err)
}

func (e *corruptedError) Unwrap() error { return e.err }

// localBlocks returns the metadata of the blocks in dir, ordered by min time, and an error for each
// that can't be read. A block that goes away meanwhile is not there.
func localBlocks(dir string) (metas []*block.Meta, corrupted []*corruptedError, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list local blocks: %w", err)
	}
	for _, e := range entries {
		id, ok := block.ParseID(e.Name())
		if !ok || !e.IsDir() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		m, err := block.ReadMetaDir(path)
		if err == nil && m.ULID != id {
			err = fmt.Errorf("its meta.json is that of block %s", m.ULID)
		}
		switch {
		case err == nil:
			metas = append(metas, m)
		case isGone(path):
		default:
			corrupted = append(corrupted, &corruptedError{id: id, err: err})
		}
	}
	slices.SortStableFunc(metas, func(a, b *block.Meta) int {
		if a.MinTime != b.MinTime {
			if a.MinTime < b.MinTime {
				return -1
			}
			return 1
		}
		return a.ULID.Compare(b.ULID)
	})
	return metas, corrupted, nil
}

// isGone tells whether a block's directory does not exist. A TSDB renames it before it deletes anything
// in it, so a file that is missing in a directory that is there is damage.
func isGone(dir string) bool {
	_, err := os.Stat(dir)
	return errors.Is(err, os.ErrNotExist)
}
