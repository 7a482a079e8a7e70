package standalone

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	upstream "github.com/thanos-io/objstore"
	"go.yaml.in/yaml/v2"

	"github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/pkg/store"
	"github.com/koios-metrics/koios/pkg/store/bucket"
)

// openBucket opens the configured bucket, or the one in the data folder.
func (s *Standalone) openBucket() (upstream.InstrumentedBucket, error) {
	content := s.cfg.Bucket
	if content == nil {
		if err := os.MkdirAll(s.cfg.bucketDir(), 0o755); err != nil {
			return nil, fmt.Errorf("make the folder of the bucket: %w", err)
		}
		var err error
		content, err = yaml.Marshal(map[string]any{"type": "FILESYSTEM", "config": map[string]string{"directory": s.cfg.bucketDir()}})
		if err != nil {
			return nil, err
		}
	}
	return objstore.New(s.logger, content, s.reg, "standalone")
}

// openStore makes the Store over the bucket. It reads nothing yet.
func (s *Standalone) openStore() (*bucket.Store, error) {
	return bucket.New(s.bkt, bucket.Config{
		Name:                     bucketName,
		DataDir:                  s.cfg.storeDir(),
		SyncInterval:             s.cfg.SyncInterval,
		InitialSyncTimeout:       s.cfg.SyncInterval,
		IgnoreDeletionMarksDelay: s.cfg.deleteDelay() / 2, // what replaces a block is known by then
		MemoryBytesMax:           s.cfg.MemoryBytesMax,
	}, log.With(s.logger, "component", "store"), s.reg)
}

// watchBucket looks into the bucket at an interval until ctx ends. The first time that it succeeds, the
// bucket takes its place beside the database, and looked is closed.
func (s *Standalone) watchBucket(ctx context.Context, recent store.Store, looked chan<- struct{}) error {
	for {
		err := s.blocks.InitialSync(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end was asked for
		}
		if err == nil {
			break
		}
		_ = level.Error(s.logger).Log("msg", "look into the bucket; it is tried again", "in", s.cfg.SyncInterval, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.cfg.SyncInterval):
		}
	}
	s.stores.Store(&[]store.Store{recent, s.blocks})
	close(looked)
	if err := s.blocks.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// served are the blocks that are answered from the bucket, themselves or within one that was compacted from
// them.
func (s *Standalone) served() map[ulid.ULID]bool {
	ids := map[ulid.ULID]bool{}
	for _, m := range s.blocks.Blocks() {
		ids[m.ULID] = true
		for _, id := range m.Compaction.Sources {
			ids[id] = true
		}
	}
	return ids
}

// countAside counts the blocks that were set aside, at this start or before.
func (s *Standalone) countAside() {
	entries, err := os.ReadDir(s.cfg.asideDir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		_ = level.Warn(s.logger).Log("msg", "count the blocks that were set aside", "err", err)
	}
	s.metrics.aside.Set(float64(len(entries)))
}
