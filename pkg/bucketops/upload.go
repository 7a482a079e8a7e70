package bucketops

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/shipper"
)

// UploadConfig configures UploadBlocks.
type UploadConfig struct {
	// Path is the directory with the blocks. It gets the shipper's file, which lists what is uploaded.
	Path string
	// Labels are the external labels that the blocks get.
	Labels labels.Labels
	// Compacted uploads blocks too that Prometheus has compacted.
	Compacted bool
	// Concurrency is the number of files of a block that are uploaded at a time.
	Concurrency int
}

// UploadBlocks uploads the blocks in a local directory that the bucket lacks. A block that can't be read is left out.
func UploadBlocks(ctx context.Context, bkt objstore.Bucket, cfg UploadConfig, logger log.Logger, reg prometheus.Registerer) error {
	if cfg.Labels.IsEmpty() {
		return errors.New(`uploaded blocks need external labels: give --label=name="value"`)
	}
	s, err := shipper.New(cfg.Path, bkt, shipper.Config{
		Labels: func() labels.Labels { return cfg.Labels }, Source: block.SourceBucketUpload,
		UploadCompacted: cfg.Compacted, Concurrency: cfg.Concurrency, SkipCorrupted: true,
	}, logger, reg)
	if err != nil {
		return err
	}
	n, err := s.Sync(ctx)
	_ = level.Info(logger).Log("msg", "blocks uploaded", "blocks", n)
	return err
}

// ParseLabels reads pairs of name="value".
func ParseLabels(pairs []string) (labels.Labels, error) {
	m := map[string]string{}
	for _, p := range pairs {
		name, quoted, ok := strings.Cut(p, "=")
		value, err := strconv.Unquote(quoted)
		if !ok || err != nil || !model.LegacyValidation.IsValidLabelName(name) {
			return labels.EmptyLabels(), fmt.Errorf(`%s is no label like name="value"`, p)
		}
		if _, twice := m[name]; twice {
			return labels.EmptyLabels(), fmt.Errorf("label %s is given twice", name)
		}
		m[name] = value
	}
	return labels.FromMap(m), nil
}
