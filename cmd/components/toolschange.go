package components

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	thanosobjstore "github.com/thanos-io/objstore"

	"github.com/koios-metrics/koios/pkg/block"
	"github.com/koios-metrics/koios/pkg/bucketops"
	"github.com/koios-metrics/koios/pkg/objstore"
	"github.com/koios-metrics/koios/pkg/serve"
)

// secondBucket opens a bucket beside the first one, nil if none is given. The metrics are the first one's.
func secondBucket(p *process, c *content) (thanosobjstore.InstrumentedBucket, error) {
	text, err := c.read()
	if err != nil || len(text) == 0 {
		return nil, err
	}
	bkt, err := objstore.New(p.logger, text, prometheus.NewRegistry(), p.component)
	if err != nil {
		return nil, fmt.Errorf("flag --%s: %w", c.name, err)
	}
	p.close(bkt.Close)
	return bkt, nil
}

// mark is tools bucket mark.
func (t *bucketTool) mark() Component {
	return Component{
		name: "mark",
		help: "Mark blocks for deletion, against compaction or against downsampling, or take marks away.",
		bind: func(fs *flags) runner {
			var cfg bucketops.MarkConfig
			var ids []string
			fs.strings(&ids, "id", "Block to mark (repeatable).", noDefault).Required()
			fs.enum(&cfg.Marker, "marker", noDefault, "Mark to write or to remove.", bucketops.Markers()...).Required()
			fs.string(&cfg.Details, "details", noDefault, "Why, for people. Needed but for --remove.")
			fs.bool(&cfg.Remove, "remove", false, "Take the mark away.")
			return t.task(func(ctx context.Context, p *process, bkt thanosobjstore.InstrumentedBucket) (err error) {
				if cfg.IDs, err = bucketops.ParseIDs(ids); err != nil {
					return fmt.Errorf("flag --id: %w", err)
				}
				return bucketops.Mark(ctx, bkt, cfg, p.logger)
			})
		},
	}
}

// cleanup is tools bucket cleanup.
func (t *bucketTool) cleanup() Component {
	return Component{
		name: "cleanup",
		help: "Delete blocks that were marked for deletion, and what is left of uploads that never ended.",
		bind: func(fs *flags) runner {
			var choice choiceFlags
			var cfg bucketops.CleanupConfig
			fs.goDuration(&cfg.DeleteDelay, "delete-delay", "48h", "How long a block stays after it was marked for deletion.")
			dryRunFlag(fs, &cfg.DryRun)
			choice.bindSync(fs)
			choice.bindSelector(fs)
			return t.task(func(ctx context.Context, p *process, bkt thanosobjstore.InstrumentedBucket) (err error) {
				if cfg.Choice, err = choice.choice(); err != nil {
					return err
				}
				cfg.Progress = bar(os.Stderr)
				return bucketops.Cleanup(ctx, bkt, cfg, p.logger, p.reg)
			})
		},
	}
}

// retention is tools bucket retention.
func (t *bucketTool) retention() Component {
	return Component{
		name: "retention",
		help: "Mark blocks for deletion that are past the retention of their resolution.",
		bind: func(fs *flags) runner {
			var choice choiceFlags
			var cfg bucketops.RetentionConfig
			var keep [3]time.Duration
			for i, r := range []string{"raw", "5m", "1h"} {
				fs.promDuration(&keep[i], "retention.resolution-"+r, "0d", "How long data of resolution "+r+" is kept; 0d is forever. Data that a coarser resolution should hold is kept until it does. See also --downsampling.disable.")
			}
			fs.goDuration(&cfg.DeleteDelay, "delete-delay", "48h", "How long a block stays after it was marked for deletion.")
			fs.bool(&cfg.Alone, "downsampling.disable", false, "Nothing is downsampled: let data go though no coarser resolution holds it.")
			dryRunFlag(fs, &cfg.DryRun)
			choice.bindSync(fs)
			choice.bindSelector(fs)
			return t.task(func(ctx context.Context, p *process, bkt thanosobjstore.InstrumentedBucket) (err error) {
				if cfg.Choice, err = choice.choice(); err != nil {
					return err
				}
				cfg.Retention = map[int64]time.Duration{block.ResolutionRaw: keep[0], block.Resolution5m: keep[1], block.Resolution1h: keep[2]}
				cfg.Progress = bar(os.Stderr)
				return bucketops.Retention(ctx, bkt, cfg, p.logger, p.reg)
			})
		},
	}
}

