package bucketops

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"text/template"
	"time"

	"github.com/go-kit/log"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
)

// ListConfig configures List.
type ListConfig struct {
	Choice Choice
	// Output is "" for ids, "wide" for a line each, "json" for the metadata, else a Go template over the metadata.
	Output string
	// ExcludeDeleted leaves out blocks that are marked for deletion.
	ExcludeDeleted bool
}

// List writes the blocks of a bucket, in the order of their times.
func List(ctx context.Context, bkt objstore.BucketReader, cfg ListConfig, out io.Writer, logger log.Logger, reg prometheus.Registerer) error {
	show, err := listFormat(cfg.Output)
	if err != nil {
		return err
	}
	var more []block.Filter
	var marks *block.DeletionMarks
	if cfg.ExcludeDeleted {
		marks = block.NewDeletionMarks(bkt, 0, max(cfg.Choice.Concurrency, 32), logger)
		more = append(more, marks)
	}
	v, err := cfg.Choice.look(ctx, bkt, logger, reg, more...)
	if err != nil {
		return err
	}
	if marks != nil {
		for id := range marks.Marks() { // those of this second too
			delete(v.Metas, id)
		}
	}
	w := bufio.NewWriter(out)
	for _, m := range byTime(v.Metas) {
		if err := show(w, m); err != nil {
			return fmt.Errorf("show block %s: %w", m.ULID, err)
		}
	}
	o := outcome{what: "blocks listed", logger: logger}
	o.failView(v)
	return errors.Join(w.Flush(), o.err(ctx))
}

func listFormat(format string) (func(io.Writer, *block.Meta) error, error) {
	switch format {
	case "":
		return func(w io.Writer, m *block.Meta) error {
			_, err := fmt.Fprintln(w, m.ULID)
			return err
		}, nil
	case "wide":
		return func(w io.Writer, m *block.Meta) error {
			_, err := fmt.Fprintf(w, "%s -- %s - %s Diff: %s, Compaction: %d, Downsample: %d, Source: %s\n", m.ULID, timeText(m.MinTime), timeText(m.MaxTime),
				lengthOf(m), m.Compaction.Level, m.Resolution(), m.Thanos.Source)
			return err
		}, nil
	case "json":
		return func(w io.Writer, m *block.Meta) error { return m.Write(w) }, nil
	}
	t, err := template.New("").Parse(format)
	if err != nil {
		return nil, fmt.Errorf("output %q is neither wide, json nor a template over the metadata: %w", format, err)
	}
	return func(w io.Writer, m *block.Meta) error {
		if err := t.Execute(w, m); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w)
		return err
	}, nil
}

func timeText(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

func lengthOf(m *block.Meta) time.Duration {
	return time.Duration(m.MaxTime-m.MinTime) * time.Millisecond
}
