package shipper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/koios-metrics/koios/pkg/block"
)

// errGone says that a local block went away while it was staged: the TSDB has compacted it or its
// retention is over.
var errGone = errors.New("block is gone")

// stagingDir is where blocks are put aside for upload. A TSDB passes over it: it is not named like a
// block. It must be on the file system of the blocks.
func stagingDir(dir string) string { return filepath.Join(dir, "thanos", "upload") }

// clearStaging removes what a round that did not end has left. The hard links in it hold the space of
// blocks that the TSDB has deleted since.
func clearStaging(dir string) error {
	if err := os.RemoveAll(stagingDir(dir)); err != nil {
		return fmt.Errorf("remove leftovers of uploads: %w", err)
	}
	return nil
}

// stage puts hard links to the files of a block aside, with meta as their meta.json, and returns their
// directory, which the caller removes.
func stage(dir string, meta *block.Meta) (string, error) {
	from := filepath.Join(dir, meta.ULID.String())
	to := filepath.Join(stagingDir(dir), meta.ULID.String())
	err := os.RemoveAll(to)
	if err == nil {
		err = linkBlock(from, to)
	}
	if err == nil {
		// Never a link: writing through one would change the TSDB's own file.
		err = block.WriteMetaDir(to, meta)
	}
	if err == nil {
		return to, nil
	}
	_ = os.RemoveAll(to)
	switch {
	case isGone(from):
		return "", errGone
	case errors.Is(err, os.ErrNotExist):
		return "", &corruptedError{id: meta.ULID, err: err}
	case errors.Is(err, os.ErrPermission):
		return "", fmt.Errorf("link files of block %s (the sidecar must run as the user that owns the TSDB's files, or be able to write them): %w", meta.ULID, err)
	}
	return "", fmt.Errorf("link files of block %s: %w", meta.ULID, err)
}

func linkBlock(from, to string) error {
	chunks := filepath.Join(to, block.ChunksDirname)
	if err := os.MkdirAll(chunks, 0o750); err != nil {
		return err
	}
	segments, err := os.ReadDir(filepath.Join(from, block.ChunksDirname))
	if err != nil {
		return err
	}
	for _, s := range segments {
		if !s.Type().IsRegular() {
			continue
		}
		if err := os.Link(filepath.Join(from, block.ChunksDirname, s.Name()), filepath.Join(chunks, s.Name())); err != nil {
			return err
		}
	}
	return os.Link(filepath.Join(from, block.IndexFilename), filepath.Join(to, block.IndexFilename))
}