// uploadBlocks is tools bucket upload-blocks.
func (t *bucketTool) uploadBlocks() Component {
	return Component{
		name: "upload-blocks",
		help: "Upload the blocks of a local directory.",
		bind: func(fs *flags) runner {
			var cfg bucketops.UploadConfig
			var pairs []string
			fs.string(&cfg.Path, "path", "./data", "Directory with the blocks.")
			fs.strings(&pairs, "label", `External label that the blocks get, such as cluster="a" (repeatable).`).PlaceHolder(`<name>="<value>"`)
			fs.bool(&cfg.Compacted, "shipper.upload-compacted", false, "Upload blocks too that Prometheus has compacted.")
			fs.int(&cfg.Concurrency, "shipper.upload-concurrency", "5", "Number of files of a block that are uploaded at a time.")
			return t.task(func(ctx context.Context, p *process, bkt thanosobjstore.InstrumentedBucket) (err error) {
				if cfg.Labels, err = bucketops.ParseLabels(pairs); err != nil {
					return fmt.Errorf("flag --label: %w", err)
				}
				return bucketops.UploadBlocks(ctx, bkt, cfg, p.logger, p.reg)
			})
		},
	}
}

// replicate is tools bucket replicate.
func (t *bucketTool) replicate() Component {
	return Component{
		name: "replicate",
		help: "Copy blocks to another bucket, again every minute.",
		bind: func(fs *flags) runner {
			r := &replicateFlags{tool: t}
			r.bind(fs)
			return r.run
		},
	}
}

type replicateFlags struct {
	tool        *bucketTool
	choice      choiceFlags
	http        serve.HTTPConfig
	to          content
	cfg         bucketops.ReplicateConfig
	ids         []string
	matcher     string
	resolutions []time.Duration
	least, most int
}

func (r *replicateFlags) bind(fs *flags) {
	httpFlags(fs, &r.http)
	fs.content(&r.to, "objstore-to.config", "the object storage configuration of the bucket to copy to", true)
	fs.goDurations(&r.resolutions, "resolution", "Copy blocks of this resolution (repeatable).", "0s", "5m", "1h")
	fs.int(&r.least, "compaction-min", "1", "Copy blocks of this compaction level or higher. See also --compaction.")
	fs.int(&r.most, "compaction-max", "4", "Copy blocks of this compaction level or lower. See also --compaction.")
	fs.ints(&r.cfg.Levels, "compaction", "Copy blocks of this compaction level (repeatable), instead of --compaction-min to --compaction-max.")
	fs.string(&r.matcher, "matcher", noDefault, `Matchers of external labels, such as {cluster="a",tenant=~"b.*"}: blocks they match are copied.`)
	fs.bool(&r.cfg.SingleRun, "single-run", false, "End after one run.")
	fs.strings(&r.ids, "id", "Block to copy (repeatable): nothing else chooses then, and the process ends once all are there.")
	fs.bool(&r.cfg.IgnoreDeleted, "ignore-marked-for-deletion", false, "Leave out blocks that are marked for deletion.")
	r.choice.bindTimes(fs)
	r.choice.concurrency = 32
}

// run builds the replicator.
//
//	bucket ─▶ bucketops.Replicator ─▶ bucket
//	HTTP: metrics, probes
func (r *replicateFlags) run(p *process) (err error) {
	from, err := r.tool.open(p)
	if err != nil {
		return err
	}
	r.to.required = true
	to, err := secondBucket(p, &r.to)
	if err != nil {
		return err
	}
	if r.cfg.Choice, err = r.choice.choice(); err != nil {
		return err
	}
	if r.cfg.IDs, err = bucketops.ParseIDs(r.ids); err != nil {
		return fmt.Errorf("flag --id: %w", err)
	}
	if r.matcher != "" {
		if r.cfg.Matchers, err = parseMatchers(r.matcher); err != nil {
			return fmt.Errorf("flag --matcher: %w", err)
		}
	}
	for _, d := range r.resolutions {
		r.cfg.Resolutions = append(r.cfg.Resolutions, d.Milliseconds())
	}
	if len(r.cfg.Levels) == 0 {
		if r.least > r.most {
			return fmt.Errorf("--compaction-min=%d is above --compaction-max=%d: no block is both", r.least, r.most)
		}
		for l := r.least; l <= r.most; l++ {
			r.cfg.Levels = append(r.cfg.Levels, l)
		}
	}
	r.cfg.Progress = bar(os.Stderr)
	rep, err := bucketops.NewReplicator(from, to, r.cfg, p.logger, p.reg)
	if err != nil {
		return err
	}
	if r.cfg.SingleRun || len(r.cfg.IDs) > 0 {
		p.once(rep.Run)
	} else {
		p.loop(rep.Run)
	}
	if _, err := p.addHTTP(r.http, &content{}); err != nil {
		return err
	}
	p.probe.Ready()
	return nil
}

