package standalone

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/koios-metrics/koios/pkg/logging"
)

// databaseConfig says how the TSDB is kept.
type databaseConfig struct {
	// dir is its folder; asideDir is where unreadable blocks are moved.
	dir, asideDir string
	// block is the time that a block covers.
	block time.Duration
	// retention is how long blocks stay although they are served from the bucket.
	retention time.Duration
	// outOfOrder is how old, in ms, a sample may be against the newest of its series.
	outOfOrder int64
	// reload is the time between two looks at which blocks may leave; less than 1 s is 1 s.
	reload time.Duration
	// served tells which blocks are answered from the bucket already.
	served func() map[ulid.ULID]bool
}

// openDatabase opens the TSDB, after it has moved aside the blocks that can't be read.
func openDatabase(c databaseConfig, logger log.Logger, reg prometheus.Registerer) (*tsdb.DB, error) {
	if err := setAside(c.dir, c.asideDir, logger); err != nil {
		return nil, err
	}
	opts := tsdb.DefaultOptions()
	opts.MinBlockDuration = c.block.Milliseconds()
	opts.MaxBlockDuration = c.block.Milliseconds() // Blocks are shipped as they were cut.
	opts.EnableOverlappingCompaction = false
	opts.RetentionDuration = c.retention.Milliseconds()
	opts.OutOfOrderTimeWindow = c.outOfOrder
	opts.WALCompression = compression.Snappy
	opts.BlockReloadInterval = c.reload
	opts.BlocksToDelete = func(blocks []*tsdb.Block) map[ulid.ULID]struct{} {
		return deletable(blocks, c.retention.Milliseconds(), c.served())
	}
	db, err := tsdb.Open(c.dir, logging.Slog(log.With(logger, "component", "tsdb")), reg, opts, nil)
	if err != nil {
		return nil, fmt.Errorf("open the TSDB in %s (is another koios running over this folder?): %w", c.dir, err)
	}
	return db, nil
}

// deletable returns the blocks that may leave: those that are served from the bucket and end longer than the
// retention (in ms) before the newest one. A block that is not served there stays, however old it is.
func deletable(blocks []*tsdb.Block, retention int64, served map[ulid.ULID]bool) map[ulid.ULID]struct{} {
	var newest int64
	for _, b := range blocks {
		newest = max(newest, b.MaxTime())
	}
	ids := map[ulid.ULID]struct{}{}
	for _, b := range blocks {
		m := b.Meta()
		replaced := m.Compaction.Deletable
		if replaced || (served[m.ULID] && newest-m.MaxTime >= retention) {
			ids[m.ULID] = struct{}{}
		}
	}
	return ids
}

// setAside moves the blocks in dir that can't be opened to asideDir, because one of them would keep the
// TSDB from opening at all.
func setAside(dir, asideDir string, logger log.Logger) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for blocks: %w", err)
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		from := filepath.Join(dir, e.Name())
		b, cause := tsdb.OpenBlock(logging.Slog(logger), from, nil, nil)
		if cause == nil {
			if err := b.Close(); err != nil {
				return fmt.Errorf("close block %s: %w", from, err)
			}
			continue
		}
		if isPassing(cause) {
			return fmt.Errorf("open block %s: %w", from, cause)
		}
		if err := os.MkdirAll(asideDir, 0o755); err != nil {
			return fmt.Errorf("set block %s aside: %w", from, err)
		}
		to := filepath.Join(asideDir, e.Name())
		if err := os.Rename(from, to); err != nil {
			return fmt.Errorf("set block %s aside: %w", from, err)
		}
		_ = level.Error(logger).Log("msg", "block can't be read and was set aside; its data is missing from answers", "block", e.Name(), "now", to, "err", cause)
	}
	return nil
}

// isPassing tells whether an error lies in the surroundings of a block and not in the block, so that the
// same block may be fine at the next start.
func isPassing(err error) bool {
	causes := []error{os.ErrPermission, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EIO}
	return slices.ContainsFunc(causes, func(cause error) bool { return errors.Is(err, cause) })
}
