package bucketops

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-kit/log"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// metricsPrefix starts the names of the metrics of every tool's look at the bucket.
const metricsPrefix = "thanos_bucket_blocks_meta"

// Choice says which blocks of a bucket a tool is about. The zero value is all of them.
type Choice struct {
	// MinTime and MaxTime bound the blocks in ms; nil is no bound.
	MinTime, MaxTime func() int64
	// Selector chooses by external labels and __block_id.
	Selector []*relabel.Config
	// ConsistencyDelay is the age that a block must have.
	ConsistencyDelay time.Duration
	// Concurrency is the number of metadata files that are read at a time; 0 is the default.
	Concurrency int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

func (c *Choice) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// look finds the blocks of a choice, with more filters behind it. Blocks whose metadata can't be read now are in the view's
// Failed.
func (c *Choice) look(ctx context.Context, bkt objstore.BucketReader, logger log.Logger, reg prometheus.Registerer, more ...block.Filter) (block.View, error) {
	var filters []block.Filter
	if c.MinTime != nil && c.MaxTime != nil {
		filters = append(filters, block.TimePartition(c.MinTime, c.MaxTime))
	}
	filters = append(filters, block.LabelShard(c.Selector))
	if c.ConsistencyDelay > 0 {
		filters = append(filters, block.ConsistencyDelay(c.ConsistencyDelay, c.Now))
	}
	f, err := block.NewFetcher(bkt, block.FetcherConfig{Concurrency: c.Concurrency, MetricsPrefix: metricsPrefix, Filters: append(filters, more...)}, logger, reg)
	if err != nil {
		return block.View{}, err
	}
	v, err := f.Fetch(ctx)
	if err != nil {
		return block.View{}, fmt.Errorf("look at the bucket: %w", err)
	}
	return v, nil
}

// byTime returns blocks in the order of their times.
func byTime(metas map[ulid.ULID]*block.Meta) []*block.Meta {
	ms := make([]*block.Meta, 0, len(metas))
	for _, m := range metas {
		ms = append(ms, m)
	}
	slices.SortFunc(ms, func(a, b *block.Meta) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime), a.ULID.Compare(b.ULID))
	})
	return ms
}

// ParseIDs reads the ids of blocks.
func ParseIDs(texts []string) ([]ulid.ULID, error) {
	ids := make([]ulid.ULID, len(texts))
	for i, s := range texts {
		id, ok := block.ParseID(s)
		if !ok {
			return nil, fmt.Errorf("%q is no block id: they look like 01HZXA5D5W5M6Q5XG8Y4T9N3AB", s)
		}
		ids[i] = id
	}
	return ids, nil
}
