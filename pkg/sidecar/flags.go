package sidecar

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/go-kit/log/level"
	"github.com/prometheus/common/model"

	"github.com/koios-metrics/koios/pkg/promapi"
)

// Prometheus's flags that decide when it compacts its blocks.
const (
	flagTSDBPath     = "storage.tsdb.path"
	flagMinBlock     = "storage.tsdb.min-block-duration"
	flagMaxBlock     = "storage.tsdb.max-block-duration"
	flagDelayCompact = "storage.tsdb.delay-compact-file.path"

	blockDurationUsual = 2 * time.Hour
)

// flagsCheck knows what Prometheus's flags are held against when blocks are uploaded.
type flagsCheck struct {
	// tsdbPath is where the sidecar finds Prometheus's data, metaFile the name of the shipper file.
	tsdbPath, metaFile string
	ignoreUnequal      bool
}

// check tells whether every block will be uploaded before Prometheus compacts it. warnings say what is
// unusual; err says that it will not, and which flags to set.
func (c flagsCheck) check(flags map[string]string) (warnings []string, err error) {
	delay, knowsDelay := flags[flagDelayCompact]
	// Prometheus may see its data under another path than the sidecar does.
	shipperFile := filepath.Join(flags[flagTSDBPath], c.metaFile)
	if flags[flagTSDBPath] == "" {
		shipperFile = filepath.Join(c.tsdbPath, c.metaFile)
	}
	advice := fmt.Sprintf("start Prometheus with --%s=2h --%s=2h", flagMinBlock, flagMaxBlock)
	if knowsDelay {
		advice += fmt.Sprintf(", or with --%s=%s", flagDelayCompact, shipperFile)
	}

	if delay != "" {
		if d := filepath.Clean(delay); d != shipperFile && d != filepath.Join(c.tsdbPath, c.metaFile) {
			return nil, fmt.Errorf("prometheus delays compaction by the file %s, but uploads are recorded in %s: start Prometheus with --%s=%s", delay, shipperFile, flagDelayCompact, shipperFile)
		}
		return nil, nil
	}

	shortest, knowsShortest := blockDuration(flags[flagMinBlock])
	longest, knowsLongest := blockDuration(flags[flagMaxBlock])
	switch {
	case !knowsShortest || !knowsLongest:
		return []string{fmt.Sprintf("prometheus does not tell its block durations (%q, %q), so nobody knows whether it compacts blocks before they are uploaded: %s", flags[flagMinBlock], flags[flagMaxBlock], advice)}, nil
	case shortest == longest && shortest != blockDurationUsual:
		return []string{fmt.Sprintf("prometheus makes blocks of %s; %s is what compaction and queries are tuned for", flags[flagMinBlock], model.Duration(blockDurationUsual))}, nil
	case shortest == longest:
		return nil, nil
	}
	compacts := fmt.Sprintf("prometheus compacts its blocks (from %s up to %s), also those that are not uploaded yet: %s", flags[flagMinBlock], flags[flagMaxBlock], advice)
	if c.ignoreUnequal {
		return []string{compacts}, nil
	}
	return nil, errors.New(compacts + "; --shipper.ignore-unequal-block-size uploads all the same")
}

func blockDuration(flag string) (d time.Duration, ok bool) {
	parsed, err := model.ParseDuration(flag)
	return time.Duration(parsed), err == nil
}

// checkFlags waits until Prometheus tells its flags, and returns an error if they make uploads
// incomplete. A Prometheus that has no such endpoint is not checked.
func (s *Sidecar) checkFlags(ctx context.Context) error {
	c := flagsCheck{tsdbPath: s.cfg.TSDBPath, metaFile: s.cfg.Shipper.MetaFileName, ignoreUnequal: s.cfg.IgnoreUnequalBlockSize}
	for ctx.Err() == nil {
		flags, err := s.flags(ctx)
		switch {
		case err == nil:
			warnings, err := c.check(flags)
			for _, w := range warnings {
				level.Warn(s.logger).Log("msg", w)
			}
			return err
		case errors.Is(err, promapi.ErrNotFound):
			level.Warn(s.logger).Log("msg", "prometheus does not tell its flags; they are not checked", "err", err)
			return nil //nolint:nilerr // as the comment above says
		case ctx.Err() == nil:
			level.Warn(s.logger).Log("msg", "ask Prometheus for its flags; it is tried again", "in", s.cfg.RetryInterval, "err", err)
			s.lost(err)
			sleep(ctx, s.cfg.RetryInterval)
		}
	}
	return nil
}

func (s *Sidecar) flags(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.GetConfigTimeout)
	defer cancel()
	return s.deps.Prometheus.Flags(ctx)
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