// downsample is tools bucket downsample.
func (t *bucketTool) downsample() Component {
	return Component{
		name: "downsample",
		help: "Make the blocks of 5m and 1h that are due, again after each interval.",
		bind: func(fs *flags) runner {
			var http serve.HTTPConfig
			var cfg bucketops.DownsampleConfig
			var wait time.Duration
			var hash string
			httpFlags(fs, &http)
			fs.goDuration(&wait, "wait-interval", "5m", "Time between two runs; 0s ends after one.")
			fs.int(&cfg.Concurrency, "downsample.concurrency", "1", "Number of blocks that are downsampled at a time.")
			fs.int(&cfg.FilesConcurrency, "block-files-concurrency", "1", "Number of files of a block that are copied at a time.")
			fs.string(&cfg.DataDir, "data-dir", "./data", "Folder for the blocks that are being worked on. It may be lost at any time.")
			fs.enum(&hash, "hash-func", "", "Checksum that is written for each file of a block; none is none.", "SHA256", "")
			return func(p *process) error {
				bkt, err := t.open(p)
				if err != nil {
					return err
				}
				cfg.Hash, cfg.Progress = block.HashFunc(hash), bar(os.Stderr)
				cfg.DataDir = filepath.Clean(cfg.DataDir)
				d, err := bucketops.NewDownsampler(bkt, cfg, p.logger, p.reg)
				if err != nil {
					return err
				}
				if wait <= 0 {
					p.once(d.Run)
				} else {
					p.loop(func(ctx context.Context) error { return d.Loop(ctx, wait) })
				}
				if _, err := p.addHTTP(http, &content{}); err != nil {
					return err
				}
				p.probe.Ready()
				return nil
			}
		},
	}
}

// parseMatchers reads matchers in braces or without.
func parseMatchers(s string) (ms []*labels.Matcher, err error) {
	if s[0] != '{' {
		s = "{" + s + "}"
	}
	return parser.ParseMetricSelector(s)
}

// rewrite is tools bucket rewrite.
func (t *bucketTool) rewrite() Component {
	return Component{
		name: "rewrite",
		help: "Write blocks anew with series deleted or labels changed.",
		bind: func(fs *flags) runner {
			var cfg bucketops.RewriteConfig
			var ids []string
			var hash string
			var toDelete, toRelabel content
			fs.strings(&ids, "id", "Block to rewrite (repeatable).", noDefault).Required()
			fs.string(&cfg.TempDir, "tmp.dir", filepath.Join(os.TempDir(), "thanos-rewrite"), "Folder for the blocks that are being worked on, and for the lists of changes.")
			fs.bool(&cfg.DryRun, "dry-run", true, "Write what would be changed, and change nothing; --no-dry-run changes it.")
			fs.bool(&cfg.PromBlocks, "prom-blocks", false, "The blocks are for Prometheus only and need no external labels.")
			fs.bool(&cfg.DeleteBlocks, "delete-blocks", false, "Mark the old blocks for deletion once the new ones are there.")
			fs.enum(&hash, "hash-func", "", "Checksum that is written for each file of a block; none is none.", "SHA256", "")
			fs.content(&toDelete, "rewrite.to-delete-config", "what to delete, a list of {matchers, intervals: [{mint, maxt}], request_id}", true)
			fs.content(&toRelabel, "rewrite.to-relabel-config", "relabel rules for the labels of the series", true)
			fs.bool(&cfg.ChangeLog, "rewrite.add-change-log", true, "Keep a list of the changes in --tmp.dir.")
			return t.task(func(ctx context.Context, p *process, bkt thanosobjstore.InstrumentedBucket) (err error) {
				if cfg.IDs, err = bucketops.ParseIDs(ids); err != nil {
					return fmt.Errorf("flag --id: %w", err)
				}
				text, err := toDelete.read()
				if err != nil {
					return err
				}
				if cfg.Deletions, err = bucketops.ParseDeletions(text); err != nil {
					return fmt.Errorf("flag --%s: %w", toDelete.name, err)
				}
				if text, err = toRelabel.read(); err != nil {
					return err
				}
				if cfg.Relabel, err = bucketops.ParseRelabel(text); err != nil {
					return fmt.Errorf("flag --%s: %w", toRelabel.name, err)
				}
				cfg.Hash, cfg.Progress = block.HashFunc(hash), bar(os.Stderr)
				return bucketops.Rewrite(ctx, bkt, cfg, p.out, p.logger)
			})
		},
	}
}
