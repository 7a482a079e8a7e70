package standalone

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"regexp"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/koios-metrics/koios/pkg/compact"
)

const (
	// How long a replaced block stays in the folder, which nobody else reads, and in another bucket, where stores may
	// look for it for long.
	deleteDelayOfFolder = 2 * time.Hour
	deleteDelayOfBucket = 48 * time.Hour
	// A block of another bucket may be seen before all of its objects are.
	consistencyDelayOfBucket = 30 * time.Minute
	// Buffers of compaction: one merge at a time needs no more.
	compactionBytesMax = 256 << 20
	// Compaction is not urgent: cleaning and counting come after so many looks at the bucket.
	looksPerCleanup = 5
	stallAfter      = 24 * time.Hour
)

// deleteDelay is how long a block stays in the bucket after it was replaced or its retention is over.
func (c *Config) deleteDelay() time.Duration {
	if c.Bucket == nil {
		return deleteDelayOfFolder
	}
	return deleteDelayOfBucket
}

func (c *Config) compactDir() string { return filepath.Join(c.DataDir, "compact") }

// openCompactor makes the compactor of the blocks that this process ships: those with its external labels. Others in the
// same bucket are somebody else's.
func (s *Standalone) openCompactor() (*compact.Compactor, error) {
	scratch, err := compact.FreeScratch(s.cfg.DataDir)
	if err != nil {
		return nil, err
	}
	cfg := compact.Config{
		DataDir:  s.cfg.compactDir(),
		Settings: compact.Settings{Level: compact.MaxLevel, Downsample: !s.cfg.NoDownsampling, Retention: s.cfg.BucketRetention},
		Selector: keepLabels(s.external),
		// Both of these are halves of the free space and of what queries may take, or less.
		ScratchBytesMax: scratch / 2, MemoryBytesMax: min(compactionBytesMax, s.cfg.MemoryBytesMax/2),
		DeleteDelay: s.cfg.deleteDelay(), Concurrency: 1, DownsampleConcurrency: 1,
		WaitInterval: s.cfg.SyncInterval, CleanupInterval: looksPerCleanup * s.cfg.SyncInterval, ProgressInterval: looksPerCleanup * s.cfg.SyncInterval,
		StallAfter: stallAfter, ParkOnError: true,
	}
	if s.cfg.Bucket != nil {
		cfg.ConsistencyDelay = consistencyDelayOfBucket
	}
	c, err := compact.New(s.bkt, cfg, log.With(s.logger, "component", "compact"), firstWins{s.reg})
	if err != nil {
		return nil, err
	}
	s.http.Handle("GET /api/v1/compact", s.http.Wrap("compact", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": c.State()})
	})))
	return c, nil
}

// compact works on the bucket until ctx ends, once it was looked into. A compactor that does not get on costs disk, not
// answers: readiness is left alone, and the log says so.
func (s *Standalone) compact(ctx context.Context, c *compact.Compactor, looked <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-looked:
	}
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Hour)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := c.Stalled(); err != nil {
					_ = level.Error(s.logger).Log("msg", "compaction does not get on: see /api/v1/compact", "err", err)
				}
			}
		}
	}()
	return c.Run(ctx)
}

// keepLabels chooses the blocks that have all these external labels.
func keepLabels(ls labels.Labels) (rules []*relabel.Config) {
	ls.Range(func(l labels.Label) {
		rules = append(rules, &relabel.Config{
			Action: relabel.Keep, SourceLabels: model.LabelNames{model.LabelName(l.Name)}, Separator: ";",
			Regex: relabel.MustNewRegexp(regexp.QuoteMeta(l.Value)), NameValidationScheme: model.UTF8Validation,
		})
	})
	return rules
}

// firstWins registers metrics unless there are others of that name: the TSDB, the bucket reader and the compactor have
// some in common, and in processes of their own each has all of them.
type firstWins struct{ prometheus.Registerer }

// MustRegister implements prometheus.Registerer.
func (r firstWins) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		_ = r.Register(c)
	}
}
