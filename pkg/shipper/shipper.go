package shipper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// ErrNoLabels says that the external labels are empty. Blocks without them could not be told from those
// of another Prometheus.
var ErrNoLabels = errors.New("no external labels: nothing is uploaded")

// Shipper uploads the blocks of one directory. Make one with New. There must be only one for a
// directory.
type Shipper struct {
	dir     string
	bkt     objstore.Bucket
	cfg     Config
	logger  log.Logger
	metrics *metrics

	mu sync.Mutex // Held during a round.
}

// New makes a Shipper from the TSDB in dir to bkt, which stays the caller's; metrics are registered
// with reg.
func New(dir string, bkt objstore.Bucket, cfg Config, logger log.Logger, reg prometheus.Registerer) (*Shipper, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.MetaFileName == "" {
		cfg.MetaFileName = DefaultMetaFileName
	}
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	return &Shipper{dir: dir, bkt: bkt, cfg: cfg, logger: logger, metrics: newMetrics(reg)}, nil
}

// Run makes a round at once and then one each interval, until ctx ends; it then returns nil. What goes
// wrong in a round is logged and counted, and the next one tries again.
func (s *Shipper) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Interval)
	defer tick.Stop()
	for {
		uploaded, err := s.Sync(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			level.Error(s.logger).Log("msg", "upload local blocks; it is tried again", "in", s.cfg.Interval, "uploaded", uploaded, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Sync makes one round, and returns the number of blocks that it uploaded. Rounds don't overlap: a
// second caller waits.
func (s *Shipper) Sync(ctx context.Context) (uploaded int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metrics.syncs.Inc()
	uploaded, err = s.round(ctx)
	if err != nil {
		s.metrics.syncFailures.Inc()
	}
	s.metrics.compactedDone.Set(0)
	if err == nil && s.cfg.UploadCompacted {
		s.metrics.compactedDone.Set(1)
	}
	return uploaded, err
}

func (s *Shipper) round(ctx context.Context) (uploaded int, err error) {
	external := s.cfg.Labels()
	if external.IsEmpty() {
		return 0, ErrNoLabels
	}
	if err := clearStaging(s.dir); err != nil {
		return 0, err
	}
	metas, corrupted, err := localBlocks(s.dir)
	if err != nil {
		return 0, err
	}
	for _, c := range corrupted {
		if !s.isSkipped(c) {
			return 0, c
		}
	}

	k := s.known(metas)
	var failed []error
	bucketBlocks := &overlaps{s: s}
	for _, m := range metas {
		if k.uploaded[m.ULID] || !s.isCandidate(m) {
			continue
		}
		did, err := s.ship(ctx, m, external, bucketBlocks)
		switch {
		case errors.Is(err, errGone):
			level.Info(s.logger).Log("msg", "block went away before it was uploaded", "block", m.ULID)
			continue
		case s.isSkipped(err):
			continue
		case err != nil:
			if failed = append(failed, err); s.goesOn(ctx, err) {
				continue
			}
			return uploaded, errors.Join(failed...)
		}
		if did {
			uploaded++
		}
		// Written after each block: a round over many may take hours, and Prometheus waits for it.
		if err := k.add(m.ULID); err != nil {
			return uploaded, errors.Join(append(failed, err)...)
		}
	}
	return uploaded, errors.Join(append(failed, k.write())...)
}

// isCandidate tells whether a block is of a kind that is uploaded.
func (s *Shipper) isCandidate(m *block.Meta) bool {
	return m.Stats.NumSamples > 0 && (m.Compaction.Level <= 1 || s.cfg.UploadCompacted)
}

// isSkipped tells whether an error is about a corrupted block that is to be skipped, and counts those.
func (s *Shipper) isSkipped(err error) bool {
	var c *corruptedError
	if !errors.As(err, &c) {
		return false
	}
	s.metrics.corrupted.Inc()
	if s.cfg.SkipCorrupted {
		level.Warn(s.logger).Log("msg", "skip corrupted block", "block", c.id, "err", c.err)
	}
	return s.cfg.SkipCorrupted
}

// goesOn tells whether the round goes on with newer blocks after one that failed. It usually does not:
// a compactor that has seen the newer ones would halt on an older one that comes late.
func (s *Shipper) goesOn(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	s.metrics.uploadFailures.Inc()
	return s.cfg.AllowOutOfOrder || standsAlone(err)
}

// ship brings one block into the bucket. did is false if it was there already.
func (s *Shipper) ship(ctx context.Context, local *block.Meta, external labels.Labels, bucketBlocks *overlaps) (did bool, err error) {
	there, err := s.isUploaded(ctx, local.ULID)
	if err != nil {
		return false, err
	}
	if there {
		level.Info(s.logger).Log("msg", "block is in the bucket already", "block", local.ULID)
		return false, nil
	}
	meta := s.withLabels(local, external)
	if meta.Compaction.Level > 1 && !s.cfg.AllowOutOfOrder {
		if err := bucketBlocks.check(ctx, meta); err != nil {
			return false, err
		}
	}

	level.Info(s.logger).Log("msg", "upload block", "block", meta.ULID, "mint", meta.MinTime, "maxt", meta.MaxTime, "level", meta.Compaction.Level)
	dir, err := stage(s.dir, meta)
	if err != nil {
		return false, err
	}
	defer func() {
		if rerr := os.RemoveAll(dir); rerr != nil {
			level.Warn(s.logger).Log("msg", "remove staged block; the next round does", "block", meta.ULID, "err", rerr)
		}
	}()
	if _, err := block.Upload(ctx, s.bkt, dir, block.UploadOptions{Hash: s.cfg.Hash, Concurrency: s.cfg.Concurrency}); err != nil {
		return false, fmt.Errorf("upload block %s: %w", meta.ULID, err)
	}
	s.metrics.uploads.Inc()
	bucketBlocks.add(meta)
	return true, nil
}

// withLabels returns the metadata that a block gets in the bucket.
func (s *Shipper) withLabels(local *block.Meta, external labels.Labels) *block.Meta {
	m := local.Clone()
	maps.Copy(m.Thanos.Labels, external.Map())
	m.Thanos.Source = s.cfg.Source
	return m
}

// known are the local blocks that are known to be in the bucket.
type known struct {
	path     string
	local    []*block.Meta
	uploaded map[ulid.ULID]bool
}

// known reads the shipper file. One that can't be read says nothing: the bucket is asked.
func (s *Shipper) known(local []*block.Meta) *known {
	k := &known{path: filepath.Join(s.dir, s.cfg.MetaFileName), local: local, uploaded: map[ulid.ULID]bool{}}
	ids, err := readShipperFile(k.path)
	if err != nil {
		level.Warn(s.logger).Log("msg", "shipper file is unreadable; the bucket is asked instead", "err", err)
	}
	for _, id := range ids {
		k.uploaded[id] = true
	}
	return k
}

func (k *known) add(id ulid.ULID) error {
	k.uploaded[id] = true
	return k.write()
}

// write writes the shipper file: what is uploaded and still here, oldest first.
func (k *known) write() error {
	var ids []ulid.ULID
	for _, m := range k.local {
		if k.uploaded[m.ULID] {
			ids = append(ids, m.ULID)
		}
	}
	return writeShipperFile(k.path, ids)
}
